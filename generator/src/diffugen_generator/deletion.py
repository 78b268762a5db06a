"""The delete step: deletes the objects of one dataset in the store, and no others.

The step first verifies the owner: every plan and every published revision states the dataset it was made for, and
each must state this one. It deletes only keys of the layout, so a dataset whose root is below this one stays, and
so does any other file.

The order of deletion is safe if the step stops at any point, and for readers at the same time. First the pointer
`current.json`, so that no reader reaches half-deleted data. Then the files that mark data as complete
(`dataset.json`, `recipe.json`), so that a new dataset of this name takes nothing incomplete for complete. The plans
come last, because they state the owner. A second run of the step continues.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import islice

from diffugen_api import layout
from diffugen_api.contract import Outcome
from diffugen_api.orders import WorkOrder
from diffugen_generator.failures import BucketMissing, Damaged, Missing, NotTheirs
from diffugen_generator.samples.documents import Schema, read_document
from diffugen_generator.store.clearing import clear
from diffugen_generator.store.protocol import Store

LOG = logging.getLogger("diffugen")

_MANY = 1000
"""The most remaining objects that are counted."""

_PASSES: tuple[tuple[str, str], ...] = (
    (layout.CURRENT, ""),
    (layout.REVISIONS, "/dataset.json"),
    (layout.SAMPLES, "/recipe.json"),
    (layout.REVISIONS, ""),
    (layout.LABELS, ""),
    (layout.EVIDENCE, ""),
    (layout.SAMPLES, ""),
    (layout.EMBEDDINGS, "/card.json"),
    (layout.EMBEDDINGS, ""),
    (layout.CALIBRATIONS, ""),
    (layout.SHARD_REPORTS, ""),
    (layout.PLANS, ".jsonl.gz"),
    (layout.PLANS, ""),
)
"""Prefix and suffix of the keys that each pass deletes, in this order."""


def delete(
    order: WorkOrder,
    store: Store,
    *,
    on_progress: Callable[[int], None] = lambda count: None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Delete the dataset's objects; raise `NotTheirs` if they belong, or may belong, to another dataset.

    `on_progress` is called with the number of objects deleted so far.
    """
    try:
        store.check()
    except BucketMissing:
        return Outcome(ok=True, reason="Deleted", message="the bucket does not exist, so there is nothing to delete")
    _verify(order, store)
    count = 0
    for prefix, suffix in _PASSES:
        count += clear(store, _keys(store, prefix, suffix), stop=stop)
        on_progress(count)
    return Outcome(ok=True, reason="Deleted", message=_sentence(store, count))


def _keys(store: Store, prefix: str, suffix: str) -> Iterator[str]:
    """Yield the keys of the layout with this prefix and suffix."""
    return (key for key in store.list(prefix) if key.endswith(suffix) and layout.is_ours(key))


def _verify(order: WorkOrder, store: Store) -> None:
    """Verify that the objects are this dataset's, by the owner that plans and revisions state."""
    owners = set(_owners(store))
    if others := sorted(owners - {(order.namespace, order.name)}):
        raise NotTheirs(
            f"{store.uri} holds objects of {'/'.join(others[0])}, not of {order.namespace}/{order.name}; "
            "nothing is deleted: check the folder and delete by hand what is yours"
        )
    if owners:
        return
    made = (layout.SAMPLES, layout.LABELS, layout.EVIDENCE, layout.EMBEDDINGS, layout.CALIBRATIONS)
    folders = (layout.CURRENT, layout.REVISIONS, *made)
    if key := next((key for folder in folders for key in store.list(folder) if layout.is_ours(key)), None):
        raise NotTheirs(
            f"{store.uri} has {key}, but no plan and no dataset.json states the owner; nothing is deleted: "
            "check the folder and delete it by hand"
        )


class _Owned(Schema):
    namespace: str
    name: str


def _owners(store: Store) -> Iterator[tuple[str, str]]:
    """Yield the namespace and name that each plan and each published revision states."""
    keys = [layout.plan_summary(name) for name in store.folders(layout.PLANS)]
    keys += [layout.dataset_card(layout.revision_folder(name)) for name in store.folders(layout.REVISIONS)]
    for key in filter(layout.is_ours, keys):
        try:
            document = read_document(store, key, _Owned)
        except Missing:  # half written, or half deleted
            continue
        except Damaged as damaged:  # it states no owner
            LOG.warning("%s is damaged (%s)", damaged.key, damaged.why)
            continue
        yield document["namespace"], document["name"]


def _sentence(store: Store, count: int) -> str:
    left = sum(1 for _ in islice(store.list(""), _MANY))
    if not left:
        return f"{count:,} objects are deleted"
    foreign = f"{'more than ' if left == _MANY else ''}{left:,} object{'' if left == 1 else 's'}"
    return f"{count:,} objects are deleted; not DiffuGen's, so kept: {foreign}"
