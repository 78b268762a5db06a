// Masks: COCO's run-length encoding, connected parts, boxes, overlaps, and bilinear enlargement.
// A mask is a Uint8Array of 0 and 1, row by row.
"use strict";

DiffuGenReport.masks = (() => {
  // The mask of the counts of a compressed RLE, as pycocotools writes them: runs go down the columns.
  function decoded(text, height, width) {
    const mask = new Uint8Array(height * width);
    const runs = [];
    let at = 0;
    let place = 0;
    let value = 0;
    while (at < text.length) {
      let run = 0;
      let shift = 0;
      for (let more = true; more; shift += 5) {
        const code = text.charCodeAt(at) - 48;
        run |= (code & 31) << shift;
        more = (code & 32) !== 0;
        at += 1;
        if (!more && code & 16) run |= -1 << (shift + 5);
      }
      if (runs.length > 2) run += runs[runs.length - 2];
      runs.push(run);
      if (value) {
        for (let pixel = place; pixel < place + run; pixel += 1) {
          mask[(pixel % height) * width + Math.floor(pixel / height)] = 1;
        }
      }
      place += run;
      value = 1 - value;
    }
    return mask;
  }

  // Bilinear enlargement as OpenCV's INTER_LINEAR does it for 32-bit floats: pixel centers, edges repeated.
  function enlarged(values, height, width, toHeight, toWidth) {
    const columns = steps(width, toWidth);
    const rows = steps(height, toHeight);
    const wide = new Float32Array(height * toWidth);
    for (let y = 0; y < height; y += 1) {
      for (let x = 0; x < toWidth; x += 1) {
        const from = y * width + columns.from[x];
        const next = y * width + columns.next[x];
        const left = Math.fround(values[from] * columns.near[x]);
        wide[y * toWidth + x] = left + Math.fround(values[next] * columns.far[x]);
      }
    }
    const found = new Float32Array(toHeight * toWidth);
    for (let y = 0; y < toHeight; y += 1) {
      const from = rows.from[y] * toWidth;
      const next = rows.next[y] * toWidth;
      for (let x = 0; x < toWidth; x += 1) {
        const upper = Math.fround(wide[from + x] * rows.near[y]);
        found[y * toWidth + x] = upper + Math.fround(wide[next + x] * rows.far[y]);
      }
    }
    return found;
  }

  function steps(size, toSize) {
    const from = new Int32Array(toSize);
    const next = new Int32Array(toSize);
    const near = new Float32Array(toSize);
    const far = new Float32Array(toSize);
    for (let at = 0; at < toSize; at += 1) {
      let place = Math.fround(((at + 0.5) * size) / toSize - 0.5);
      let first = Math.floor(place);
      place -= first;
      if (first < 0) [first, place] = [0, 0];
      if (first >= size - 1) [first, place] = [size - 1, 0];
      from[at] = first;
      next[at] = Math.min(first + 1, size - 1);
      far[at] = place;
      near[at] = 1 - far[at];
    }
    return { from, next, near, far };
  }

  // The mask at another size: smooth where it grows, nearest where it shrinks.
  function resized(mask, height, width, toHeight, toWidth) {
    const found = new Uint8Array(toHeight * toWidth);
    if (toHeight > height) {
      const field = enlarged(mask, height, width, toHeight, toWidth);
      for (let at = 0; at < found.length; at += 1) found[at] = field[at] >= 0.5 ? 1 : 0;
      return found;
    }
    for (let y = 0; y < toHeight; y += 1) {
      const row = Math.floor(((y + 0.5) * height) / toHeight) * width;
      for (let x = 0; x < toWidth; x += 1) found[y * toWidth + x] = mask[row + Math.floor(((x + 0.5) * width) / toWidth)];
    }
    return found;
  }

  const rounded = (value) => {
    const lower = Math.floor(value);
    const rest = value - lower;
    return rest === 0.5 ? lower + (lower % 2) : Math.round(value); // half to even, as Python and OpenCV round
  };

  // For each row of an elliptic brush of OpenCV of radius `reach`: how far it reaches to the left and right.
  function brush(reach) {
    const found = [];
    for (let dy = -reach; dy <= reach; dy += 1) found.push(rounded(reach * Math.sqrt((reach * reach - dy * dy) / (reach * reach))));
    return found;
  }

  function dilated(mask, height, width, reach) {
    const found = new Uint8Array(mask.length);
    const spans = brush(reach);
    for (let y = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1) {
        if (!mask[y * width + x]) continue;
        for (let dy = -reach; dy <= reach; dy += 1) {
          const row = y + dy;
          if (row < 0 || row >= height) continue;
          const span = spans[dy + reach];
          found.fill(1, row * width + Math.max(0, x - span), row * width + Math.min(width - 1, x + span) + 1);
        }
      }
    }
    return found;
  }

  // The connected parts of a mask, the largest first, without specks; parts with a very small gap are one.
  function parts(mask, height, width, rule) {
    const reach = Math.max(1, rounded(rule.gap * Math.min(height, width)));
    const touching = dilated(mask, height, width, reach);
    const label = new Int32Array(mask.length);
    const areas = [];
    const stack = [];
    for (let begin = 0; begin < mask.length; begin += 1) {
      if (!touching[begin] || label[begin]) continue;
      const number = areas.push(0);
      label[begin] = number;
      stack.push(begin);
      while (stack.length) {
        const at = stack.pop();
        if (mask[at]) areas[number - 1] += 1;
        const x = at % width;
        for (let dy = -width; dy <= width; dy += width) {
          for (let dx = -1; dx <= 1; dx += 1) {
            const next = at + dy + dx;
            if (next < 0 || next >= mask.length || x + dx < 0 || x + dx >= width) continue;
            if (touching[next] && !label[next]) {
              label[next] = number;
              stack.push(next);
            }
          }
        }
      }
    }
    const least = Math.max(rule.speck * mask.length, rule.speckOfLargest * Math.max(0, ...areas));
    const kept = areas.map((area, at) => [area, at + 1]).filter(([area]) => area > 0 && area >= least);
    kept.sort((one, two) => two[0] - one[0] || one[1] - two[1]);
    return kept.map(([area, number]) => {
      const part = new Uint8Array(mask.length);
      for (let at = 0; at < mask.length; at += 1) if (mask[at] && label[at] === number) part[at] = 1;
      return { mask: part, area };
    });
  }

  // x, y, width and height of the box around a mask.
  function box(mask, height, width) {
    let [left, right, top, bottom] = [width, -1, height, -1];
    for (let y = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1) {
        if (!mask[y * width + x]) continue;
        left = Math.min(left, x);
        right = Math.max(right, x);
        top = Math.min(top, y);
        bottom = y;
      }
    }
    return [left, top, right + 1 - left, bottom + 1 - top];
  }

  // Intersection over union of two masks.
  function overlap(one, other) {
    let both = 0;
    let any = 0;
    for (let at = 0; at < one.length; at += 1) {
      both += one[at] & other[at];
      any += one[at] | other[at];
    }
    return any ? both / any : 0;
  }

  return { decoded, enlarged, resized, parts, box, overlap };
})();
