"""Writes `README.md` with the data: its content, its origin, and how to load it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from diffugen_api.orders import WorkOrder
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_generator.publishing.contact_sheet import PATH as CONTACT_SHEET
from diffugen_generator.publishing.models import Models
from diffugen_generator.publishing.report.report import PATH as REPORT
from diffugen_generator.publishing.tally import Tally

_ORIGIN = """\
These images are synthetic: a diffusion model drew them from the prompts below, and {labeler}
gave the labels. Both can be wrong; the score of each label is in the manifest."""

_GIVEN = """\
These images existed before: {labeler} gave the labels. They can be wrong. The manifest has the
score of each label, the file of each image, and the reason why a file was skipped."""

_USE = """\
To train and evaluate models that detect or segment {classes}, alone or together with photographs. Measure what it is
worth on real images: a score on the test split here says how well a model reads images of this kind.

{limits}"""
_LIMITS = """\
- The images have the biases of the models that drew them: what those rarely drew well, such as text, hands, counts and
  unusual views, is rare or wrong here.
- No person has checked the labels. Masks follow what a model saw, so thin parts and borders can be missed.
- Nothing here shows a real event, place or person. Do not present the images as photographs."""
_GIVEN_LIMITS = """\
- No person has checked the labels. Masks follow what a model saw, so thin parts and borders can be missed.
- What the images show, and whom, is as their owner took them: check the rights before you share the dataset."""

_LICENSE = """\
The licenses are those that the models' cards state. Models made the images: what these licenses say of outputs holds
for this dataset."""
_GIVEN_LICENSE = "The images keep their own licenses. The models above made the labels."

_MANIFEST = """\
### Manifest

`manifest.jsonl.gz` has a line for every sample, accepted or rejected: prompt, variables, seed, scores and masks,
the key and the SHA-256 of the image in the store, and all that is needed to draw it again. `dataset.json` has the
counts, the spec, and size and SHA-256 of every file. `croissant.json` describes the dataset for `mlcroissant`.

