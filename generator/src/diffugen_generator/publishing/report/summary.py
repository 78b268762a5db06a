"""What the report says of the dataset as a whole: counts, classes, stages, settings, and where its files are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from diffugen_api.orders import WorkOrder
from diffugen_api.plan import StageRecipe
from diffugen_api.v1alpha1 import normalized
from diffugen_generator.labeling.decide import from_attention, instances
from diffugen_generator.publishing.palette import color_of
from diffugen_generator.publishing.release import NOT_CONTENT
from diffugen_generator.publishing.tally import Tally
from diffugen_generator.quality import verdicts

_IMAGES = {"coco": "coco/{split}/{file}", "yolo": "yolo/images/{split}/{file}"}
"""Where formats have the images as files, seen from the revision's folder."""


def summary_of(
    order: WorkOrder,
    tally: Tally,
    stages: Sequence[StageRecipe],
    models: Mapping[str, str],
    side_models: Mapping[str, str],
    *,
    shown: int,
    chunks: int,
    cell: int,
    maps: bool,
    drawn: bool,
) -> dict[str, Any]:
    """Return the summary as JSON data.

    Args:
        order: the dataset.
        tally: the counts of all samples.
        stages: the recipes of the stages, in the spec's order.
        models: each stage's model as the spec names it.
        side_models: the digests of the models that label beside the diffusion model, by kind.
        shown: how many samples the report has.
        chunks: how many chunks its index has.
        cell: the side of a thumbnail's cell in a sprite, in pixels.
        maps: whether there are attention maps.
        drawn: whether a model drew the images.
    """
    spec = order.spec
    counts = tally.row()
    return {
        "name": order.name,
        "namespace": order.namespace,
        "revision": order.revision,
        "drawn": drawn,
        "counts": {name: counts[name] for name in ("samples", "rejected", "instances")},
        "shown": shown,
        "chunks": chunks,
        "cell": cell,
        "maps": maps,
        "classes": [
            {"name": name, "color": list(color_of(number))} for name, number in tally.release.class_ids.items()
        ],
        "splits": tally.release.splits,
        "stages": [_stage(order, recipe, models) for recipe in stages],
        "sideModels": dict(side_models),
        "labeling": spec.labeling.model_dump(mode="json", by_alias=True),
        "quality": spec.quality.model_dump(mode="json", by_alias=True),
        "rule": _rule(),
        "formats": list(spec.output.formats),
        "images": [_IMAGES[name] for name in spec.output.formats if name in _IMAGES],
        "spec": {field: value for field, value in normalized(spec).items() if field not in NOT_CONTENT},
        "versions": {"diffugen": version("diffugen")},
    }


def _stage(order: WorkOrder, recipe: StageRecipe, models: Mapping[str, str]) -> dict[str, Any]:
    source = recipe.source
    return {
        "name": recipe.stage,
        "kind": recipe.kind,
        **({"source": source.stage} if source is not None else {}),
        "model": models.get(recipe.stage, ""),
        "modelDigest": recipe.drawing["model"],
        "settings": recipe.drawing["settings"],
        "negative": recipe.drawing.get("negative", order.spec.prompts.negative),
        "embeddings": recipe.drawing.get("embeddings", {}),
        "replaces": recipe.replaces,
    }


def _rule() -> dict[str, Any]:
    """Return the constants of the rule by which attention becomes objects, so that the page uses the same ones."""
    return {
        "above": from_attention.ABOVE,
        "most": from_attention.MOST,
        "speck": instances.SPECK,
        "speckOfLargest": instances.SPECK_OF_LARGEST,
        "gap": instances.GAP,
        "tooFew": verdicts.TOO_FEW,
    }
