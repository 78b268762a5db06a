"""The image files of accepted samples: checked against their recipes, and read at most once by all formats.

Every accepted image is read before it is published, because a store can hold a file that is truncated or swapped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from diffugen_generator.bounded_pool import in_order
from diffugen_generator.failures import Damaged, Missing
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.samples.recipes import read_image_file
from diffugen_generator.store.protocol import Store

_READERS = 16
"""Images that are read at the same time."""
_WINDOW = 32
"""Images that are read ahead of the formats; they are in memory as files, about 0.5 MB each at 512 px."""


class StoredImage:
    """The image file of one sample. Read it from one thread."""

    def __init__(self, store: Store, sample: LabeledSample) -> None:
        """Read nothing yet."""
        self._store = store
        self._sample = sample
        self._data: bytes | None = None
        self.sha256 = ""
        """SHA-256 of the file in hex, once it is checked."""
        self.fault: Missing | Damaged | None = None
        """Why the image cannot be published."""

    def check(self, *, keep: bool) -> None:
        """Read the file and compare it with its recipe; with `keep`, the bytes stay in memory for `read`."""
        sample = self._sample
        try:
            file = read_image_file(self._store, sample.stage, sample.sample.id, sample.extension)
        except (Missing, Damaged) as fault:
            self.fault = fault
            return
        self.sha256 = file.sha256
        self._data = file.data if keep else None

    def read(self) -> bytes:
        """Return the file's bytes; raise `Missing` where it is gone from the store."""
        if self._data is None:
            self._data = self._store.read(self._sample.image)
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
        look(sample, image)
        if not keep:
            image.forget()
        return sample, image

    yield from in_order(opened, samples, workers=_READERS, window=_WINDOW)
