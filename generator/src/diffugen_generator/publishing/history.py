"""Which revisions stay: the present one and the last few before it.

The pointer is the ledger. It names, beside the present revision, those that were published before and are kept; it is
written first, and whatever it does not name is deleted after it. So readers never find a revision that is on its way
out, and whoever dies in between leaves the rest to the next publication. Within a revision, what says that it is
complete goes first. Pictures, evidence and labels are shared between revisions and are never deleted here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from diffugen_api import layout
from diffugen_api.contract import FormerRevision
from diffugen_generator.store.clearing import clear
from diffugen_generator.store.protocol import Store

_REMEMBERED = ("revision", "uri", "dataset", "publishedAt", "samples")
"""What is kept of a pointer when the next one takes its place."""

Entry = dict[str, Any]


def history_after(pointer: Mapping[str, Any], former: Mapping[str, Any], limit: int) -> list[Entry]:
    """Return what was published before `pointer`, the latest first, at most `limit` entries.

    Args:
        pointer: the pointer to be, with `dataset`.
        former: the pointer that was; empty where nothing was published.
        limit: how many stay.
    """
    before = [{key: former[key] for key in _REMEMBERED if key in former}] if former else []
    entries = [*before, *former.get("history", [])]
    return [entry for entry in entries if entry["dataset"] != pointer["dataset"]][:limit]


def kept_folders(pointer: Mapping[str, Any]) -> list[str]:
    """Return the names of the folders below `revisions/` that a pointer keeps, its own first."""
    return [_folder_of(entry) for entry in (pointer, *pointer.get("history", []))]


def former_revisions(pointer: Mapping[str, Any]) -> list[FormerRevision]:
    """Return a pointer's history as the operator is told it."""
    return [
        FormerRevision(folder=_folder_of(entry), published_at=entry["publishedAt"], samples=entry.get("samples", 0))
        for entry in pointer.get("history", [])
    ]


def prune(store: Store, kept: list[str], *, stop: Callable[[], bool] = lambda: False) -> int:
    """Delete all revisions, plans and shard reports but those of the `kept` folders; return how many objects went."""
    count = 0
    for name in store.folders(layout.REVISIONS):
        folder = layout.revision_folder(name)
        if name in kept or not layout.is_ours(layout.dataset_card(folder)):
            continue
        store.delete([layout.addresses(folder), layout.dataset_card(folder)])
        count += clear(store, store.list(folder), stop=stop)
    revisions = {name.partition("-")[0] for name in kept}
    for top in (layout.PLANS, layout.SHARD_REPORTS):
        for name in store.folders(top):
            if name not in revisions and layout.is_ours(f"{top}{name}/plan.json"):
                count += clear(store, store.list(f"{top}{name}/"), stop=stop)
    return count


def _folder_of(entry: Mapping[str, Any]) -> str:
    return str(entry["dataset"]).removeprefix(layout.REVISIONS).partition("/")[0]
