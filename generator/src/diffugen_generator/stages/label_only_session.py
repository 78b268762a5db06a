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
from diffugen_generator.labeling.labeler import Seen
from diffugen_generator.samples.shards import ShardHeader
from diffugen_generator.stages.batch_sizes import CPU_BATCH, GPU_BATCH, Portions
from diffugen_generator.stages.side_labelers import Witnesses


def seen_of(sample: Sample, picture: NDArray[np.uint8], latents: object = None) -> Seen:
    """Return a sample's picture [height, width, 3] as labellers are shown it."""
    return Seen(picture, sample.text, sample.seed, latents, sample.words)


class Bystanders:
    """The models beside the one that draws, shown as many pictures at once as memory holds."""

    def __init__(self, witnesses: Witnesses) -> None:
        """Show pictures to `witnesses`."""
        self._witnesses = witnesses
        self._portions = Portions("show the other models")

    def open(self) -> None:
        """Load them; raise `SpecError` where one cannot be."""
        self._witnesses.open()

    def complete(self, seen: Sequence[Seen], found: Sequence[Findings]) -> list[Findings]:
        """Return `found` with what these models say of the pictures `seen`, as far as it lacks that."""
        return self._portions.each(self._complete, list(zip(seen, found, strict=True)))

    def _complete(self, pairs: Sequence[tuple[Seen, Findings]]) -> list[Findings]:
        seen, found = zip(*pairs, strict=True)
        return self._witnesses.complete(seen, found)


class Onlooker:
    """Looks at pictures for the samples of one shard."""

    draws_to_look: Final = False
    """Nothing is drawn."""

    def __init__(self, header: ShardHeader, *, device: str | None, batch: int | None, s3: S3 | None = None) -> None:
        """Look on `device` (the GPU, if any) at `batch` pictures at once (by the device).

        `s3` is the store that `s3://` means in the names of detectors.
        """
        where = open_device(device)
        self.batch = batch or (GPU_BATCH if where.type == "cuda" else CPU_BATCH)
        """Samples to hand over at once."""
        self._bystanders = Bystanders(Witnesses(header, where, s3))

    def look(
        self,
        samples: Sequence[Sample],
        pictures: Sequence[NDArray[np.uint8]],
        before: Sequence[Findings] = (),
        grounds: object = (),
    ) -> list[Findings]:
        """Return what these models see in the samples' pictures, with what was seen `before`."""
        seen = [seen_of(each, picture) for each, picture in zip(samples, pictures, strict=True)]
        return self._bystanders.complete(seen, list(before) or [Findings()] * len(samples))