```python
import gzip, json

with gzip.open("manifest.jsonl.gz", "rt", encoding="utf-8") as lines:
    samples = [json.loads(line) for line in lines]
```"""


def card(
    order: WorkOrder,
    tally: Tally,
    models: Models,
    loading: Sequence[str],
    *,
    drawn: bool = True,
) -> str:
    """Return the dataset card.

    Args:
        order: the dataset.
        tally: the counts.
        models: the models that drew and labeled.
        loading: a section for each format that explains how to load it.
        drawn: whether a model drew the images; false for the user's own images.
    """
    spec, counts = order.spec, tally.row()
    splits = tally.release.splits
    lines = [
        f"# {order.name}",
        "",
        (
            f"{counts['samples']:,} {_kind(order) if drawn else 'images'}, with "
            f"{counts['instances']:,} labeled objects of {_count(len(spec.classes), 'class', 'classes')}. "
            f"Revision `{order.revision}`."
        ),
        "",
        f"![{order.name}]({CONTACT_SHEET})",
        "",
        f"[{REPORT}]({REPORT}) shows the dataset in a browser: images with labels, filters, distributions, rejections.",
        "",
        (_ORIGIN if drawn else _GIVEN).format(labeler=_labeler(spec)),
        "",
        "## Contents",
        "",
        *_table(["class", "id", *splits, "all"], _class_rows(tally, splits)),
        "",
        *_table(["split", "images"], [[split, f"{counts['splits'][split]:,}"] for split in splits]),
        "",
        *_missing(tally, splits),
        _rejections(tally),
        "",
        *(_prompts(spec) if drawn else _reading(spec)),
        "## Intended use and limits",
        "",
        _USE.format(classes=_listed(list(tally.release.class_ids)), limits=_LIMITS if drawn else _GIVEN_LIMITS),
        "",
        "## Models",
        "",
        *_table(
            ["stage", "kind", "model", "SHA-256", "license", "steps", "guidance"],
            _model_rows(order, models, drawn=drawn),
        ),
        "",
        "## License",
        "",
        _LICENSE if drawn else _GIVEN_LICENSE,
        "",
        "## Loading",
        "",
        *loading,
        _MANIFEST,
    ]
    return "\n".join(lines) + "\n"


_SHOWN = 20
"""How many templates, and values of a variable, the card shows."""


def _kind(order: WorkOrder) -> str:
    return f"synthetic images, {order.spec.image.width}x{order.spec.image.height}"


def _class_rows(tally: Tally, splits: Sequence[str]) -> list[list[str]]:
    return [
        [name, str(number), *(f"{tally.instances[name, split]:,}" for split in splits), f"{tally.of_class(name):,}"]
        for name, number in tally.release.class_ids.items()
    ]


def _missing(tally: Tally, splits: Sequence[str]) -> list[str]:
    """Return a warning where a class has objects, but none in some split."""
    missing = [
        f"{name} ({', '.join(split for split in splits if not tally.instances[name, split])})"
        for name in tally.release.class_ids
        if tally.of_class(name) and not all(tally.instances[name, split] for split in splits)
    ]
    if not missing:
        return []
    return [f"These classes have no object in some split: {'; '.join(missing)}. More images would fill them.", ""]


def _labeler(spec: LabeledDatasetSpec) -> str:
    by = []
    if spec.labeling.attention is not None:
        by.append("the cross-attention of a diffusion model")
    if spec.labeling.detector is not None:
        by.append("a detector")
    return " and ".join(by)


def _prompts(spec: LabeledDatasetSpec) -> list[str]:
    prompts = spec.prompts
    return [
        "## Prompts",
        "",
        *(f"- `{_code(template)}`" for template in prompts.templates[:_SHOWN]),
        *_more(len(prompts.templates)),
        *([f"- the rows of `{_code(prompts.file)}`"] if prompts.file is not None else []),
        "",
        *(f"- `{name}`: {_values(values)}" for name, values in prompts.variables.items()),
        *([f"- negative prompt: `{_code(prompts.negative)}`"] if prompts.negative else []),
        "",
    ]


def _reading(spec: LabeledDatasetSpec) -> list[str]:
    """Return the prompt for given images without a caption; a detector reads no prompt."""
    if spec.labeling.attention is None:
        return []
    (prompt,) = spec.prompts.templates
    return ["## Captions", "", f"Images without a caption were labeled with the prompt `{_code(prompt)}`.", ""]


def _model_rows(order: WorkOrder, models: Models, *, drawn: bool) -> list[list[str]]:
    """Return a row for each model that drew or labeled."""
    spec = order.spec
    rows = []
    for stage, (model, digest) in zip(spec.drawing_stages, models.stages, strict=True):
        named = _named(model, digest, models)
        if drawn:
            kind = f"{stage.kind} from {stage.source}" if stage.source else stage.kind
            task = stage.task
            rows.append([stage.name, kind, *named, str(task.steps), f"{task.guidance_scale:g}"])
        elif spec.labeling.attention is not None:
            rows.append([stage.name, "attention", *named, "", ""])
    rows += [["", kind, *_named(uri, digest, models), "", ""] for kind, uri, digest in models.beside(spec)]
    return rows


def _named(model: str, digest: str, models: Models) -> tuple[str, str, str]:
    return f"`{model}`", f"`{digest[:16]}…`", models.license_of(digest)


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:_SHOWN])
    if len(names) > _SHOWN:
        shown.append(f"{len(names) - _SHOWN} more classes")
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))


def _rejections(tally: Tally) -> str:
    rejected = tally.rejected.total()
    if not rejected:
        return "No image was rejected."
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(tally.reasons.items()))
    return f"{_count(rejected, 'image was', 'images were')} rejected ({reasons}); they are in the manifest only."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [_row(head), _row(["---"] * len(head)), *(_row(row) for row in rows)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _values(values: Sequence[str]) -> str:
    shown = ", ".join(json.dumps(value, ensure_ascii=False) for value in values[:_SHOWN])
    return f"{shown} and {len(values) - _SHOWN} more" if len(values) > _SHOWN else shown


def _more(count: int) -> list[str]:
    return [f"- … and {count - _SHOWN} more"] if count > _SHOWN else []


def _code(text: str) -> str:
    return text.replace("`", "'").replace("\n", " ")


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
