// The page's state is its address: every filter, view, layer and sample is in the part after #, so any view can be
// shared as a link.
"use strict";

(() => {
  const { data, table, gallery, threshold, charts, provenance, sample } = DiffuGenReport;
  const { h, count, counted, replace } = DiffuGenReport.elements;
  const AT_ONCE = 6;
  const LAYERS = ["image", "masks", "boxes", "names", "attention"];
  const $ = (id) => document.getElementById(id);

  const VIEWS = {
    gallery: { title: "Gallery", show: (body) => gallery.show(app, body), layers: true },
    distributions: { title: "Distributions", show: (body) => charts.distributions(app, body) },
    coverage: { title: "Coverage", show: (body) => charts.coverage(app, body), all: true },
    rejections: { title: "Rejections", show: (body) => charts.rejections(app, body), layers: true, all: true },
    labelers: { title: "Labelers", show: (body) => charts.labelers(app, body), layers: true, all: true },
    threshold: { title: "Threshold", show: (body) => threshold.show(app, body), layers: true, all: true },
    provenance: { title: "Provenance", show: (body) => provenance.show(app, body), unfiltered: true },
  };

  const START = {
    view: "gallery", status: "accepted", class: -1, split: -1, stage: -1, reason: -1, low: 0, high: 1, words: "", order: "",
    page: 1, layers: "image,masks,boxes", word: "", sample: "", threshold: 0, variables: {},
  };

  const app = {
    summary: null,
    table: new table.Table(),
    rows: new Uint32Array(0),
    state: { ...START },
    ready: false,

    // The address with some of the state changed.
    href(changes) {
      return `#${written({ ...this.state, sample: "", ...changes })}`;
    },

    // Changes some of the state; with `quietly`, the browser's history gets no new entry.
    go(changes, quietly = false) {
      const filtered = Object.keys(changes).some((key) => !["page", "sample", "layers", "word", "threshold"].includes(key));
      const next = { ...this.state, ...(filtered ? { page: 1 } : {}), ...changes };
      const hash = `#${written(next)}`;
      if (hash === location.hash || (hash === "#" && !location.hash)) return;
      history[quietly ? "replaceState" : "pushState"](null, "", hash);
      apply();
    },

    rowsWith(changes) {
      return this.table.filter({ ...query(), ...changes });
    },

    layers() {
      const shown = this.state.layers.split(",");
      return { ...Object.fromEntries(LAYERS.map((name) => [name, shown.includes(name)])), word: this.state.word };
    },

    // Paints the tiles of a list when they come into view.
    painting(list) {
      for (const item of list.children) seen.observe(item);
    },

    // The switches of layers are shown where there are images: a view without any is one paragraph.
    showLayers() {
      const images = VIEWS[this.state.view].layers && !$("view-body").querySelector(":scope > .empty:only-child");
      $("layers").hidden = !images && !$("sample").open;
    },

    notice(text) {
      $("notice").textContent = text;
      $("notice").hidden = !text;
    },
  };

  const seen = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        seen.unobserve(target);
        target.paint().catch((error) => app.notice(error.message));
      }
    },
    { rootMargin: "600px" },
  );

  // State and address ---------------------------------------------------------------------------------------------

  const NUMBERED = { class: () => app.summary.classes.map((each) => each.name), split: () => app.summary.splits, stage: () => app.summary.stages.map((each) => each.name), reason: () => app.table.reasons.texts };

  function written(state) {
    const fields = new URLSearchParams();
    for (const [key, value] of Object.entries(state)) {
      if (key === "variables") for (const [name, text] of Object.entries(value)) fields.append(`v.${name}`, text);
      else if (value !== START[key]) fields.append(key, key in NUMBERED ? NUMBERED[key]()[value] : value);
    }
    return fields.toString();
  }

  function read(hash) {
    const state = { ...START, variables: {} };
    for (const [key, text] of new URLSearchParams(hash.replace(/^#/, ""))) {
      if (key.startsWith("v.")) state.variables[key.slice(2)] = text;
      else if (key in NUMBERED) state[key] = NUMBERED[key]().indexOf(text);
      else if (!(key in START) || key === "variables") continue;
      else if (typeof START[key] === "number") state[key] = Number.isFinite(Number(text)) ? Number(text) : START[key];
      else state[key] = text;
    }
    if (!Object.hasOwn(VIEWS, state.view)) state.view = START.view;
    if (state.threshold) state.threshold = Math.min(0.95, Math.max(0.05, state.threshold));
    state.page = Math.max(1, Math.floor(state.page));
    return state;
  }

  function query() {
    const status = app.state.reason > 0 ? "rejected" : VIEWS[app.state.view].all ? "all" : app.state.status;
    return { ...app.state, status };
  }

  let last = "";
  let before = null;

  function apply() {
    app.state = read(location.hash);
    app.notice("");
    app.rows = app.table.filter(query());
    controls();
    const { sample: _, ...rest } = app.state;
    const shown = `${written(rest)} ${app.table.rows}`;
    if (shown !== last) {
      last = shown;
      const view = VIEWS[app.state.view];
      $("view-title").textContent = view.title;
      document.title = `${app.summary.name}: ${view.title}`;
      if (view !== before) $("tabs").querySelector("[aria-current]").scrollIntoView({ block: "nearest", inline: "center" });
      before = view;
      $("filters").hidden = Boolean(view.unfiltered);
      view.show($("view-body"));
      app.showLayers();
    }
    sample.show(app).catch((error) => app.notice(error.message));
  }

  // Controls ------------------------------------------------------------------------------------------------------

  function options(id, entries, chosen) {
    const select = $(id);
    const key = JSON.stringify(entries);
    if (select.dataset.key !== key) {
      replace(select, entries.map(([value, text]) => h("option", { value }, text)));
      select.dataset.key = key;
    }
    select.value = String(chosen);
  }

  const named = (names, any) => [["-1", any], ...names.map((name, at) => [String(at), name])];

  function controls() {
    const { summary, state } = app;
    options("f-status", [["accepted", "published"], ["rejected", "rejected"], ["all", "published and rejected"]], query().status);
    $("f-status").disabled = Boolean(VIEWS[state.view].all);
    options("f-class", named(summary.classes.map((each) => each.name), "any"), state.class);
    options("f-split", named(summary.splits, "any"), state.split);
    options("f-stage", named(summary.stages.map((each) => each.name), "any"), state.stage);
    const reasons = app.table.reasons.texts.map((reason, at) => [String(at), gallery.spaced(reason)]).slice(1);
    options("f-reason", [["-1", reasons.length ? "any reason" : "nothing is rejected"], ...reasons], state.reason);
    options("f-order", [["", "as published"], ["low", "lowest score first"], ["high", "highest score first"], ["many", "most objects first"]], state.order);
    options("f-attention", [["", "all classes"], ...summary.classes.map((each) => [each.name, each.name]), ...background().map((word) => [word, `${word} (background)`])], state.word);
    for (const [id, key] of [["f-words", "words"], ["f-low", "low"], ["f-high", "high"]]) {
      if (document.activeElement !== $(id)) $(id).value = state[key] === START[key] ? "" : state[key];
    }
    const layers = app.layers();
    for (const box of $("layers").querySelectorAll("input")) {
      box.checked = layers[box.value];
      if (box.value === "attention") box.closest("label").hidden = !summary.maps;
    }
    $("word-choice").hidden = !summary.maps || !layers.attention;
    chips();
    const total = app.table.rows;
    const loading = total < summary.shown ? `, ${count(summary.shown - total)} still loading` : "";
    $("found").textContent = `${count(app.rows.length)} of ${counted(total, "image", "images")}${loading}`;
    for (const link of $("tabs").children) {
      link.href = app.href({ view: link.dataset.view, page: 1 });
      if (link.dataset.view === state.view) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }

  function background() {
    return (app.summary.labeling.attention && app.summary.labeling.attention.background) || [];
  }

  function chips() {
    const items = Object.entries(app.state.variables).map(([name, text]) => {
      const { [name]: _, ...rest } = app.state.variables;
      const remove = h("button", { type: "button", class: "chip", "aria-label": `Remove ${name}: ${text}`, onclick: () => app.go({ variables: rest }) }, `${name}: ${text}`, h("span", { "aria-hidden": "true" }, " ✕"));
      return h("li", {}, remove);
    });
    $("chips").hidden = items.length === 0;
    replace($("chips"), items);
  }

  function wire() {
    const chosen = { "f-class": "class", "f-split": "split", "f-stage": "stage", "f-reason": "reason" };
    for (const [id, key] of Object.entries(chosen)) $(id).addEventListener("change", (event) => app.go({ [key]: Number(event.target.value) }));
    $("f-status").addEventListener("change", (event) => app.go({ status: event.target.value, reason: -1 }));
    $("f-order").addEventListener("change", (event) => app.go({ order: event.target.value }));
    $("f-attention").addEventListener("change", (event) => app.go({ word: event.target.value }, true));
    let waiting = 0;
    $("f-words").addEventListener("input", (event) => {
      clearTimeout(waiting);
      waiting = setTimeout(() => app.go({ words: event.target.value.trim() }, true), 120);
    });
    for (const [id, key] of [["f-low", "low"], ["f-high", "high"]]) {
      $(id).addEventListener("input", (event) => {
        const value = event.target.value === "" ? START[key] : Number(event.target.value);
        app.go({ [key]: Math.min(1, Math.max(0, value)) }, true);
      });
    }
    $("filter-form").addEventListener("submit", (event) => event.preventDefault());
    $("clear").addEventListener("click", () => {
      const { view, layers, word, threshold: at } = app.state;
      for (const id of ["f-words", "f-low", "f-high"]) $(id).value = "";
      app.go({ ...START, view, layers, word, threshold: at, variables: {} });
    });
    $("layers").addEventListener("change", (event) => {
      if (event.target.type !== "checkbox") return;
      const shown = [...$("layers").querySelectorAll("input")].filter((box) => box.checked).map((box) => box.value);
      app.go({ layers: shown.join(",") }, true);
    });
    addEventListener("popstate", apply);
    addEventListener("hashchange", apply);
    addEventListener("beforeprint", () => {
      for (const item of document.querySelectorAll(".tiles > li:not([data-painted])")) item.paint();
    });
    if (matchMedia("(max-width: 640px)").matches) $("filters").open = false;
    sample.start(app);
  }

  // Begin ---------------------------------------------------------------------------------------------------------

  function head() {
    const { summary } = app;
    const { counts } = summary;
    $("name").textContent = summary.name;
    $("about").textContent = `${summary.namespace} · revision ${summary.revision} · ${summary.drawn ? "synthetic images" : "labeled images"}`;
    const figures = [["images", counts.samples], ["objects", counts.instances], [summary.classes.length === 1 ? "class" : "classes", summary.classes.length], ["rejected", counts.rejected]];
    replace($("figures"), figures.map(([name, number]) => h("div", {}, h("dt", {}, name), h("dd", {}, count(number)))));
    replace($("tabs"), Object.entries(VIEWS).map(([name, view]) => h("a", { href: "#", "data-view": name }, view.title)));
    const all = counts.samples + counts.rejected;
    const part = summary.shown < all ? ` It has ${count(summary.shown)} of ${count(all)} samples, chosen by a hash.` : "";
    $("foot").textContent = `This page reads only the files of the dataset beside it.${part}`;
  }

  async function begin() {
    app.summary = await data.load("summary");
    head();
    wire();
    const { chunks } = app.summary;
    const coming = [];
    const load = (number) => data.load(`index/${data.padded(number)}`);
    for (let number = 0; number < Math.min(AT_ONCE, chunks); number += 1) coming.push(load(number));
    for (let number = 0; number < chunks; number += 1) {
      app.table.add(await coming[number]);
      coming[number] = null;
      if (number + AT_ONCE < chunks) coming.push(load(number + AT_ONCE));
      if (number === 0) apply();
    }
    app.ready = true;
    DiffuGenReport.app = app;
    apply();
    document.documentElement.dataset.state = "ready";
    performance.mark("ready");
  }

  begin().catch((error) => app.notice(`The report cannot be shown: ${error.message}. It needs the folder report/ beside this page.`));
})();
