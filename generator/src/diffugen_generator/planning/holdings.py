"""Finds what a store already has of one stage: images, evidence and labels, each by one listing.

A million samples need 500 MB: each id is a 128-bit integer with one bit for each kind of object. Evidence is listed
only if some image has no label. A listing of more than two thousand keys is split into the 256 folders of the ids, 32
in parallel, because a bucket lists a thousand keys per request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from diffugen_api import layout
from diffugen_api.plan import StageRecipe
from diffugen_generator.samples.shards import Need
from diffugen_generator.store.protocol import Store

_DRAWN, _LABELED = 1, 2
_SEEN = 4
"""The first kind of evidence; further kinds use the bits above."""
_COMPLETE = _DRAWN | _LABELED

_PEEK = 2000
"""Keys to list before the listing is split."""
_LISTINGS = 32
"""Parallel listings."""
_DIGITS = 32
"""Hex digits of a sample id."""


class Holdings:
    """The images, evidence and labels that a store has at a stage's addresses."""

    def __init__(self, store: Store | None, recipe: StageRecipe) -> None:
        """List images and labels; without a store there are none."""
        self._store = store
        self._recipe = recipe
        self._held: dict[int, int] = {}
        self._evidence_listed = False
        self._note(_DRAWN, layout.samples(recipe.stage), "/recipe.json")
        self._note(_LABELED, layout.labels_folder(recipe.stage, recipe.label_id), ".json")

    def need(self, sample_id: str) -> Need | None:
        """Return the first missing part of a sample; None if it is complete."""
        number = int(sample_id, 16)
        held = self._held.get(number, 0)
        if not held & _DRAWN:
            return Need.DRAW
        if held & _COMPLETE == _COMPLETE:
            return None
        if not self._evidence_listed:
            self._evidence_listed = True
            for kind, evidence_id in enumerate(self._recipe.evidence_ids):
                self._note(_SEEN << kind, layout.evidence_folder(self._recipe.stage, evidence_id), ".npz")
            held = self._held.get(number, 0)
        every = (_SEEN << len(self._recipe.evidence_ids)) - _SEEN
        return Need.LABEL if held & every == every else Need.SEE

    def _note(self, bit: int, folder: str, suffix: str) -> None:
        if self._store is None:
            return
        held = self._held
        for ids in ids_below(self._store.list, folder, suffix):
            for number in ids:
                held[number] = held.get(number, 0) | bit


def ids_below(listing: Callable[[str], Iterator[str]], folder: str, suffix: str) -> Iterator[list[int]]:
    """Yield, in batches, the ids of the objects `<folder>…<id><suffix>`; skip other objects."""
    keys = list(islice(listing(folder), _PEEK))
    yield list(_ids(keys, suffix))
    if len(keys) < _PEEK:
        return

    def ids_of(prefix: str) -> list[int]:
        return list(_ids(listing(prefix), suffix))

    with ThreadPoolExecutor(_LISTINGS, "list") as pool:
        yield from pool.map(ids_of, (f"{folder}{spread:02x}/" for spread in range(256)))


def _ids(keys: Iterable[str], suffix: str) -> Iterator[int]:
    skip = len(suffix)
    for key in keys:
        if key.endswith(suffix):
            digits = key[-_DIGITS - skip : -skip]
            try:
                yield int(digits, 16)
            except ValueError:
                continue  # not an object of the layout
