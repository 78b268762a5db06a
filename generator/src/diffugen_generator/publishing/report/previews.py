"""What the report shows of one image beside its labels: a thumbnail, and the attention maps from the stored evidence.

Both are made while the images are read for publishing, in the threads that read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from diffugen_api import layout
from diffugen_api.plan import StageRecipe
from diffugen_generator.failures import Missing
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.report.thumbnails import Thumbnail, thumbnail_of
from diffugen_generator.publishing.stored_images import StoredImage


@dataclass(frozen=True, slots=True)
class Preview:
    """What the report shows of one image."""

    thumbnail: Thumbnail = None
    maps: AttentionMaps | None = None
    """None if attention does not label, or if the evidence is gone or damaged."""


def preview_of(sample: LabeledSample, image: StoredImage, recipes: Mapping[str, StageRecipe], cell: int) -> Preview:
    """Read what the report shows of a sample; `cell` is the longest side of a thumbnail in pixels.

    `recipes` are the stages' by name. An image or an evidence file that cannot be read is left out: publishing itself
    reports what is missing from the dataset.
    """
    if not sample.image:
        return Preview()
    thumbnail: Thumbnail
    try:
        thumbnail = thumbnail_of(image.read(), cell)
    except (Missing, ValueError):
        thumbnail = None
    key = evidence_of(sample, recipes)
    return Preview(thumbnail, _maps(sample, image, key) if key else None)


def evidence_of(sample: LabeledSample, recipes: Mapping[str, StageRecipe]) -> str:
    """Return the key of a sample's stored evidence; empty if attention does not label it."""
    recipe = recipes.get(sample.stage)
    if recipe is None or not recipe.evidence_id:
        return ""
    return layout.evidence(sample.stage, recipe.evidence_id, sample.sample.id)


def _maps(sample: LabeledSample, image: StoredImage, key: str) -> AttentionMaps | None:
    try:
        return AttentionMaps.loads(image.read_beside(key), sample.sample.id)
    except (Missing, ValueError):
        return None
