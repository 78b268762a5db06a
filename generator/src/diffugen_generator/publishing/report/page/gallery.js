// The gallery: pages of tiles, and lists of example tiles.
"use strict";

DiffuGenReport.gallery = (() => {
  const { data, painting } = DiffuGenReport;
  const { h, count, replace } = DiffuGenReport.elements;
  const PAGE = 48;
  const LONGEST = 320;

  // A list item with the tile of a sample. Options: {decide: a function from a row to a verdict at another threshold,
  // in place of the published one; marked: whether to show what only one of two labelers found}.
  function tile(app, row, { decide, marked } = {}) {
    const canvas = h("canvas", { width: LONGEST, height: LONGEST, "aria-hidden": "true" });
    const badge = h("span", { class: "badge", hidden: true });
    const facts = h("span", { class: "tile-facts muted" });
    const text = app.table.promptOf(row);
    const button = h(
      "button",
      { type: "button", class: "tile", onclick: () => app.go({ sample: app.table.ids[row] }) },
      h("span", { class: "tile-image" }, canvas, badge),
      h("span", { class: "tile-text" }, text),
      facts,
    );
    const item = h("li", {}, button);
    item.row = row;
    item.paint = async () => {
      const detail = await data.sample(row);
      const verdict = decide && detail.thumbnail ? await decide(row) : null;
      const reason = verdict ? verdict.reason : detail.reason;
      badge.hidden = !reason && !verdict;
      badge.textContent = reason ? spaced(reason) : "Kept";
      badge.className = reason ? "badge bad" : "badge good";
      const objects = verdict ? verdict.objects : detail.instances;
      const split = app.summary.splits[app.table.split.values[row]];
      facts.textContent = [split, objectsText(objects)].filter(Boolean).join(" · ");
      await painting.paint(canvas, row, detail, app.layers(), app.summary, { longest: LONGEST, objects: verdict && verdict.objects, marked });
      item.dataset.painted = "yes";
      performance.mark("painted");
    };
    return item;
  }

  function objectsText(objects) {
    if (objects.length === 0) return "no object";
    const lowest = Math.min(...objects.map((each) => each.score));
    const score = lowest.toFixed(2);
    return objects.length === 1 ? `1\u00a0object, score\u00a0${score}` : `${objects.length}\u00a0objects, scores from\u00a0${score}`;
  }

  // TooFewInstances -> Too few instances
  function spaced(reason) {
    const text = reason.replace(/([a-z])([A-Z])/g, (_, one, two) => `${one} ${two.toLowerCase()}`);
    return text.charAt(0).toUpperCase() + text.slice(1);
  }

  function tiles(app, rows, label, options) {
    const list = h("ul", { class: "tiles", "aria-label": label, onkeydown: onKey });
    list.append(...Array.from(rows, (row) => tile(app, row, options)));
    app.painting(list);
    return list;
  }

  // Arrow keys move between the tiles, as they are laid out.
  function onKey(event) {
    const list = event.currentTarget;
    const items = [...list.children];
    const at = items.indexOf(event.target.closest("li"));
    if (at < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
    const top = items[0].offsetTop;
    const across = Math.max(1, items.findIndex((item) => item.offsetTop > top));
    const columns = across === 1 && items.every((item) => item.offsetTop === top) ? items.length : across;
    const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -at, End: items.length - 1 - at };
    const next = items[at + moves[event.key]];
    if (!(event.key in moves) || !next) return;
    event.preventDefault();
    next.querySelector("button").focus();
  }

  function pages(app, total) {
    const last = Math.max(1, Math.ceil(total / PAGE));
    const page = Math.min(Math.max(1, app.state.page), last);
    const go = (number) => (event) => {
      const at = [...nav.children].indexOf(event.currentTarget);
      app.go({ page: number });
      document.getElementById("view-title").scrollIntoView();
      const buttons = [...document.querySelectorAll(".pages > *")]; // new ones
      [buttons[at], ...buttons].find((each) => each.disabled === false)?.focus({ preventScroll: true });
    };
    const nav = h(
      "nav",
      { class: "pages", "aria-label": "Pages" },
      h("button", { type: "button", disabled: page === 1, onclick: go(1), "aria-label": "First page" }, "«"),
      h("button", { type: "button", disabled: page === 1, onclick: go(page - 1), "aria-label": "Previous page" }, "‹"),
      h("span", {}, `Page ${count(page)} of ${count(last)}`),
      h("button", { type: "button", disabled: page === last, onclick: go(page + 1), "aria-label": "Next page" }, "›"),
      h("button", { type: "button", disabled: page === last, onclick: go(last), "aria-label": "Last page" }, "»"),
    );
    return { page, nav: last > 1 ? nav : null };
  }

  function show(app, body, options) {
    const { rows } = app;
    if (rows.length === 0) {
      replace(body, h("p", { class: "empty" }, "No image passes these filters."));
      return;
    }
    const { page, nav } = pages(app, rows.length);
    replace(body, tiles(app, rows.slice((page - 1) * PAGE, page * PAGE), "Images", options), nav);
  }

  return { show, tile, tiles, spaced, PAGE };
})();
