"""One sample's objects in the store, and the order in which they are written.

The order is image, evidence, recipe, label. Each one means that those before it are complete. The recipe commits the
image together with the evidence that was collected while the image was drawn. So if a process dies between two writes,
the next try continues to the same result, and the store shows what a sample still needs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from diffugen_api import layout
from diffugen_api.plan import Sample
from diffugen_generator.failures import Damaged, Incomplete, Missing
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.labeling.findings import Findings
from diffugen_generator.samples import image_files, labels
from diffugen_generator.samples.documents import checked, discard
from diffugen_generator.samples.labels import Label
from diffugen_generator.samples.recipes import DrawnWith, ImageFile, read_image_file, recipe_of
from diffugen_generator.samples.shards import Need, ShardHeader
from diffugen_generator.store.protocol import Store

JSON = "application/json"

T = TypeVar("T")


class SampleStore:
    """Reads and writes the objects of one shard's samples."""

    def __init__(self, header: ShardHeader, store: Store) -> None:
        """Use `store` for the samples of `header`'s stage."""
        self._header = header
        self._store = store
        self._stage = header.stage
        self._classes = {each.name for each in header.classes}
        self.format = header.extension
        """The images' file format: png, jpeg or webp."""

    def need(self, sample: Sample, planned: Need) -> Need | None:
        """Return the first missing part of `sample`, not earlier than `planned`; None if the sample is complete."""
        if planned is Need.DRAW and not self._store.exists(layout.recipe(self._stage, sample.id)):
            return Need.DRAW
        if self._store.exists(layout.label(self._stage, self._header.label_id, sample.id)):
            return None
        if planned is Need.LABEL or all(self._store.exists(key) for key in self._evidence_keys(sample)):
            return Need.LABEL
        return Need.SEE

    def lacks_attention(self, sample: Sample) -> bool:
        """Return whether the diffusion model's evidence of a sample's image is still missing."""
        evidence_id = self._header.evidence_id
        return bool(evidence_id) and not self._store.exists(layout.evidence(self._stage, evidence_id, sample.id))

    def image_file(self, sample: Sample) -> ImageFile:
        """Return the stored file of a sample's image; raise `Incomplete` if it is gone, `Damaged` if it is damaged."""
        try:
            return read_image_file(self._store, self._stage, sample.id, self.format)
        except Missing as error:
            raise Incomplete(f"the image of sample {sample.id} is gone from the store; plan again") from error

    def image(self, sample: Sample) -> NDArray[np.uint8]:
        """Return a sample's stored image [height, width, 3]; raise `Damaged` if it cannot be read."""
        return decoded(self._header, self._stage, sample.id, self.image_file(sample).data)

    def findings(self, sample: Sample) -> Findings:
        """Return all stored evidence of a sample's image; raise `Damaged` if a file is damaged."""
        try:
            return Findings.read(self._header, partial(self._evidence, sample))
        except Missing as error:
            raise Incomplete(f"the evidence of sample {sample.id} is gone from the store; plan again") from error

    def found_before(self, sample: Sample) -> Findings:
        """Return the stored evidence of a sample's image; missing or damaged evidence is left out."""

        def read(evidence_id: str, loads: Callable[[bytes, str], T], /) -> T | None:
            try:
                return self._evidence(sample, evidence_id, loads)
            except Missing:
                return None
            except Damaged as damaged:
                discard(self._store, damaged)
                return None

        return Findings.read(self._header, read)

    def _evidence(self, sample: Sample, evidence_id: str, loads: Callable[[bytes, str], T], /) -> T:
        key = layout.evidence(self._stage, evidence_id, sample.id)
        data = self._store.read(key)
        evidence = checked(key, lambda: loads(data, sample.id))
        if isinstance(evidence, AttentionMaps) and (more := set(evidence.classes) - self._classes):
            raise Damaged(key, f"there is no class {min(more)[:40]!r} in spec.classes")
        return evidence

    def keep_drawn(self, sample: Sample, file: bytes, findings: Findings, drawn_with: DrawnWith) -> None:
        """Write a sample's image, its evidence, and then its recipe, which commits both."""
        self._store.write(self._image_key(sample), file, image_files.CONTENT_TYPES[self.format])
        self.keep_findings(sample, findings)
        recipe = recipe_of(sample, self._header, file, drawn_with)
        self._store.write(layout.recipe(self._stage, sample.id), recipe, JSON)

    def keep_findings(self, sample: Sample, findings: Findings) -> None:
        """Write the evidence of a sample's image."""
        for evidence_id, evidence in findings.files(self._header).items():
            self._store.write(layout.evidence(self._stage, evidence_id, sample.id), evidence.dumps(sample.id))

    def keep_label(self, label: Label) -> None:
        """Write a sample's label."""
        key = layout.label(self._stage, self._header.label_id, label.id)
        self._store.write(key, labels.dumps_label(label), JSON)

    def _image_key(self, sample: Sample) -> str:
        return layout.image(self._stage, sample.id, self.format)

    def _evidence_keys(self, sample: Sample) -> list[str]:
        ids = self._header.recipe.evidence_ids
        return [layout.evidence(self._stage, evidence_id, sample.id) for evidence_id in ids]


def decoded(header: ShardHeader, stage: str, sample_id: str, file: bytes) -> NDArray[np.uint8]:
    """Return the pixels [height, width, 3] of a stored image; raise `Damaged` if they do not fit the shard."""
    size = header.drawing["image"]
    key = layout.image(stage, sample_id, header.extension)
    keys = (layout.recipe(stage, sample_id), key)
    try:
        image = image_files.decode(file)
    except ValueError as error:
        raise Damaged(key, str(error), keys=keys) from error
    if image.shape[:2] != (size["height"], size["width"]):
        why = f"{image.shape[1]}x{image.shape[0]} pixels, and its recipe has {size['width']}x{size['height']}"
        raise Damaged(key, why, keys=keys)
    return image
