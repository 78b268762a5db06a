"""The source images of a shard's samples: whether a source is usable, and which part of it is replaced."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffugen_api import layout
from diffugen_api.plan import Sample, Source
from diffugen_generator.diffusion.masks import SourceImage, fading_mask
from diffugen_generator.failures import Incomplete, Missing
from diffugen_generator.quality.sources import Sources
from diffugen_generator.samples.labels import Instance
from diffugen_generator.samples.recipes import read_image_file
from diffugen_generator.samples.shards import ShardHeader
from diffugen_generator.stages.sample_store import decoded
from diffugen_generator.store.protocol import Store


class SourceImages:
    """Reads the sources of one shard's samples. Safe to share between threads."""

    def __init__(self, header: ShardHeader, store: Store) -> None:
        """Read the sources of `header`'s samples from `store`."""
        size = header.drawing["image"]
        self._header = header
        self._store = store
        self._size = (int(size["height"]), int(size["width"]))
        self._sources = Sources(store, header.origins, self._size, header.quality)

    def refusal(self, sample: Sample) -> str:
        """Return why nothing is drawn for `sample`, in CamelCase; empty if its source is usable."""
        return self._sources.refusal(sample.source) if sample.source is not None else ""

    def source(self, sample: Sample) -> SourceImage:
        """Return the source of `sample`; raise `Incomplete` if it is missing, `Damaged` if it is damaged."""
        if sample.source is None:
            raise ValueError(f"sample {sample.id} is drawn from text alone")
        image = self._image(sample.source)
        if not sample.source.replaced:
            return SourceImage(image)
        settings = self._header.drawing["settings"]
        found = [each for each in self._sources.label(sample.source).instances if _is(each, sample.source.replaced)]
        if settings["instances"] == "largest":
            found = [max(found, key=lambda each: each.area)]
        return SourceImage(
            image, fading_mask([each.segmentation.mask() for each in found], float(settings["dilation"]))
        )

    def _image(self, source: Source) -> NDArray[np.uint8]:
        stage = self._header.origins[0].stage
        try:
            file = read_image_file(self._store, stage, source.id, self._header.extension)
        except Missing as error:
            # without its recipe, the next plan draws it again
            self._store.delete([layout.recipe(stage, source.id)])
            raise Incomplete(
                f"the image of sample {source.id} of stage {stage!r}, from which another is to be drawn, is gone from "
                "the store; plan again"
            ) from error
        return decoded(self._header, stage, source.id, file.data)


def _is(instance: Instance, name: str) -> bool:
    return instance.class_name == name
