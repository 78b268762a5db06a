"""The image files of samples, read from the store at most once, whichever formats ask for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from diffugen_generator.bounded_pool import in_order
from diffugen_generator.failures import Missing
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.store.protocol import Store

_READERS = 16
"""Images that are read at the same time."""
_WINDOW = 32
"""Images that are read ahead of the formats; they lie in memory as files, about 0.5 MB each at 512 px."""


class StoredImage:
    """The image file of one sample. Read it from one thread."""

    def __init__(self, store: Store, sample: LabeledSample) -> None:
        """Read nothing yet."""
        self._store = store
        self._sample = sample
        self._data: bytes | None = None

    def read(self) -> bytes:
        """Return the file's bytes; raise `Missing` where it is gone from the store."""
        if self._data is None:
            self._data = self._store.read(self._sample.image)
        return self._data


def with_images(
    samples: Iterable[LabeledSample], store: Store, *, ahead: bool
) -> Iterator[tuple[LabeledSample, StoredImage]]:
    """Yield each sample with its image, in order; with `ahead`, images of accepted samples are read ahead."""

    def opened(sample: LabeledSample) -> tuple[LabeledSample, StoredImage]:
        image = StoredImage(store, sample)
        if ahead and sample.verdict.accepted:
            with suppress(Missing):  # the format that reads it raises it again, in the order of the samples
                image.read()
        return sample, image

    if ahead:
        yield from in_order(opened, samples, workers=_READERS, window=_WINDOW)
    else:
        yield from map(opened, samples)
