"""A session without the diffusion model: labels stored images only with detectors, CLIP and safety checkers.

A detector and CLIP need neither a UNet nor diffusers, so neither is loaded here. A safety checker needs diffusers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from diffugen_api.plan import Sample
from diffugen_api.v1alpha1 import S3
from diffugen_generator.diffusion.devices import open_device
from diffugen_generator.labeling.findings import Findings
from diffugen_generator.labeling.labeler import LabelInput
from diffugen_generator.samples.shards import ShardHeader
from diffugen_generator.stages.batch_sizes import CPU_BATCH, GPU_BATCH
from diffugen_generator.stages.sample_image import SampleImage
from diffugen_generator.stages.side_labelers import SideLabelers


def label_input(sample: Sample, image: SampleImage) -> LabelInput:
    """Return a sample's image as the input of labelers."""
    return LabelInput(image.image, sample.text, sample.seed, image.latents, sample.words)


class LabelOnlySession:
    """Labels the images of one shard's samples."""

    draws_to_label: Final = False
    """This session draws nothing."""

    def __init__(self, header: ShardHeader, *, device: str | None, batch: int | None, s3: S3 | None = None) -> None:
        """Label on `device` (default: the GPU, if any), `batch` images at once (default: by the device).

        `s3` is the store that `s3://` means in the names of detectors.
        """
        where = open_device(device)
        self.batch = batch or (GPU_BATCH if where.type == "cuda" else CPU_BATCH)
        """How many samples one call should get."""
        self._side_labelers = SideLabelers(header, where, s3)

    def look(
        self,
        samples: Sequence[Sample],
        images: Sequence[SampleImage],
        before: Sequence[Findings] = (),
        sources: object = (),
    ) -> list[Findings]:
        """Return the evidence of these models in the samples' images, together with the evidence `before`."""
        seen = [label_input(each, image) for each, image in zip(samples, images, strict=True)]
        return self._side_labelers.complete(seen, list(before) or [Findings()] * len(samples))
