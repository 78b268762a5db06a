// The threshold slider: masks are drawn again from the stored attention maps, and what would be kept is counted.
"use strict";

DiffuGenReport.threshold = (() => {
  const { data, rule, gallery } = DiffuGenReport;
  const { h, count, replace } = DiffuGenReport.elements;
  const EXAMINED = 200;
  const SLICE_MS = 12;
  const DEFAULT = 0.4; // where the manifest says auto
  const KNOWN = 50_000;
  const known = new Map();
  let panel = null;
  let turn = 0;

  const published = (app) => app.summary.labeling.attention.threshold;
  const start = (app) => (published(app) === "auto" ? DEFAULT : published(app));
  const value = (app) => app.state.threshold || start(app);

  // The verdict on a sample at a threshold. A derivative is rejected where its source is.
  async function decided(app, row, threshold) {
    const detail = await data.sample(row);
    const source = app.table.sources[row] ? app.table.rowOf(app.table.sources[row]) : undefined;
    const evidence = detail.thumbnail ? await data.maps(row) : null;
    if (evidence === null) return null;
    const own = rule.decided(evidence, detail, threshold, app.summary);
    if (source === undefined) return own;
    const first = await counted(app, source, threshold);
    if (first === null) return own;
    const refused = (reason) => ({ ...own, accepted: false, reason });
    if (!first.accepted) return refused("SourceRejected");
    const replaced = detail.replaced && !first.classes.has(detail.replaced);
    return replaced ? refused("SourceWithoutLabel") : own;
  }

  // What the counts need of a verdict: {accepted, objects, classes}. It is kept, since masks take most of the time.
  async function counted(app, row, threshold) {
    const key = `${row} ${threshold}`;
    if (!known.has(key)) {
      const verdict = await decided(app, row, threshold);
      if (known.size >= KNOWN) known.clear();
      known.set(key, verdict && { accepted: verdict.accepted, objects: verdict.objects.length, classes: new Set(verdict.objects.map((each) => each.class)) });
    }
    return known.get(key);
  }

  function show(app, body) {
    const { attention } = app.summary.labeling;
    if (!attention || !app.summary.maps) {
      replace(body, h("p", { class: "empty" }, "A detector labels this dataset, so there are no attention maps to cut at a threshold."));
      return;
    }
    if (panel === null) panel = makePanel(app);
    const grid = h("div", {});
    // A slider that leaves the page, even for a moment, loses the focus and the pointer that drags it.
    if (panel.element.parentNode === body) body.lastChild.replaceWith(grid);
    else replace(body, panel.element, grid);
    panel.update();
    gallery.show(app, grid, { decide: (row) => decided(app, row, value(app)) });
    examine(app, false);
  }

  function makePanel(app) {
    const slider = h("input", { id: "threshold", type: "range", min: 0.05, max: 0.95, step: 0.01, "aria-describedby": "threshold-help" });
    const output = h("output", { for: "threshold", class: "threshold-value" });
    const line = h("pre", { tabindex: "0", "aria-label": "Lines for the manifest" });
    const counts = h("div", { id: "counts", role: "status" });
    const copy = h("button", { type: "button", onclick: () => copied(line, copy) }, "Copy");
    const all = h("button", { type: "button", id: "examine-all", onclick: () => examine(app, true) }, "Count all");
    const back = h("button", { type: "button", onclick: () => app.go({ threshold: 0 }) }, "Back to the manifest's");
    let waiting = 0;
    slider.addEventListener("input", () => {
      output.textContent = Number(slider.value).toFixed(2);
      clearTimeout(waiting);
      waiting = setTimeout(() => app.go({ threshold: Number(slider.value) }, true), 60);
    });
    const was = published(app);
    const element = h(
      "div",
      { class: "panel threshold" },
      h(
        "div",
        { class: "threshold-slider" },
        h("label", { for: "threshold" }, "Threshold of attention"),
        h("div", { class: "slider-row" }, slider, output),
        h(
          "p",
          { id: "threshold-help", class: "muted" },
          `A pixel belongs to an object where the map of its word is above this fraction of its range. The manifest has ${was}. `,
          "The masks below come from the stored maps by the same rule as the labels",
          app.summary.labeling.attention.snap ? ", before the image's colors move their borders." : ".",
          " A changed threshold needs no GPU",
          app.summary.stages.some((stage) => stage.replaces) ? ", except for stages that replace objects: they draw again inside the changed masks." : ".",
        ),
        h("p", { class: "buttons" }, back, all),
      ),
      counts,
      h("div", { class: "threshold-manifest" }, h("p", {}, "In the manifest, below ", h("code", {}, "spec"), ":"), line, copy),
    );
    const update = () => {
      slider.value = value(app);
      slider.setAttribute("aria-valuetext", value(app).toFixed(2));
      output.textContent = value(app).toFixed(2);
      line.textContent = `labeling:\n  attention:\n    threshold: ${value(app)}`;
      back.disabled = !app.state.threshold;
    };
    return { element, counts, update, all };
  }

  async function copied(line, button) {
    try {
      await navigator.clipboard.writeText(line.textContent);
    } catch {
      getSelection().selectAllChildren(line); // pages without https have no clipboard
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => {
      button.textContent = "Copy";
    }, 1500);
  }

  // Counts over the filtered samples, or over some of them, evenly spaced, what would be kept; a newer call stops it.
  async function examine(app, all) {
    const mine = (turn += 1);
    const { rows } = app;
    const size = all ? rows.length : Math.min(rows.length, EXAMINED);
    const chosen = Array.from({ length: size }, (_, at) => rows[Math.floor((at * rows.length) / size)]);
    const [now, then] = [value(app), start(app)];
    const sums = { seen: 0, published: [0, 0], then: [0, 0], now: [0, 0] };
    let begin = performance.now();
    panel.all.hidden = size === rows.length;
    panel.all.textContent = `Count all ${count(rows.length)}`;
    for (const row of chosen) {
      const verdict = await counted(app, row, now);
      const before = verdict && now !== then ? await counted(app, row, then) : verdict;
      if (mine !== turn) return;
      if (verdict) {
        sums.seen += 1;
        add(sums.now, verdict.accepted, verdict.objects);
        add(sums.then, before.accepted, before.objects);
        add(sums.published, app.table.reason.values[row] === 0, app.table.count.values[row]);
      }
      if (performance.now() - begin > SLICE_MS) {
        await new Promise((resolve) => setTimeout(resolve));
        if (mine !== turn) return;
        begin = performance.now();
      }
    }
    showCounts(sums, now, then, size, rows.length, published(app));
  }

  function add(sum, accepted, objects) {
    if (!accepted) return;
    sum[0] += 1;
    sum[1] += objects;
  }

  function showCounts(sums, now, then, size, total, manifest) {
    const row = (label, [images, objects]) => h("tr", {}, h("th", { scope: "row" }, label), h("td", { class: "number" }, count(images)), h("td", { class: "number" }, count(objects)));
    const without = size - sums.seen;
    replace(
      panel.counts,
      h(
        "table",
        {},
        h("caption", {}, `Kept of ${count(sums.seen)} images`, size < total ? ` (evenly chosen from ${count(total)})` : ""),
        h("thead", {}, h("tr", {}, h("td", {}), h("th", { scope: "col", class: "number" }, "images"), h("th", { scope: "col", class: "number" }, "objects"))),
        h(
          "tbody",
          {},
          row("published", sums.published),
          row(manifest === "auto" ? `by the rule at ${then.toFixed(2)}` : `by the rule at ${then.toFixed(2)}, the manifest's`, sums.then),
          now === then ? null : row(`by the rule at ${now.toFixed(2)}`, sums.now),
        ),
      ),
      without ? h("p", { class: "muted" }, `${count(without)} more have no image or no attention map.`) : null,
    );
    panel.counts.dataset.seen = sums.seen;
    panel.counts.dataset.images = sums.now[0];
    panel.counts.dataset.objects = sums.now[1];
    panel.counts.dataset.at = now;
  }

  return { show, decided };
})();
