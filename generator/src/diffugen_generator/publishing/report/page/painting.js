// Paints a sample into a canvas: its image, and over it attention maps, masks, boxes and names.
"use strict";

DiffuGenReport.painting = (() => {
  const { data, masks, rule } = DiffuGenReport;
  const TINT = 0.25;
  const HEAT = 0.85;
  const INK = [14, 17, 22];
  const NEUTRAL = [168, 176, 189];

  const css = (color, alpha = 1) => `rgb(${color.join(" ")} / ${alpha})`;

  function colorOf(summary, name) {
    const known = summary.classes.find((each) => each.name === name);
    return known ? known.color : NEUTRAL;
  }

  // Sets a canvas to the proportions of the sample, `longest` pixels on its longer side.
  function sized(canvas, detail, longest) {
    const scale = longest / Math.max(detail.width, detail.height);
    canvas.width = Math.max(1, Math.round(detail.width * scale));
    canvas.height = Math.max(1, Math.round(detail.height * scale));
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    return context;
  }

  function thumbnailSize(detail, cell) {
    const scale = Math.min(1, cell / Math.max(detail.width, detail.height));
    return [Math.max(1, Math.round(detail.width * scale)), Math.max(1, Math.round(detail.height * scale))];
  }

  // Layers: {image, masks, boxes, names, attention} and `word`, the word whose map is shown, or "" for all classes.
  // Options: {longest, full: an image in full size, objects: those to show instead of the published ones, marked:
  // whether to show what only one of two labelers found}.
  async function paint(canvas, row, detail, layers, summary, options) {
    const context = sized(canvas, detail, options.longest);
    const { width, height } = canvas;
    context.fillStyle = css([104, 112, 124]);
    context.fillRect(0, 0, width, height);
    if (layers.image && options.full) context.drawImage(options.full, 0, 0, width, height);
    else if (layers.image && detail.thumbnail) {
      const [w, h] = thumbnailSize(detail, summary.cell);
      const { image, x, y } = await data.thumbnail(row, summary.cell);
      // half a pixel less on each side: enlarging mixes in what is beside the thumbnail
      context.drawImage(image, x + 0.5, y + 0.5, Math.max(1, w - 1), Math.max(1, h - 1), 0, 0, width, height);
    }
    if (layers.attention && summary.maps) {
      const evidence = await data.maps(row);
      if (evidence) paintHeat(context, evidence, layers.word, summary);
    }
    const kept = options.objects || detail.instances.map((each) => withMask(each, detail));
    const others = options.objects ? [] : [...(detail.leftOut || []), ...((options.marked && detail.marked) || [])];
    if (layers.masks) for (const each of kept) paintMask(context, each, detail, colorOf(summary, each.class));
    if (layers.boxes) {
      for (const each of kept) paintBox(context, each.bbox, detail, colorOf(summary, each.class), false);
      for (const each of others) paintBox(context, each.bbox, detail, colorOf(summary, each.class), true);
    }
    if (layers.names) for (const each of kept) paintName(context, each, detail, colorOf(summary, each.class));
  }

  function withMask(object, detail) {
    return { ...object, mask: masks.decoded(object.segmentation, detail.height, detail.width) };
  }

  function overlay(context, fill) {
    const { width, height } = context.canvas;
    const layer = new OffscreenCanvas(width, height);
    const pixels = new ImageData(width, height);
    fill(pixels.data, width, height);
    layer.getContext("2d").putImageData(pixels, 0, 0);
    context.drawImage(layer, 0, 0);
  }

  function paintMask(context, object, detail, color) {
    overlay(context, (pixels, width, height) => {
      const mask = masks.resized(object.mask, detail.height, detail.width, height, width);
      const line = Math.max(1, Math.round(Math.sqrt(Math.max(width, height)) / 6));
      for (let y = 0; y < height; y += 1) {
        for (let x = 0; x < width; x += 1) {
          const at = y * width + x;
          if (!mask[at]) continue;
          const edge =
            x < line || y < line || x >= width - line || y >= height - line ||
            !mask[at - line] || !mask[at + line] || !mask[at - line * width] || !mask[at + line * width];
          pixels.set(color, 4 * at);
          pixels[4 * at + 3] = Math.round(255 * (edge ? 1 : TINT));
        }
      }
    });
  }

  function paintHeat(context, evidence, word, summary) {
    overlay(context, (pixels, width, height) => {
      const words = [...evidence.classes, ...evidence.background];
      const shown = words.map((_, at) => at).filter((at) => (word ? words[at] === word : at < evidence.classes.length));
      const maps = shown.map((at) => rule.stretched(evidence.maps[at], evidence.size, height, width));
      const colors = shown.map((at) => colorOf(summary, words[at]));
      for (let at = 0; at < width * height; at += 1) {
        let best = -1;
        for (let map = 0; map < maps.length; map += 1) if (best < 0 || maps[map][at] > maps[best][at]) best = map;
        if (best < 0) return;
        pixels.set(colors[best], 4 * at);
        pixels[4 * at + 3] = Math.round(255 * HEAT * maps[best][at]);
      }
    });
  }

  function scaledBox(context, [x, y, w, h], detail) {
    const across = context.canvas.width / detail.width;
    const down = context.canvas.height / detail.height;
    return [x * across, y * down, w * across, h * down];
  }

  function paintBox(context, bbox, detail, color, dashed) {
    const [x, y, w, h] = scaledBox(context, bbox, detail);
    const line = Math.sqrt(context.canvas.width) / 7;
    context.setLineDash(dashed ? [4 * line, 3 * line] : []);
    for (const [width, style] of [[line * 1.8, css(INK, 0.45)], [line, css(color)]]) {
      context.lineWidth = width;
      context.strokeStyle = style;
      context.strokeRect(x + line / 2, y + line / 2, Math.max(1, w - line), Math.max(1, h - line));
    }
    context.setLineDash([]);
  }

  function paintName(context, object, detail, color) {
    const [x, y] = scaledBox(context, object.bbox, detail);
    const size = Math.max(11, Math.round(context.canvas.width / 19));
    context.font = `600 ${size}px system-ui, sans-serif`;
    const text = `${object.class} ${object.score.toFixed(2)}`;
    const width = context.measureText(text).width + size * 0.6;
    const height = size * 1.35;
    const left = Math.max(0, Math.min(x, context.canvas.width - width));
    const top = y >= height ? y - height : y;
    context.fillStyle = css(color);
    context.fillRect(left, top, width, height);
    context.fillStyle = css(INK);
    context.fillText(text, left + size * 0.3, top + size * 1.02);
  }

  return { paint, colorOf, css };
})();
