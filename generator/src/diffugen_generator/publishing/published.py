"""How readers find a published dataset: through `current.json` only."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from diffugen_api import layout
from diffugen_generator.samples.documents import Schema, read_document
from diffugen_generator.store.protocol import Store


class _Row(Schema):
    """The pointer's entry for one revision."""

    revision: str
    uri: str
    dataset: str
    publishedAt: str  # noqa: N815 - as in the file
    samples: int = Field(default=0, ge=0)


class _Pointer(_Row):
    manifestSHA256: str  # noqa: N815
    history: list[_Row] = Field(default=[], max_length=1000)


class _Dataset(Schema):
    revision: str
    samples: int
    rejected: int
    instances: int
    sha256: dict[str, str]
    acceptedByStage: dict[str, int]  # noqa: N815
    rejectedByStage: dict[str, int]  # noqa: N815
    rejectedByReason: dict[str, int]  # noqa: N815
    splits: dict[str, int]
    classes: dict[str, dict[str, int]]


def current_of(store: Store) -> dict[str, Any]:
    """Return the pointer; raise `Missing` where nothing is published, `Damaged` where it cannot be read."""
    return read_document(store, layout.CURRENT, _Pointer)


def dataset_of(store: Store) -> dict[str, Any]:
    """Return the `dataset.json` that the pointer names; raise `Missing` or `Damaged`."""
    return dataset_at(store, current_of(store)["dataset"])


def dataset_at(store: Store, key: str) -> dict[str, Any]:
    """Return a `dataset.json`; raise `Missing` or `Damaged`."""
    return read_document(store, key, _Dataset)
