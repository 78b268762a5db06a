"""Moves the pointer, `current.json`, to a complete revision, and deletes the revisions that it no longer names."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from diffugen_api import layout
from diffugen_api.contract import Published
from diffugen_generator.failures import Damaged, Incomplete, StoreFailure
from diffugen_generator.publishing.history import history_after, kept_folders, pointer_before, prune
from diffugen_generator.publishing.published import current_of
from diffugen_generator.samples.documents import indented, sealed
from diffugen_generator.store.protocol import JSON, Store

LOG = logging.getLogger("diffugen")


def point(store: Store, folder: str, published: Published, limit: int, clock: Callable[[], datetime]) -> dict[str, Any]:
    """Move the pointer and return it; if it already names this revision, it keeps its time.

    The write is conditional: if another publisher moved the pointer in between, its revision goes into the history.
    """
    pointer = {
        "revision": published.revision,
        "uri": published.uri,
        "manifestSHA256": published.manifest_sha256,
        "dataset": layout.dataset_card(folder),
        "samples": published.samples,
    }
    while True:
        current, tag = pointer_before(store)
        # another publisher deletes what the pointer does not name, before this one has moved it
        if not store.exists(layout.dataset_card(folder)):
            raise Incomplete(f"{folder} was deleted by another publisher of this dataset; plan again")
        there = {key: current.get(key) for key in pointer} == pointer
        now = clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        moved = {
            **pointer,
            "publishedAt": current["publishedAt"] if there else now,
            "history": history_after(pointer, current, limit),
        }
        if moved == current or store.replace(layout.CURRENT, indented(sealed(moved)), tag, JSON):
            return moved


def pruned(store: Store, stop: Callable[[], bool]) -> str:
    """Delete what the pointer no longer names; a failure is only reported, since the dataset is published."""

    def kept() -> list[str]:
        return kept_folders(current_of(store))

    try:
        prune(store, kept, stop=stop)
    except (StoreFailure, Damaged) as failure:
        LOG.warning("former revisions stay for now: %s", failure)
        return f"; former revisions could not be deleted: {failure}"
    return ""
