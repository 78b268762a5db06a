// Small helpers that make elements. Text of the dataset is only ever set as text, never as HTML.
"use strict";

DiffuGenReport.elements = (() => {
  const SVG = "http://www.w3.org/2000/svg";

  function filled(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === false || value === null || value === undefined) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (name === "color") element.style.setProperty("--swatch", value);
      else if (name === "share") element.style.setProperty("--share", `${(100 * value).toFixed(2)}%`);
      else element.setAttribute(name, value === true ? "" : value);
    }
    for (const child of children.flat(Infinity)) {
      if (child !== null && child !== undefined && child !== false) element.append(child);
    }
    return element;
  }

  const h = (tag, attributes, ...children) => filled(document.createElement(tag), attributes, children);
  const svg = (tag, attributes, ...children) => filled(document.createElementNS(SVG, tag), attributes, children);

  const count = (number) => number.toLocaleString("en-US");
  const counted = (number, one, many) => `${count(number)} ${number === 1 ? one : many}`;
  // Without decimals, but with as many as it takes to tell "nearly none" from none, and "nearly all" from all.
  function percent(part, whole) {
    if (!whole) return "–";
    const value = (100 * part) / whole;
    const digits = [0, 1, 2].find((each) => (value.toFixed(each) > 0 || !part) && (value.toFixed(each) < 100 || part === whole));
    return `${value.toFixed(digits ?? 2)}\u00a0%`;
  }

  const swatch = (color) => h("span", { class: "swatch", color: DiffuGenReport.painting.css(color), "aria-hidden": "true" });

  function replace(parent, ...children) {
    parent.replaceChildren(...children.flat(Infinity).filter(Boolean));
  }

  // A table: head and rows are lists of cells, texts or elements. The first cell of a row is its header; numbers are
  // right-aligned.
  function table(caption, head, rows, attributes = {}) {
    const numeric = head.map((_, at) => rows.length > 0 && rows.every((row) => typeof row[at] === "number" || /^[\d.,–]+(\u00a0%)?$/.test(row[at])));
    const cell = (value) => (typeof value === "number" ? count(value) : value);
    const scroll = h(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
      h(
        "table",
        attributes,
        h("caption", { class: "hidden" }, caption),
        h("thead", {}, h("tr", {}, head.map((text, at) => h("th", { scope: "col", class: numeric[at] && "number" }, text)))),
        h(
          "tbody",
          {},
          rows.map((row) =>
            h("tr", {}, row.map((value, at) => (at === 0 ? h("th", { scope: "row" }, cell(value)) : h("td", { class: numeric[at] && "number" }, cell(value))))),
          ),
        ),
      ),
    );
    return scroll;
  }

  const unseen = (text) => h("span", { class: "hidden" }, text);
  const bar = (share, color) => h("span", { class: "bar-track", "aria-hidden": "true" }, h("span", { class: "bar-fill", share, color }));

  return { h, svg, count, counted, percent, swatch, replace, table, bar, unseen };
})();
