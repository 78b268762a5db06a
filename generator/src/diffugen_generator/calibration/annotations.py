"""Reads the annotated images of a calibration, and computes its content address. No torch.

`images` has the images, each with an optional caption beside it (`NAME.txt` beside `NAME.png`). `masks` has a folder
for each class, with a mask for each image that shows the class: the image's name, white where the object is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

import numpy as np
from numpy.typing import NDArray

from diffugen_api.addresses import address
from diffugen_api.errors import SpecError
from diffugen_api.v1alpha1 import S3, AttentionLabeling, ObjectClass
from diffugen_api.words import Vocabulary, mentions
from diffugen_generator.inversion.images import training_images
from diffugen_generator.inversion.request import read_captions, read_images
from diffugen_generator.samples.shards import LoraFile, TaughtWord

CALIBRATION_VERSION: Final = 1
"""Raised when the same images and settings lead to other choices."""
MOST_IMAGES: Final = 64
CALIBRATION: Final = "spec.labeling.attention.calibration"
"""The field that asks for a calibration."""


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """An image, its caption, and the mask of each annotated class."""

    name: str
    pixels: NDArray[np.uint8]
    """[height, width, 3] sRGB."""
    caption: str
    masks: Mapping[str, NDArray[np.bool_]]
    """[height, width] for each class, True where its objects are."""


@dataclass(frozen=True, slots=True)
class Annotations:
    """The files of a calibration, by name."""

    images: Mapping[str, bytes]
    masks: Mapping[str, bytes]
    captions: Mapping[str, str]
    """By the image's name without its suffix."""

    @classmethod
    def read(cls, images: str, masks: str, s3: S3 | None, *, field: str) -> Annotations:
        """Read the files of two folders; raise `SpecError` naming a field below `field`, or a `StoreFailure`."""
        return cls(
            read_images(images, s3, field=f"{field}.images"),
            read_images(masks, s3, field=f"{field}.masks"),
            read_captions(images, s3, field=f"{field}.images"),
        )

    def address(
        self,
        attention: AttentionLabeling,
        classes: Sequence[ObjectClass],
        model_digest: str,
        adapted_by: Mapping[str, str],
        size: tuple[int, int],
    ) -> str:
        """Return the content address of the calibration: a hash over everything that decides its result.

        `adapted_by` is what `adapted` returns; `size` is the images' (width, height).
        """
        return address(
            {
                "version": CALIBRATION_VERSION,
                "model": model_digest,
                "adaptedBy": dict(adapted_by),
                "images": _digests(self.images),
                "masks": _digests(self.masks),
                "captions": dict(self.captions),
                "size": list(size),
                "words": {each.name: list(each.words) for each in classes},
                "background": sorted(attention.background),
                "capture": attention.capture,
                "refine": attention.refine,
                "snap": attention.snap,
                **({"backgroundToken": True} if trains_token(attention) else {}),
            }
        )

    def opened(self, classes: Sequence[ObjectClass], size: tuple[int, int], *, field: str) -> list[AnnotatedImage]:
        """Return the images that have a mask, scaled to `size` (width, height), in the order of their names.

        Raises `SpecError` naming a field below `field`.
        """
        known = {each.name: each for each in classes}
        for name in self.masks:
            folder = str(PurePosixPath(name).parent)
            if folder not in known:
                raise SpecError(
                    "UnknownClass",
                    f"{field}.masks: {name} is in the folder {folder!r}, which is no class; put the masks of each "
                    f"class into a folder of its name: {', '.join(known)}.",
                )
        found: dict[str, AnnotatedImage] = {}
        stems = {str(PurePosixPath(name).with_suffix("")): name for name in self.images}
        for kind in known:
            own = {
                PurePosixPath(name).name: data
                for name, data in self.masks.items()
                if str(PurePosixPath(name).parent) == kind
            }
            files = {}
            for mask in own:
                stem = str(PurePosixPath(mask).with_suffix(""))
                if stem not in stems:
                    raise SpecError(
                        "NoImage", f"{field}.masks: {kind}/{mask} has no image of its name in {field}.images; add it."
                    )
                files[stems[stem]] = self.images[stems[stem]]
            for each in training_images(files, own, size, field=f"{field}.masks") if files else ():
                before = found.get(each.name)
                assert each.mask is not None  # noqa: S101 - `training_images` returns the mask that it was given
                masks = {**(before.masks if before else {}), kind: each.mask}
                found[each.name] = AnnotatedImage(each.name, each.pixels, "", masks)
        if not 1 <= len(found) <= MOST_IMAGES:
            raise SpecError(
                "NoImages", f"{field}: {len(found)} images have a mask; give 1 to {MOST_IMAGES}, a few for each class."
            )
        return [self._captioned(found[name], known, field) for name in sorted(found)]

    def _captioned(self, image: AnnotatedImage, known: Mapping[str, ObjectClass], field: str) -> AnnotatedImage:
        caption = self.captions.get(str(PurePosixPath(image.name).with_suffix("")), "").strip()
        caption = caption or "a photo of " + " and ".join(f"a {known[kind].words[0]}" for kind in image.masks)
        vocabulary = Vocabulary({name: each.words for name, each in known.items()})
        named = {each.name for each in mentions(caption, vocabulary)}
        for kind in image.masks:
            if kind not in named:
                raise SpecError(
                    "NotNamed",
                    f"{field}.images: the caption of {image.name}, {caption!r}, has no word of its class {kind!r}; "
                    f"write one of: {', '.join(known[kind].words)}.",
                )
        return AnnotatedImage(image.name, image.pixels, caption, image.masks)


def trains_token(attention: AttentionLabeling) -> bool:
    """Return whether a token for what is no object is asked for."""
    return attention.calibration is not None and attention.calibration.background_token


def _digests(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(files[name]).hexdigest() for name in sorted(files)}


def adapted(words: Sequence[TaughtWord], loras: Sequence[LoraFile]) -> dict[str, str]:
    """Return what changes the model: the digests of trained words by token, the weights of LoRAs by digest."""
    return {word.token.lower(): word.digest for word in words} | {
        f"lora {each.digest}": repr(float(each.weight)) for each in loras
    }


def annotations_of(attention: AttentionLabeling | None, s3: S3 | None) -> Annotations | None:
    """Read the files of a spec's calibration; None if it has none."""
    wanted = attention.calibration if attention is not None else None
    return None if wanted is None else Annotations.read(wanted.images, wanted.masks, s3, field=CALIBRATION)
