"""Models that look and do not draw, where nothing is to be drawn and the model that draws has said all it has to say.

A detector or CLIP alone needs neither a UNet nor the library that runs it: nothing of either is loaded here. A safety
checker is of that library, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from diffugen_api.plan import Sample
from diffugen_api.v1alpha1 import S3
from diffugen_generator.diffusion.devices import open_device
from diffugen_generator.labeling.decide.findings import Findings
from diffugen_generator.labeling.labeler import LabelInput
from diffugen_generator.samples.shards import ShardHeader
from diffugen_generator.stages.batch_sizes import CPU_BATCH, GPU_BATCH, AdaptiveBatch
from diffugen_generator.stages.side_labelers import Witnesses


def label_input(sample: Sample, image: NDArray[np.uint8], latents: object = None) -> LabelInput:
    """Return a sample's image [height, width, 3] as labelers are shown it."""
    return LabelInput(image, sample.text, sample.seed, latents, sample.words)


class Bystanders:
    """The models beside the one that draws, shown as many images at once as memory holds."""

    def __init__(self, witnesses: Witnesses) -> None:
        """Show images to `witnesses`."""
        self._witnesses = witnesses
        self._adaptive = AdaptiveBatch("show the other models")

    def open(self) -> None:
        """Load them; raise `SpecError` where one cannot be."""
        self._witnesses.open()

    def complete(self, seen: Sequence[LabelInput], found: Sequence[Findings]) -> list[Findings]:
        """Return `found` with what these models say of the images `seen`, as far as it lacks that."""
        return self._adaptive.each(self._complete, list(zip(seen, found, strict=True)))

    def _complete(self, pairs: Sequence[tuple[LabelInput, Findings]]) -> list[Findings]:
        seen, found = zip(*pairs, strict=True)
        return self._witnesses.complete(seen, found)


class LabelOnlySession:
    """Looks at images for the samples of one shard."""

    draws_to_label: Final = False
    """Nothing is drawn."""

    def __init__(self, header: ShardHeader, *, device: str | None, batch: int | None, s3: S3 | None = None) -> None:
        """Look on `device` (the GPU, if any) at `batch` images at once (by the device).

        `s3` is the store that `s3://` means in the names of detectors.
        """
        where = open_device(device)
        self.batch = batch or (GPU_BATCH if where.type == "cuda" else CPU_BATCH)
        """Samples to hand over at once."""
        self._bystanders = Bystanders(Witnesses(header, where, s3))

    def look(
        self,
        samples: Sequence[Sample],
        images: Sequence[NDArray[np.uint8]],
        before: Sequence[Findings] = (),
        sources: object = (),
    ) -> list[Findings]:
        """Return what these models see in the samples' images, with what was seen `before`."""
        seen = [label_input(each, image) for each, image in zip(samples, images, strict=True)]
        return self._bystanders.complete(seen, list(before) or [Findings()] * len(samples))
