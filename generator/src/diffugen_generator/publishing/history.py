"""Which revisions are kept: the current one and the last few before it.

The pointer, `current.json`, names the current revision and the former ones that are kept. It is written first; then
every revision that it does not name is deleted. So readers never find a revision that is being deleted. After a crash
in between, the next publication deletes the rest. Of each revision, `dataset.json` is deleted first, so that no reader
takes a half-deleted revision for a whole one. Images, evidence and labels are shared between revisions and are not
deleted here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from diffugen_api import layout
from diffugen_api.contract import FormerRevision
from diffugen_api.plan import SpecError
from diffugen_generator.failures import Damaged
from diffugen_generator.samples.documents import parse
from diffugen_generator.store.clearing import clear
from diffugen_generator.store.protocol import Store

_REMEMBERED = ("revision", "uri", "dataset", "publishedAt", "samples")
"""Fields of a pointer that the next one keeps in its history."""

_TIME_LENGTH = 32
"""The longest `publishedAt` that the resource's status can hold."""

RevisionRow = dict[str, Any]
"""The pointer's entry for one revision: the fields of `_REMEMBERED`."""


def history_after(pointer: Mapping[str, Any], former: Mapping[str, Any], limit: int) -> list[RevisionRow]:
    """Return the revisions published before `pointer`, the latest first, at most `limit` rows.

    Args:
        pointer: the new pointer, with `dataset`.
        former: the previous pointer; empty where nothing was published.
        limit: how many are kept.
    """
    before = [{key: former[key] for key in _REMEMBERED if key in former}] if former else []
    history = former.get("history")
    rows = [row for row in [*before, *(history if isinstance(history, list) else ())] if _is_readable(row)]
    return [row for row in rows if row["dataset"] != pointer["dataset"]][:limit]


def pointer_before(store: Store) -> tuple[dict[str, Any], str]:
    """Return the current pointer and its tag; empty where there is none.

    Raises `SpecError` if it is damaged, or if another file has its name. It is not overwritten: without its history,
    the revisions that it names would be deleted.
    """
    data, tag = store.read_tagged(layout.CURRENT)
    if data is None:
        return {}, tag
    why = ""
    try:
        pointer = parse(data)
    except ValueError as error:
        pointer, why = {}, f" ({error})"
    if not _is_readable(pointer):
        message = f"{store.uri}/{layout.CURRENT} is no pointer: restore or delete it, then request a retry{why}."
        raise SpecError("InvalidPointer", message)
    return pointer, tag


def kept_folders(pointer: Mapping[str, Any]) -> list[str]:
    """Return the names of the folders below `revisions/` that a pointer keeps, its own first."""
    return [_folder_of(row) for row in (pointer, *_history_of(pointer))]


def former_revisions(pointer: Mapping[str, Any]) -> list[FormerRevision]:
    """Return a pointer's history as the termination message has it."""
    return [
        FormerRevision(folder=_folder_of(row), published_at=row["publishedAt"], samples=row.get("samples", 0))
        for row in _history_of(pointer)
    ]


def _history_of(pointer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the rows of the earlier revisions; raise `Damaged` if one of them cannot be read: it may be kept."""
    rows = pointer.get("history", [])
    if not isinstance(rows, list) or not all(_is_readable(row) for row in rows):
        raise Damaged(layout.CURRENT, "its history cannot be read")
    return rows


def prune(store: Store, kept: Callable[[], list[str]], *, stop: Callable[[], bool] = lambda: False) -> int:
    """Delete revisions, plans and shard reports except those of the `kept` folders; return the number of objects.

    `kept` reads the pointer. It is called again before each folder, because another publisher may have moved it.
    """
    count = 0
    for name in store.folders(layout.REVISIONS):
        folder = layout.revision_folder(name)
        if not layout.is_ours(layout.dataset_card(folder)) or name in kept():
            continue
        store.delete([layout.addresses(folder), layout.dataset_card(folder)])
        count += clear(store, store.list(folder), stop=stop)
    for top in (layout.PLANS, layout.SHARD_REPORTS):
        for name in store.folders(top):
            if not layout.is_ours(f"{top}{name}/plan.json"):
                continue
            if name not in {each.partition("-")[0] for each in kept()}:
                count += clear(store, store.list(f"{top}{name}/"), stop=stop)
    return count


def _is_readable(row: Any) -> bool:
    """Whether a row of a pointer has the form that publish writes; anyone with write access could have edited it."""
    try:
        former = FormerRevision(folder=_folder_of(row), published_at=row["publishedAt"], samples=row.get("samples", 0))
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        return False
    return len(former.published_at) <= _TIME_LENGTH


def _folder_of(row: Mapping[str, Any]) -> str:
    return str(row["dataset"]).removeprefix(layout.REVISIONS).partition("/")[0]
