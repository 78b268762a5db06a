// Where the dataset comes from: its stages, models and settings, and the files beside this page.
"use strict";

DiffuGenReport.provenance = (() => {
  const { h, count, replace, table } = DiffuGenReport.elements;

  function show(app, body) {
    const { summary } = app;
    const files = [
      ["README.md", "the dataset card"],
      ["dataset.json", "counts, the spec, and the size and SHA-256 of the files"],
      ["manifest.jsonl.gz", "a line for every sample, accepted or rejected"],
      ["contact-sheet.png", "the dataset at a glance"],
    ];
    replace(
      body,
      h(
        "div",
        { class: "card" },
        h("h3", {}, "Stages"),
        table(
          "Stages",
          ["Stage", "kind", "model", "SHA-256", "settings"],
          summary.stages.map((stage) => [
            stage.name,
            stage.source ? `${stage.kind} from ${stage.source}` : stage.kind,
            h("code", {}, stage.model),
            h("code", { title: stage.modelDigest }, stage.modelDigest.slice(0, 16)),
            settings(stage, summary.drawn),
          ]),
        ),
      ),
      beside(summary),
      h("div", { class: "cards" }, facts(summary), h("div", { class: "card" }, h("h3", {}, "Files"), h("ul", {}, files.map(([name, what]) => h("li", {}, h("a", { href: name }, name), h("span", { class: "muted" }, `: ${what}`)))))),
      h("details", { class: "card" }, h("summary", {}, "The spec"), h("pre", { tabindex: "0", "aria-label": "The spec" }, JSON.stringify(summary.spec, null, 2))),
    );
  }

  function settings(stage, drawn) {
    if (!drawn) return "";
    const some = Object.entries(stage.settings).filter(([, value]) => value !== null).map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`);
    if (stage.negative) some.push(`negative “${stage.negative}”`);
    return some.join(", ");
  }

  function beside(summary) {
    const kinds = Object.entries(summary.sideModels);
    if (kinds.length === 0) return null;
    return h("div", { class: "card" }, h("h3", {}, "Models that label or score"), table("Models that label or score", ["Kind", "SHA-256"], kinds.map(([kind, digest]) => [kind, h("code", {}, digest)])));
  }

  function facts(summary) {
    const { attention, detector } = summary.labeling;
    const labelers = [attention && `attention (threshold ${attention.threshold})`, detector && `detector (${detector.model})`];
    const entries = [
      ["Dataset", `${summary.namespace}/${summary.name}`],
      ["Revision", summary.revision],
      ["Labels from", labelers.filter(Boolean).join(" and ")],
      ["Formats", summary.formats.join(", ")],
      ["Samples in this report", summary.shown < summary.counts.samples + summary.counts.rejected ? `${count(summary.shown)} of ${count(summary.counts.samples + summary.counts.rejected)}, chosen by a hash` : "all"],
      ["Written by", Object.entries(summary.versions).map(([name, version]) => `${name} ${version}`).join(", ")],
    ];
    return h("div", { class: "card" }, h("h3", {}, "Dataset"), h("dl", { class: "facts" }, entries.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))));
  }

  return { show };
})();
