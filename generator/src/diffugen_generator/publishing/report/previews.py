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
from diffugen_generator.store.protocol import Store


@dataclass(frozen=True, slots=True)
class Preview:
    """What the report shows of one image."""

    thumbnail: Thumbnail = None
    maps: AttentionMaps | None = None
    """None if attention does not label, or if the evidence is gone or damaged."""


def preview_of(
    sample: LabeledSample, image: StoredImage, recipes: Mapping[str, StageRecipe], store: Store, cell: int
) -> Preview:
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
    recipe = recipes.get(sample.stage)
    return Preview(thumbnail, _maps(sample, recipe, store) if recipe is not None and recipe.evidence_id else None)


def _maps(sample: LabeledSample, recipe: StageRecipe, store: Store) -> AttentionMaps | None:
    try:
        data = store.read(layout.evidence(sample.stage, recipe.evidence_id, sample.sample.id))
        return AttentionMaps.loads(data, sample.sample.id)
    except (Missing, ValueError):
        return None
