"""A model at work: draws the pictures of samples, and looks at them. The one door to torch for the rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from diffugen_api.plan import Sample
from diffugen_generator.diffusion.components import best_device, load
from diffugen_generator.diffusion.drawing import Drawer, DrawingSettings, Order
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.labeling.attention import Looker, Seen
from diffugen_generator.labeling.evidence import Evidence
from diffugen_generator.labeling.words import Vocabulary
from diffugen_generator.models import ModelFolder
from diffugen_generator.shards import ShardHeader

GPU_BATCH = 16
"""Pictures at once on a GPU; 512 px in bf16 take some 1 GB each."""
CPU_BATCH = 4


class Studio:
    """One model, loaded for the samples of one shard."""

    def __init__(self, model: ModelFolder, header: ShardHeader, *, device: str | None, batch: int | None) -> None:
        """Load `model` to `device` (the GPU, if any), to work in batches of `batch` (by the device)."""
        where = best_device() if device is None else torch.device(device)
        on_gpu = where.type == "cuda"
        self.batch = batch or (GPU_BATCH if on_gpu else CPU_BATCH)
        """Samples to hand over at once."""
        # One shape for all batches suits a GPU; on a CPU padding is only work.
        self._padded_to = self.batch if on_gpu else None
        components = load(model, where)
        texts = TextStates(components)
        vocabulary = Vocabulary({c.name: c.words for c in header.classes}, tuple(header.attention.background))
        self._settings = settings_of(header)
        self._drawer = Drawer(components, texts)
        self._looker = Looker(components, texts, vocabulary, refine=header.attention.refine)

    def draw(self, samples: Sequence[Sample]) -> list[NDArray[np.uint8]]:
        """Return the samples' pictures, [height, width, 3] sRGB each."""
        orders = [Order(sample.prompt, sample.seed) for sample in samples]
        return self._drawer.draw(orders, self._settings, batch=self._padded_to)

    def look(self, samples: Sequence[Sample], pictures: Sequence[NDArray[np.uint8]]) -> list[Evidence]:
        """Return what the model sees in the samples' pictures."""
        seen = [Seen(picture, each.prompt, each.seed) for each, picture in zip(samples, pictures, strict=True)]
        return self._looker.look(seen, batch=self._padded_to)


def settings_of(header: ShardHeader) -> DrawingSettings:
    """Return the drawing settings that a shard's samples share."""
    image, settings = header.drawing["image"], header.drawing["settings"]
    return DrawingSettings(
        width=int(image["width"]),
        height=int(image["height"]),
        steps=int(settings["steps"]),
        guidance=float(settings["guidanceScale"]),
        negative=str(header.drawing["negative"]),
    )
