// The dialog with one sample: the image in full size, its labels, its facts, and its source beside it.
"use strict";

DiffuGenReport.sample = (() => {
  const { data, painting, gallery } = DiffuGenReport;
  const { h, count, swatch, replace, table } = DiffuGenReport.elements;
  const LONGEST = 720;
  const DERIVATIVES = 12;
  const dialog = document.getElementById("sample");
  const layers = document.getElementById("layers");
  const layersPlace = document.createComment("the layers, while the dialog is closed");
  let shown = 0;

  async function show(app) {
    const id = app.state.sample;
    const row = id ? app.table.rowOf(id) : undefined;
    if (row === undefined) {
      if (dialog.open) dialog.close();
      if (id && app.ready) app.notice(`There is no sample ${id} in this report.`);
      return;
    }
    const turn = (shown += 1);
    const detail = await data.sample(row);
    if (turn !== shown) return;
    document.getElementById("sample-title").textContent = app.table.promptOf(row);
    step("sample-before", app, row, -1);
    step("sample-after", app, row, 1);
    const body = document.getElementById("sample-body");
    const source = app.table.sources[row] ? app.table.rowOf(app.table.sources[row]) : undefined;
    const pictures = h("div", { class: source === undefined ? "pictures" : "pictures two" });
    if (source !== undefined) pictures.append(await picture(app, source, await data.sample(source), "Drawn from this source"));
    pictures.append(await picture(app, row, detail, source === undefined ? "" : "This image"));
    if (turn !== shown) return;
    const told = h("div", { class: "told" }, objectsTable(app, detail), facts(app, row, detail));
    replace(body, pictures, told, derivatives(app, id));
    if (!dialog.open) {
      body.before(layers); // they switch what the dialog shows
      layers.hidden = false;
      dialog.showModal();
    }
    dialog.dataset.row = row;
  }

  function step(name, app, row, by) {
    const button = document.getElementById(name);
    const at = app.rows.indexOf(row);
    const next = at < 0 ? undefined : app.rows[at + by];
    button.disabled = next === undefined;
    button.onclick = () => app.go({ sample: app.table.ids[next] }, true);
  }

  async function picture(app, row, detail, caption) {
    const canvas = h("canvas", { role: "img", "aria-label": described(app, row, detail) });
    const full = detail.thumbnail ? await fullImage(app, row, detail) : null;
    await painting.paint(canvas, row, detail, app.layers(), app.summary, { longest: LONGEST, full, marked: true });
    const inner = detail.thumbnail ? canvas : h("p", { class: "empty" }, "No image was drawn.");
    return h("figure", {}, inner, caption && h("figcaption", {}, caption, " ", openLink(app, row, caption)));
  }

  function openLink(app, row, caption) {
    if (caption === "This image") return null;
    return h("a", { href: app.href({ sample: app.table.ids[row] }) }, "Open it");
  }

  function described(app, row, detail) {
    const objects = detail.instances.map((each) => `${each.class} ${each.score.toFixed(2)}`).join(", ");
    return `${app.table.promptOf(row)}: ${objects || "no object"}`;
  }

  // The image in full size: in the folder of a format, or among the store's samples; else null.
  async function fullImage(app, row, detail) {
    const split = app.summary.splits[app.table.split.values[row]];
    const formats = detail.reason ? [] : app.summary.images;
    const places = [...formats.map((place) => place.replace("{split}", split).replace("{file}", detail.file)), `../../${detail.image}`];
    for (const place of places) {
      try {
        return await data.picture(place);
      } catch {
        // the next place may have it
      }
    }
    return null;
  }

  function objectsTable(app, detail) {
    const rows = [
      ...detail.instances.map((each) => [each, "kept"]),
      ...(detail.leftOut || []).map((each) => [each, "dropped by quality"]),
      ...(detail.marked || []).map((each) => [each, `only ${each.by}: ${gallery.spaced(each.reason).toLowerCase()}`]),
    ];
    if (rows.length === 0) return h("p", { class: "muted" }, "No object was found in it.");
    const both = rows.some(([each]) => each.scores);
    const all = rows.every(([, state]) => state === "kept");
    return table(
      "Objects",
      ["Object", "Score", ...(both ? ["Overlap"] : []), "Area", "Box", ...(all ? [] : ["State"])],
      rows.map(([each, state]) => [
        h("span", {}, swatch(painting.colorOf(app.summary, each.class)), each.class),
        each.score.toFixed(2),
        ...(both ? [overlapOf(each)] : []),
        `${((100 * each.area) / (detail.width * detail.height)).toFixed(1)}\u00a0%`,
        h("span", { class: "box" }, each.bbox.map((side) => Math.round(side)).join(", ")),
        ...(all ? [] : [state]),
      ]),
    );
  }

  function overlapOf(each) {
    if (each.overlap !== undefined) return each.overlap.toFixed(2);
    return each.scores && each.scores.iou !== undefined ? each.scores.iou.toFixed(2) : "–";
  }

  function facts(app, row, detail) {
    const { table: index, summary } = app;
    const stage = summary.stages[index.stage.values[row]];
    const entries = [
      ["State", detail.reason ? `rejected: ${gallery.spaced(detail.reason).toLowerCase()}` : "published"],
      ["Split", summary.splits[index.split.values[row]]],
      ["Stage", `${stage.name} (${stage.kind})`],
      ["Size", `${count(detail.width)} × ${count(detail.height)} pixels`],
      ["Seed", summary.drawn ? detail.seed : null],
      ...Object.entries(detail.variables || {}),
      ...Object.entries(detail.scores || {}).map(([kind, score]) => [`Score: ${kind}`, score.toFixed(3)]),
      ["Replaced", detail.replaced],
      ["File given", detail.given && detail.given.file],
      ["Sample", detail.id],
      ["Image", detail.image],
    ];
    const list = h("dl", { class: "facts" });
    for (const [name, value] of entries) if (value) list.append(h("div", {}, h("dt", {}, name), h("dd", {}, value)));
    if (detail.duplicateOf) {
      const link = h("a", { href: app.href({ sample: detail.duplicateOf }) }, detail.duplicateOf);
      list.append(h("div", {}, h("dt", {}, "Duplicate of"), h("dd", {}, link)));
    }
    return list;
  }

  function derivatives(app, id) {
    const rows = app.table.derivativesOf(id);
    if (rows.length === 0) return null;
    const more = rows.length > DERIVATIVES ? h("p", { class: "muted" }, `and ${count(rows.length - DERIVATIVES)} more`) : null;
    return [h("h3", {}, "Drawn from this image"), gallery.tiles(app, rows.slice(0, DERIVATIVES), "Derivatives"), more];
  }

  function start(app) {
    layers.before(layersPlace);
    dialog.addEventListener("close", () => {
      shown += 1;
      layersPlace.after(layers);
      app.showLayers();
      if (app.state.sample) app.go({ sample: "" });
    });
    document.getElementById("sample-close").onclick = () => dialog.close();
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close(); // beside the content
    });
    dialog.addEventListener("keydown", (event) => {
      const name = { ArrowLeft: "sample-before", ArrowRight: "sample-after" }[event.key];
      if (name && !event.target.closest(".tiles, .scroll, select")) document.getElementById(name).click();
    });
  }

  return { show, start };
})();
