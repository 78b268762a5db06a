// The views that count: distributions, coverage of the prompt variables, rejections, and agreement of the labelers.
// They count what the filters leave.
"use strict";

DiffuGenReport.charts = (() => {
  const { gallery, painting } = DiffuGenReport;
  const { NO_SPLIT, NO_OVERLAP } = DiffuGenReport.table;
  const { h, svg, count, counted, percent, swatch, replace, table, bar, unseen } = DiffuGenReport.elements;
  const CELLS = 12; // of a position map, on each side
  const MAPS = 12;
  const MANY = 10; // objects in an image that are counted apart
  const EXAMPLES = 6;
  const VALUES = 100; // of a variable, in its table
  const CROSSED = 40; // of each of two variables

  const explanations = {
    TooFewInstances: "Fewer objects than quality.minInstances are left.",
    BlankPicture: "The image has one color, such as an image that a safety filter made black.",
    Duplicate: "It looks like an accepted image (quality.duplicates).",
    SourceRejected: "The image that it would be drawn from is rejected, so nothing was drawn.",
    SourceWithoutLabel: "Its source has no object of the class that is to be replaced, so nothing was drawn.",
    BelowClipScore: "The image fits its prompt less than quality.clipScore.min.",
    Unsafe: "The safety checker's score is above quality.safety.max.",
    BelowMinAreaFraction: "smaller than quality.minAreaFraction",
    AboveMaxAreaFraction: "larger than quality.maxAreaFraction",
    WithinMinBorderDistance: "nearer to the border than quality.minBorderDistance",
  };

  const total = (numbers) => numbers.reduce((sum, each) => sum + each, 0);
  const grid = (rows, columns) => Array.from({ length: rows }, () => new Array(columns).fill(0));

  // A histogram with a text for each bin; its numbers are also in a table that opens below it.
  function histogram(title, unit, labels, numbers) {
    const most = Math.max(1, ...numbers);
    const [width, height] = [480, 150];
    const step = width / numbers.length;
    const bars = numbers.map((number, at) =>
      svg("rect", { x: at * step + 1, y: height - (number / most) * height, width: Math.max(1, step - 2), height: (number / most) * height, class: "mark" }, svg("title", {}, `${labels[at]}: ${count(number)}`)),
    );
    const peak = numbers.indexOf(Math.max(...numbers));
    const says = total(numbers) ? `${title}: ${counted(total(numbers), unit[0], unit[1])}, most at ${labels[peak]}` : `${title}: none`;
    return h(
      "figure",
      { class: "card" },
      h("figcaption", {}, title),
      svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": says, preserveAspectRatio: "none", class: "histogram" }, bars),
      h("div", { class: numbers.length > 12 ? "axis muted" : "axis each muted", "aria-hidden": "true" }, (numbers.length > 12 ? ["0", "0.5", "1"] : labels).map((text) => h("span", {}, text))),
      h("details", { class: "numbers" }, h("summary", {}, "Numbers"), table(title, ["Range", unit[1]], labels.map((label, at) => [label, numbers[at]]))),
    );
  }

  function ranges(bins, digits = 2) {
    return Array.from({ length: bins }, (_, at) => `${(at / bins).toFixed(digits)}–${((at + 1) / bins).toFixed(digits)}`);
  }

  function distributions(app, body) {
    const { table: index, rows, summary } = app;
    const objects = index.objects;
    const bySplit = grid(summary.classes.length, summary.splits.length + 1);
    const sizes = new Array(20).fill(0);
    const scores = new Array(20).fill(0);
    const places = grid(summary.classes.length, CELLS * CELLS);
    index.eachObject(rows, (at, row) => {
      const number = objects.class.values[at];
      const split = index.split.values[row];
      bySplit[number][split === NO_SPLIT ? summary.splits.length : split] += 1;
      sizes[Math.min(19, Math.floor((objects.size.values[at] / 0x10000) * 20))] += 1;
      scores[Math.min(19, Math.floor((objects.score.values[at] / 256) * 20))] += 1;
      const x = Math.floor((objects.x.values[at] * CELLS) / 256);
      places[number][Math.floor((objects.y.values[at] * CELLS) / 256) * CELLS + x] += 1;
    });
    const images = new Array(summary.splits.length).fill(0);
    const many = [];
    for (const row of rows) {
      if (index.split.values[row] !== NO_SPLIT) images[index.split.values[row]] += 1;
      const number = Math.min(MANY, index.count.values[row]);
      many[number] = (many[number] || 0) + 1;
    }
    const each = Array.from(many, (number) => number || 0);
    replace(
      body,
      h("div", { class: "card" }, h("h3", {}, "Classes"), classTable(app, bySplit, images)),
      h(
        "div",
        { class: "cards charts" },
        histogram("Size of an object: √(its area / the image's)", ["object", "objects"], ranges(20), sizes),
        histogram("Score of an object", ["object", "objects"], ranges(20), scores),
        histogram("Objects in an image", ["image", "images"], each.map((_, at) => (at === MANY ? `${MANY}+` : String(at))), each),
      ),
      h("h3", {}, "Position: where the centers of the boxes are"),
      positions(app, places),
    );
  }

  function classTable(app, bySplit, images) {
    const { summary } = app;
    const most = Math.max(1, ...bySplit.map(total));
    const rows = summary.classes.map((each, number) => [
      h("a", { href: app.href({ view: "gallery", class: number, page: 1 }) }, swatch(each.color), each.name),
      ...summary.splits.map((_, split) => bySplit[number][split]),
      total(bySplit[number]),
      bar(total(bySplit[number]) / most, painting.css(each.color)),
    ]);
    const sums = summary.splits.map((_, split) => total(bySplit.map((row) => row[split])));
    rows.push(["All objects", ...sums, total(bySplit.map(total)), ""], ["Images", ...images, total(images), ""]);
    return table("Objects of each class", ["Class", ...summary.splits, "all", unseen("compared")], rows, { class: "sums" });
  }

  function positions(app, places) {
    const shown = places.map((cells, number) => [total(cells), number]).filter(([sum]) => sum > 0);
    shown.sort((one, two) => two[0] - one[0]);
    const maps = shown.slice(0, MAPS).map(([sum, number]) => positionMap(app.summary.classes[number], places[number], sum));
    const more = shown.length > MAPS ? h("p", { class: "muted" }, `The ${MAPS} classes with the most objects; filter by a class to see another.`) : null;
    return [h("div", { class: "cards small" }, maps), more];
  }

  function positionMap(known, cells, sum) {
    const most = Math.max(...cells);
    const color = painting.css(known.color);
    const squares = cells.map((number, at) => {
      const square = svg("rect", { x: at % CELLS, y: Math.floor(at / CELLS), width: 1.02, height: 1.02, class: "heat", "fill-opacity": (number / most).toFixed(3), color });
      return square;
    });
    const thirds = grid(3, 3);
    cells.forEach((number, at) => {
      thirds[Math.floor((Math.floor(at / CELLS) * 3) / CELLS)][Math.floor(((at % CELLS) * 3) / CELLS)] += number;
    });
    const names = [["upper left", "upper middle", "upper right"], ["left", "middle", "right"], ["lower left", "lower middle", "lower right"]];
    const flat = thirds.flat();
    const where = names.flat()[flat.indexOf(Math.max(...flat))];
    const says = `${known.name}: ${counted(sum, "object", "objects")}, most in the ${where} of the image`;
    return h(
      "figure",
      { class: "card" },
      h("figcaption", {}, swatch(known.color), known.name, h("span", { class: "muted" }, ` ${count(sum)}`)),
      svg("svg", { viewBox: `0 0 ${CELLS} ${CELLS}`, role: "img", "aria-label": says, class: "position" }, squares),
    );
  }

  function coverage(app, body) {
    const { table: index } = app;
    const rows = app.rowsWith({ status: "all" });
    const names = [...index.variables.keys()];
    if (names.length === 0) {
      replace(body, h("p", { class: "empty" }, "The prompts of this dataset have no variables."));
      return;
    }
    const tables = names.map((name) => h("div", { class: "card" }, h("h3", {}, h("code", {}, `{${name}}`)), variableTable(app, name, rows)));
    const cross = names.length > 1 ? crossing(app, names, rows) : null;
    replace(body, h("p", { class: "muted" }, "What the templates asked for, and what is published of it. Rejected images count as drawn."), cross, h("div", { class: "cards wide" }, tables));
  }

  function variableTable(app, name, rows) {
    const { table: index } = app;
    const { values, column } = index.variables.get(name);
    const sums = grid(values.texts.length, 3);
    for (const row of rows) {
      const value = column.values[row];
      if (value === 0) continue;
      sums[value - 1][0] += 1;
      if (index.reason.values[row] === 0) {
        sums[value - 1][1] += 1;
        sums[value - 1][2] += index.count.values[row];
      }
    }
    const share = (at) => (sums[at][0] ? sums[at][1] / sums[at][0] : 0);
    const shown = values.texts.map((_, at) => at).filter((at) => sums[at][0] > 0);
    const long = shown.length > VALUES;
    if (long) shown.sort((one, two) => share(one) - share(two));
    return [
      long ? h("p", { class: "muted" }, `The ${VALUES} of ${count(shown.length)} values of which the least is published.`) : null,
      table(
        `Values of ${name}`,
        ["Value", "drawn", "published", "objects", "share published"],
        shown.slice(0, VALUES).map((at) => [
          h("a", { href: app.href({ view: "gallery", page: 1, variables: { ...app.state.variables, [name]: values.texts[at] } }) }, values.texts[at]),
          ...sums[at],
          h("span", { class: "share" }, bar(share(at)), percent(sums[at][1], sums[at][0])),
        ]),
      ),
    ];
  }

  function crossing(app, names, rows) {
    const chosen = { down: names[0], across: names[1] };
    const place = h("div", {});
    const choice = (label, key) =>
      h("label", {}, `${label} `, h("select", { onchange: (event) => { chosen[key] = event.target.value; draw(); } }, names.map((name) => h("option", { value: name, selected: chosen[key] === name }, name))));
    const draw = () => replace(place, crossTable(app, chosen.down, chosen.across, rows));
    draw();
    return h("div", { class: "card" }, h("h3", {}, "Two variables"), h("div", { class: "controls" }, choice("Rows", "down"), choice("Columns", "across")), place);
  }

  function crossTable(app, down, across, rows) {
    const { table: index } = app;
    const [one, two] = [index.variables.get(down), index.variables.get(across)];
    const [ones, twos] = [one, two].map(({ values }) => values.texts.slice(0, CROSSED));
    const drawn = grid(ones.length, twos.length);
    const kept = grid(ones.length, twos.length);
    for (const row of rows) {
      const [a, b] = [one.column.values[row], two.column.values[row]];
      if (a === 0 || b === 0 || a > CROSSED || b > CROSSED) continue;
      drawn[a - 1][b - 1] += 1;
      kept[a - 1][b - 1] += index.reason.values[row] === 0 ? 1 : 0;
    }
    const most = Math.max(1, ...kept.flat());
    const longest = Math.max(one.values.texts.length, two.values.texts.length);
    const crossed = table(
      `Published images by ${down} and ${across}`,
      [down, ...twos],
      ones.map((text, a) => [
        text,
        ...twos.map((other, b) => {
          if (drawn[a][b] === 0) return h("span", { class: "muted" }, "not asked for");
          const variables = { ...app.state.variables, [down]: text, [across]: other };
          return h(
            "a",
            { href: app.href({ view: "gallery", page: 1, status: "all", variables }), class: kept[a][b] === 0 ? "cross none" : "cross", share: kept[a][b] / most, "aria-label": `${text}, ${other}: ${kept[a][b]} of ${drawn[a][b]} published` },
            h("span", {}, count(kept[a][b])),
            h("span", { class: "muted" }, ` of ${count(drawn[a][b])}`),
          );
        }),
      ]),
      { class: "crossing" },
    );
    return [crossed, longest > CROSSED ? h("p", { class: "muted" }, `At most ${CROSSED} values of each; filter to see others in the gallery.`) : null];
  }

  function rejections(app, body) {
    const { table: index } = app;
    const all = app.rowsWith({ status: "all", reason: -1 });
    const byReason = new Map();
    for (const row of all) {
      const reason = index.reason.values[row];
      if (reason === 0) continue;
      if (!byReason.has(reason)) byReason.set(reason, []);
      byReason.get(reason).push(row);
    }
    const some = [...byReason].sort((one, two) => two[1].length - one[1].length);
    const rejected = total(some.map(([, rows]) => rows.length));
    const sections = some.map(([number, rows]) => {
      const reason = index.reasons.texts[number];
      const examples = Array.from({ length: Math.min(EXAMPLES, rows.length) }, (_, at) => rows[Math.floor((at * rows.length) / Math.min(EXAMPLES, rows.length))]);
      return h(
        "section",
        { class: "card", "aria-label": gallery.spaced(reason) },
        h("h3", {}, gallery.spaced(reason), h("span", { class: "muted" }, ` ${counted(rows.length, "image", "images")}, ${percent(rows.length, all.length)}`)),
        h("p", {}, explanations[reason] || "", " ", h("a", { href: app.href({ view: "gallery", status: "rejected", reason: number, page: 1 }) }, `Show all ${count(rows.length)}`)),
        gallery.tiles(app, examples, `Examples: ${gallery.spaced(reason)}`),
      );
    });
    replace(
      body,
      h("p", {}, rejected ? `${counted(rejected, "image is", "images are")} rejected, ${percent(rejected, all.length)} of ${count(all.length)}.` : "No image is rejected."),
      droppedObjects(app, all),
      sections,
    );
  }

  function droppedObjects(app, rows) {
    const wanted = new Uint8Array(app.table.rows);
    for (const row of rows) wanted[row] = 1;
    const sums = [...app.table.dropped].map(([reason, pairs]) => [reason, total(pairs.filter(([row]) => wanted[row]).map(([, number]) => number))]);
    const some = sums.filter(([, sum]) => sum > 0);
    if (some.length === 0) return null;
    return h(
      "div",
      { class: "card" },
      h("h3", {}, "Objects dropped"),
      h("p", { class: "muted" }, "Objects that quality leaves out; their images stay if enough objects are left. The gallery shows them with dashed boxes."),
      table("Objects dropped", ["Reason", "objects", "because they are"], some.map(([reason, sum]) => [gallery.spaced(reason), sum, explanations[reason] || ""])),
    );
  }

  function labelers(app, body) {
    const { table: index, summary } = app;
    const rows = app.rowsWith({ status: "all" });
    if (!summary.labeling.attention || !summary.labeling.detector) {
      const only = summary.labeling.detector ? "a detector" : "the diffusion model's attention";
      replace(body, h("p", { class: "empty" }, `One labeler, ${only}, labels this dataset. With both, an object is published where they agree, and this view shows where they do not.`));
      return;
    }
    const wanted = new Uint8Array(index.rows);
    for (const row of rows) wanted[row] = 1;
    const overlaps = new Array(20).fill(0);
    const kept = new Array(summary.classes.length).fill(0);
    const sums = new Array(summary.classes.length).fill(0);
    index.eachObject(rows, (at) => {
      const iou = index.objects.iou.values[at];
      if (iou === NO_OVERLAP) return;
      overlaps[Math.min(19, Math.floor((iou / 255) * 20))] += 1;
      kept[index.objects.class.values[at]] += 1;
      sums[index.objects.class.values[at]] += iou / 254;
    });
    const marked = grid(summary.classes.length, index.marks.texts.length);
    const examples = index.marks.texts.map(() => []);
    for (let at = 0; at < index.marked.row.length; at += 1) {
      const row = index.marked.row.values[at];
      if (!wanted[row]) continue;
      const mark = index.marked.mark.values[at];
      marked[index.marked.class.values[at]][mark] += 1;
      if (examples[mark].length < EXAMPLES && examples[mark].at(-1) !== row) examples[mark].push(row);
    }
    const agreed = total(kept);
    const apart = total(marked.map(total));
    replace(
      body,
      h("p", {}, `Attention and detector agree on ${counted(agreed, "object", "objects")}, ${percent(agreed, agreed + apart)}. An object needs an overlap (intersection over union) of at least ${summary.labeling.agreement}. What only one of them found is not published; the examples show it with dashed boxes.`),
      h(
        "div",
        { class: "card" },
        h("h3", {}, "By class"),
        table(
          "Agreement by class",
          ["Class", "agreed", "mean overlap", ...index.marks.texts.map(markText)],
          summary.classes.map((each, number) => [
            h("span", {}, swatch(each.color), each.name),
            kept[number],
            kept[number] ? (sums[number] / kept[number]).toFixed(2) : "–",
            ...marked[number],
          ]),
        ),
      ),
      h("div", { class: "cards charts" }, histogram("Overlap of the two masks, of agreed objects", ["object", "objects"], ranges(20), overlaps)),
      index.marks.texts.map((mark, number) =>
        examples[number].length
          ? h("section", { class: "card", "aria-label": markText(mark) }, h("h3", {}, markText(mark), h("span", { class: "muted" }, ` ${counted(total(marked.map((row) => row[number])), "object", "objects")}`)), gallery.tiles(app, examples[number], `Examples: ${markText(mark)}`, { marked: true }))
          : null,
      ),
    );
  }

  function markText(mark) {
    const [by, reason] = mark.split("/");
    const why = { NotSeenByOther: "not seen by the other", OverlapTooSmall: "overlap too small", ClassDiffers: "other class" };
    return `Only ${by}: ${why[reason] || gallery.spaced(reason).toLowerCase()}`;
  }

  return { distributions, coverage, rejections, labelers };
})();
