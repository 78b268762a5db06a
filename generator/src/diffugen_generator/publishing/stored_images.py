"""The image files of accepted samples: checked against their recipes, and read at most once by all formats.

Every accepted image is read before it is published, because a store can hold a file that is truncated or swapped. Of
rejected ones only the recipe is read, for the manifest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from diffugen_generator.bounded_pool import in_order
from diffugen_generator.failures import Damaged, Missing
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.samples.recipes import IMAGE_SHA256, read_image_file, read_recipe
from diffugen_generator.store.protocol import Store

_READERS = 16
"""Images that are read at the same time."""
_WINDOW = 64
"""Images that are read ahead of the formats; they are in memory as files, about 0.5 MB each at 512 px."""
_BATCH = 4
"""Images that a thread reads one after another."""


class StoredImage:
    """The image file of one sample. Read it from one thread."""

    def __init__(self, store: Store, sample: LabeledSample) -> None:
        """Read nothing yet."""
        self._store = store
        self.sample = sample
        self._data: bytes | None = None
        self.sha256 = ""
        """SHA-256 of the file in hex, once it is checked; of a rejected sample, as its recipe has it."""
        self.size = -1
        """Size of the file in bytes, once it is checked."""
        self.recipe: Mapping[str, Any] = {}
        """The sample's recipe; empty if it was not read."""
        self.fault: Missing | Damaged | None = None
        """Why the image cannot be published."""

    def check(self, *, keep: bool) -> None:
        """Read the file and compare it with its recipe; with `keep`, the bytes stay in memory for `read`."""
        sample = self.sample
        try:
            file = read_image_file(self._store, sample.stage, sample.sample.id, sample.extension)
        except (Missing, Damaged) as fault:
            self.fault = fault
            return
        self.sha256, self.size, self.recipe = file.sha256, len(file.data), file.recipe
        self._data = file.data if keep else None

    def take(self, data: bytes, *, keep: bool) -> None:
        """Use the bytes of a file that was checked before; with `keep` they stay in memory for `read`."""
        self.sha256, self.size = hashlib.sha256(data).hexdigest(), len(data)
        self._data = data if keep else None

    def describe(self) -> None:
        """Read only the recipe, for the manifest: of a rejected sample, whose image is not published."""
        with suppress(Missing, Damaged):  # nothing is made of it
            self.recipe = read_recipe(self._store, self.sample.stage, self.sample.sample.id)
            self.sha256 = str(self.recipe.get(IMAGE_SHA256, ""))

    def read(self) -> bytes:
        """Return the file's bytes; raise `Missing` where it is gone from the store."""
        if self._data is None:
            self._data = self._store.read(self.sample.image)
        return self._data

    def forget(self) -> None:
        """Drop the bytes; `read` reads them again."""
        self._data = None


def with_images(
    samples: Iterable[LabeledSample],
    store: Store,
    *,
    keep: bool,
    look: Callable[[LabeledSample, StoredImage], None] = lambda _sample, _image: None,
) -> Iterator[tuple[LabeledSample, StoredImage]]:
    """Yield each sample with its image, in order; those of accepted samples are checked, ahead of the caller.

    With `keep`, for formats that read images, their bytes stay in memory until the formats have processed them. `look`
    gets each sample and its image in the thread that has read it.
    """

    def opened(sample: LabeledSample) -> tuple[LabeledSample, StoredImage]:
        image = StoredImage(store, sample)
        if sample.verdict.accepted:
            image.check(keep=True)
        elif sample.image:
            image.describe()
        look(sample, image)
        if not keep:
            image.forget()
        return sample, image

    yield from in_order(opened, samples, workers=_READERS, window=_WINDOW, batch=_BATCH)
