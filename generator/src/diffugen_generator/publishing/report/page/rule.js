// The rule by which attention maps become objects, and objects make an image accepted: that of `labeling` before the
// colors of the image move the borders (`snap`), and that of `quality`.
"use strict";

DiffuGenReport.rule = (() => {
  const { decoded, enlarged, parts, box, overlap } = DiffuGenReport.masks;

  // Each map enlarged to the image and stretched to 0..1.
  function stretched(map, [height, width], toHeight, toWidth) {
    const large = enlarged(map, height, width, toHeight, toWidth);
    let least = Infinity;
    let greatest = -Infinity;
    for (const value of large) {
      if (value < least) least = value;
      if (value > greatest) greatest = value;
    }
    const range = Math.max(Math.fround(greatest - least), 1);
    for (let at = 0; at < large.length; at += 1) large[at] = Math.fround(large[at] - least) / range;
    return large;
  }

  // The evidence without classes whose presence is too low.
  function present(evidence, settings) {
    const least = settings.attention.minPresence;
    if (least === null || least === undefined || !evidence.presence) return evidence;
    const kept = evidence.classes.map((_, at) => at).filter((at) => evidence.presence[at] >= least);
    const behind = evidence.maps.slice(evidence.classes.length);
    const maps = [...kept.map((at) => evidence.maps[at]), ...behind];
    return { ...evidence, classes: kept.map((at) => evidence.classes[at]), maps };
  }

  // The objects at a threshold, class by class, the largest first: {class, score, bbox, area, mask}.
  function objects(evidence, height, width, threshold, summary) {
    const { classes, maps: raw, size } = present(evidence, summary.labeling);
    const count = classes.length;
    if (count === 0) return [];
    const maps = raw.map((map) => stretched(map, size, height, width));
    const { rule } = summary;
    const limit = Math.fround(threshold);
    const certain = Math.fround(Math.min(rule.most, threshold + rule.above));
    const owners = new Int16Array(height * width).fill(-1);
    for (let at = 0; at < owners.length; at += 1) {
      let winner = 0;
      for (let word = 1; word < count; word += 1) if (maps[word][at] > maps[winner][at]) winner = word;
      const value = maps[winner][at];
      if (value < limit) continue;
      let behind = 0;
      for (let word = count; word < maps.length; word += 1) behind = Math.max(behind, maps[word][at]);
      if (value >= certain || value >= behind) owners[at] = winner;
    }
    return classes.flatMap((name, number) => {
      const owned = Uint8Array.from(owners, (owner) => (owner === number ? 1 : 0));
      const level = mean(maps[number], owned, 0);
      return parts(owned, height, width, rule).map(({ mask, area }) => ({
        class: name,
        score: Math.min(1, Math.max(0, mean(maps[number], mask, 1) - level)),
        bbox: box(mask, height, width),
        area,
        mask,
      }));
    });
  }

  function mean(values, mask, wanted) {
    let sum = 0;
    let count = 0;
    for (let at = 0; at < mask.length; at += 1) {
      if (mask[at] !== wanted) continue;
      sum += values[at];
      count += 1;
    }
    return count ? sum / count : 0;
  }

  // With a detector beside attention: the detector's objects that attention found too, matched one to one.
  function agreed(attention, detail, summary) {
    const { height, width } = detail;
    const detected = [...detail.instances, ...(detail.leftOut || [])].filter((each) => each.scores);
    detected.push(...(detail.marked || []).filter((each) => each.by === "detector"));
    const masks = detected.map((each) => decoded(each.segmentation, height, width));
    const pairs = [];
    detected.forEach((each, row) => {
      attention.forEach((other, column) => {
        const iou = each.class === other.class ? overlap(masks[row], other.mask) : 0;
        if (iou >= Math.max(summary.labeling.agreement, 1e-9)) pairs.push([iou, row, column]);
      });
    });
    pairs.sort((one, two) => two[0] - one[0]);
    const rows = new Set();
    const columns = new Set();
    for (const [, row, column] of pairs) {
      if (rows.has(row) || columns.has(column)) continue;
      rows.add(row);
      columns.add(column);
    }
    const kept = [...rows].sort((one, two) => one - two);
    return kept.map((row) => ({ ...detected[row], mask: masks[row] }));
  }

  // Which objects and whether the image would be kept: {objects, accepted, reason}. `fixed` is the reason for which the
  // image is rejected whatever its objects are, or "".
  function verdict(found, detail, fixed, summary) {
    const { quality, rule } = summary;
    const { height, width } = detail;
    const kept = found.filter(({ area, bbox: [x, y, w, h] }) => {
      const fraction = area / (height * width);
      const distance = Math.min(x, y, width - x - w, height - y - h);
      return (
        fraction >= quality.minAreaFraction &&
        fraction <= quality.maxAreaFraction &&
        distance >= quality.minBorderDistance
      );
    });
    const reason = fixed || (kept.length < quality.minInstances ? rule.tooFew : "");
    return { objects: kept, accepted: !reason, reason };
  }

  // The verdict on an image at a threshold.
  function decided(evidence, detail, threshold, summary) {
    const fixed = detail.reason && detail.reason !== summary.rule.tooFew ? detail.reason : "";
    const found = objects(evidence, detail.height, detail.width, threshold, summary);
    const both = summary.labeling.detector !== null && summary.labeling.detector !== undefined;
    return verdict(both ? agreed(found, detail, summary) : found, detail, fixed, summary);
  }

  return { objects, decided, stretched, present };
})();
