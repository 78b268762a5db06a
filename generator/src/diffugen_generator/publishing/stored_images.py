"""The image files of accepted samples: checked against their recipes, and read at most once by all formats.

Every accepted image is read before it is published, because a store can hold a file that is truncated or swapped. Of
rejected ones only the recipe is read, for the manifest.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, TypeAlias

from diffugen_generator.bounded_pool import in_order
from diffugen_generator.failures import Damaged, Missing
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.second_process import SecondProcess
from diffugen_generator.samples.recipes import IMAGE_SHA256, ImageFile, read_image_file, read_recipe
from diffugen_generator.store.folder import FolderStore
from diffugen_generator.store.protocol import Store

_READERS = 16
"""Images that are read at the same time."""
_WINDOW = 64
"""Images that are read ahead of the formats; they are in memory as files, about 0.5 MB each at 512 px."""
_BATCHES = 3
"""Windows of small images that a second process reads ahead."""
_BATCH = 4
"""Images that a thread reads one after another."""


_Found: TypeAlias = tuple[ImageFile, bytes | None]
"""An image file, and another object that is read with it."""


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
        self._beside: dict[str, bytes | None] = {}

    def check(self) -> None:
        """Read the file and compare it with its recipe; the bytes stay in memory for `read`."""
        sample = self.sample
        try:
            self.take_checked(read_image_file(self._store, sample.stage, sample.sample.id, sample.extension))
        except (Missing, Damaged) as fault:
            self.fault = fault

    def take_checked(self, file: ImageFile, beside: Mapping[str, bytes | None] | None = None) -> None:
        """Take a file that was read and compared with its recipe; `beside` are objects for `read_beside`, or None."""
        self.sha256, self.size, self.recipe, self._data = file.sha256, len(file.data), file.recipe, file.data
        self._beside.update(beside or {})

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

    def read_beside(self, key: str) -> bytes:
        """Return the bytes of another object, which may be read already; raise `Missing`."""
        data = self._beside[key] if key in self._beside else self._store.read(key)
        if data is None:
            raise Missing(key, self._store.uri)
        return data

    def forget(self) -> None:
        """Drop the bytes; `read` reads them again."""
        self._data = None
        self._beside = {}


def with_images(
    samples: Iterable[LabeledSample],
    store: Store,
    *,
    keep: bool,
    look: Callable[[LabeledSample, StoredImage], None] = lambda _sample, _image: None,
    beside: Callable[[LabeledSample], str] = lambda _sample: "",
    second: SecondProcess | None = None,
) -> Iterator[tuple[LabeledSample, StoredImage]]:
    """Yield each sample with its image, in order; those of accepted samples are checked, ahead of the caller.

    Args:
        samples: the samples.
        store: where their images are.
        keep: whether formats read images; their bytes stay in memory until the formats have processed them.
        look: gets each sample and its image in the thread that has read it.
        beside: returns the key of an object that `look` reads too, or nothing.
        second: reads the small images of a local folder; threads would take turns with the caller there.
    """

    def opened(sample: LabeledSample, found: _Found | None = None) -> tuple[LabeledSample, StoredImage]:
        image = StoredImage(store, sample)
        if found is not None:
            file, also = found
            image.take_checked(file, {beside(sample): also})
        elif sample.verdict.accepted:
            image.check()
        elif sample.image:
            image.describe()
        look(sample, image)
        if not keep:
            image.forget()
        return sample, image

    def opened_beside(
        process: SecondProcess, rest: Iterator[LabeledSample]
    ) -> Iterator[tuple[LabeledSample, StoredImage]]:
        ahead: deque[tuple[list[LabeledSample], Future[list[_Found | None]]]] = deque()

        def ask() -> None:
            if batch := list(islice(rest, _WINDOW)):
                wanted = [
                    (each.stage, each.sample.id, each.extension, beside(each)) if each.verdict.accepted else None
                    for each in batch
                ]
                ahead.append((batch, process.call(_found, store, wanted)))

        for _ in range(_BATCHES):
            ask()
        while ahead:
            batch, asked = ahead.popleft()
            yield from map(opened, batch, asked.result())
            ask()

    short = None
    if second is not None and type(store) is FolderStore:  # a subclass may have what cannot be sent to a process
        second.call(_found, store, [])  # it starts and imports its libraries before the first image is wanted
        short = partial(opened_beside, second)
    yield from in_order(opened, samples, workers=_READERS, window=_WINDOW, batch=_BATCH, short=short)


def _found(store: Store, wanted: Sequence[tuple[str, str, str, str] | None]) -> list[_Found | None]:
    """Return image files by stage, id and extension, each with the object of another key.

    None stands for an image that is not wanted, missing or damaged, and for an object that is missing or has no key.
    """

    def found(stage: str, sample_id: str, extension: str, key: str) -> _Found | None:
        try:
            file = read_image_file(store, stage, sample_id, extension)
        except (Missing, Damaged):
            return None
        with suppress(Missing):
            return file, store.read(key) if key else None
        return file, None

    return [found(*each) if each is not None else None for each in wanted]
