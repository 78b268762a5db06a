"""`README.md` beside the data: what is in it, where it comes from, how to load it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from diffugen_api.orders import WorkOrder
from diffugen_api.recipes import CLIP, DETECTOR, MASKS, SAFETY
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_generator.publishing.contact_sheet import PATH as CONTACT_SHEET
from diffugen_generator.publishing.tally import Tally

_ORIGIN = """\
Nobody photographed these pictures: a diffusion model drew them from the prompts below, and {labeller}
gave the labels. Both can be wrong; the score of each label is in the manifest."""

_GIVEN = """\
These pictures were there already: {labeller} gave the labels. They can be wrong; the
score of each label is in the manifest, and so are the file that each picture was and the reason of every file that was
skipped."""

_LICENCE = "The pictures are products of the models above: what their licences say of outputs holds for this dataset."
_GIVEN_LICENCE = "The pictures keep the licences that they had. The labels are products of the models above."

_MANIFEST = """\
`manifest.jsonl.gz` has a line for every sample, accepted or rejected: prompt, variables, seed, scores and masks,
and the key of the picture in the store. `dataset.json` has the counts, the spec and the SHA-256 of every index
file."""

_COCO = """\
### COCO

Annotations with RLE masks in `coco/annotations/`, pictures in `coco/<split>/`. Category ids are the class ids
plus one, as many tools take category 0 for the background.

```python
from pycocotools.coco import COCO

coco = COCO("coco/annotations/instances_{split}.json")
masks = [coco.annToMask(a) for a in coco.loadAnns(coco.getAnnIds(imgIds=coco.getImgIds()[0]))]
```
"""

_YOLO = """\
### YOLO segmentation

Polygons in `yolo/labels/<split>/`, class ids from 0; a picture without objects has an empty file.

```sh
yolo segment train data=yolo/data.yaml model=yolo11n-seg.pt
```
"""


def card(
    order: WorkOrder,
    tally: Tally,
    models: Sequence[tuple[str, str]],
    judges: Mapping[str, str],
    *,
    drawn: bool = True,
) -> str:
    """Return the dataset card.

    `models` are each stage's model and its digest, `judges` the digests of those beside them, by kind; `drawn` says
    whether the pictures come from a model.
    """
    spec, counts = order.spec, tally.row()
    splits = tally.release.splits
    lines = [
        f"# {order.name}",
        "",
        (
            f"{counts['samples']:,} {_kind(order) if drawn else 'pictures'}, with "
            f"{counts['instances']:,} labelled objects of {_count(len(spec.classes), 'class', 'classes')}. "
            f"Revision `{order.revision}`."
        ),
        "",
        f"![{order.name}]({CONTACT_SHEET})",
        "",
        (_ORIGIN if drawn else _GIVEN).format(labeller=_labeller(spec)),
        "",
        "## Contents",
        "",
        *_table(["class", "id", *splits, "all"], _class_rows(tally, splits)),
        "",
        *_table(["split", "pictures"], [[split, f"{counts['splits'][split]:,}"] for split in splits]),
        "",
        _rejections(tally),
        "",
        *(_prompts(spec) if drawn else _reading(spec)),
        "## Models",
        "",
        *_table(
            ["stage", "kind", "model", "SHA-256", "steps", "guidance"], _model_rows(order, models, judges, drawn=drawn)
        ),
        "",
        "## Licence",
        "",
        _LICENCE if drawn else _GIVEN_LICENCE,
        "",
        "## Loading",
        "",
        *([_COCO.replace("{split}", splits[0])] if "coco" in spec.output.formats else []),
        *([_YOLO] if "yolo" in spec.output.formats else []),
        "### Manifest",
        "",
        _MANIFEST,
    ]
    return "\n".join(lines) + "\n"


_SHOWN = 20
"""Templates, and values of a variable, that the card shows."""


def _kind(order: WorkOrder) -> str:
    return f"synthetic pictures, {order.spec.image.width}x{order.spec.image.height}"


def _class_rows(tally: Tally, splits: Sequence[str]) -> list[list[str]]:
    return [
        [name, str(number), *(f"{tally.instances[name, split]:,}" for split in splits), f"{tally.of_class(name):,}"]
        for name, number in tally.release.class_ids.items()
    ]


def _labeller(spec: LabeledDatasetSpec) -> str:
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
        "",
        *(f"- `{name}`: {_values(values)}" for name, values in prompts.variables.items()),
        *([f"- negative prompt: `{_code(prompts.negative)}`"] if prompts.negative else []),
        "",
    ]


def _reading(spec: LabeledDatasetSpec) -> list[str]:
    """Return what given pictures were read with; a detector reads nothing."""
    if spec.labeling.attention is None:
        return []
    (prompt,) = spec.prompts.templates
    return ["## Captions", "", f"Pictures without a caption were read as `{_code(prompt)}`.", ""]


def _model_rows(
    order: WorkOrder, models: Sequence[tuple[str, str]], judges: Mapping[str, str], *, drawn: bool
) -> list[list[str]]:
    """Return a row for each model that drew, or looked."""
    spec = order.spec
    rows = []
    for stage, (model, digest) in zip(spec.stages, models, strict=True):
        if drawn:
            kind = f"{stage.kind} from {stage.source}" if stage.source else stage.kind
            task = stage.task
            rows.append([stage.name, kind, *_named(model, digest), str(task.steps), f"{task.guidance_scale:g}"])
        elif spec.labeling.attention is not None:
            rows.append([stage.name, "attention", *_named(model, digest), "", ""])
    beside = {
        CLIP: spec.quality.clip_score and spec.quality.clip_score.model,
        SAFETY: spec.quality.safety and spec.quality.safety.model,
    }
    if (detector := spec.labeling.detector) is not None:
        beside |= {DETECTOR: detector.model, MASKS: detector.mask_model}
    rows += [["", kind, *_named(uri, judges[kind]), "", ""] for kind, uri in beside.items() if uri and kind in judges]
    return rows


def _named(model: str, digest: str) -> tuple[str, str]:
    return f"`{model}`", f"`{digest[:16]}…`"


def _rejections(tally: Tally) -> str:
    rejected = tally.rejected.total()
    if not rejected:
        return "No picture was rejected."
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(tally.reasons.items()))
    return f"{_count(rejected, 'picture was', 'pictures were')} rejected ({reasons}); they are in the manifest only."


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
