"""The delete step: what a dataset has in the store, and nothing else, goes.

First it is made sure whose objects they are: every plan and every published revision says the name that it was made
for, and all of them have to say this dataset's. Only keys that the layout gives are deleted, so another dataset whose
root lies below this one, or a file that somebody put here, stays.

The order lets anybody die at any time, a reader or the step itself. The pointer goes first, so that nothing
half-deleted can be reached; then what says that something is complete (`dataset.json`, `recipe.json`), so that a
dataset that is created anew takes nothing for complete that is not; the plans, by which the objects' owner is told,
last. Done again, it goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from diffugen_api import layout
from diffugen_api.contract import Outcome
from diffugen_api.orders import WorkOrder
from diffugen_generator.failures import BucketMissing, Missing, NotTheirs
from diffugen_generator.store.clearing import clear
from diffugen_generator.store.protocol import Store

_MANY = 1000
"""Objects of others that are counted."""

_PASSES: tuple[tuple[str, str], ...] = (
    (layout.CURRENT, ""),
    (layout.REVISIONS, "/dataset.json"),
    (layout.SAMPLES, "/recipe.json"),
    (layout.REVISIONS, ""),
    (layout.LABELS, ""),
    (layout.EVIDENCE, ""),
    (layout.SAMPLES, ""),
    (layout.SHARD_REPORTS, ""),
    (layout.PLANS, ".jsonl.gz"),
    (layout.PLANS, ""),
)
"""What is deleted one after the other: keys that begin and end so."""


def delete(
    order: WorkOrder,
    store: Store,
    *,
    on_progress: Callable[[int], None] = lambda count: None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Delete the dataset's objects; raise `NotTheirs` where they are, or may be, another's.

    `on_progress` is called with how many objects are gone.
    """
    try:
        store.check()
    except BucketMissing:
        return Outcome(ok=True, reason="Deleted", message="there is no bucket, so nothing to delete")
    _verify(order, store)
    count = 0
    for beginning, ending in _PASSES:
        count += clear(store, _keys(store, beginning, ending), stop=stop)
        on_progress(count)
    return Outcome(ok=True, reason="Deleted", message=_sentence(store, count))


def _keys(store: Store, beginning: str, ending: str) -> Iterator[str]:
    """Yield our keys that begin and end so."""
    return (key for key in store.list(beginning) if key.endswith(ending) and layout.is_ours(key))


def _verify(order: WorkOrder, store: Store) -> None:
    """Make sure that the objects are this dataset's, by what they say themselves."""
    said = set(_owners(store))
    if strangers := sorted(said - {(order.namespace, order.name)}):
        raise NotTheirs(
            f"{store.uri} holds what was made for {'/'.join(strangers[0])}, not for {order.namespace}/{order.name}; "
            "nothing is deleted: look at it and delete by hand what is yours"
        )
    if said:
        return
    folders = (layout.CURRENT, layout.REVISIONS, layout.SAMPLES, layout.LABELS, layout.EVIDENCE)
    if key := next((key for folder in folders for key in store.list(folder) if layout.is_ours(key)), None):
        raise NotTheirs(
            f"{store.uri} has {key} and neither a plan nor a dataset.json that says whose it is; nothing is deleted: "
            "look at it and delete it by hand"
        )


def _owners(store: Store) -> Iterator[tuple[str, str]]:
    """Yield namespace and name of whom each plan and each published revision was made for."""
    keys = [layout.plan_summary(name) for name in store.folders(layout.PLANS)]
    keys += [layout.dataset_card(layout.revision_folder(name)) for name in store.folders(layout.REVISIONS)]
    for key in filter(layout.is_ours, keys):
        try:
            document: dict[str, Any] = json.loads(store.read(key))
        except Missing:  # left half-made, or half-deleted
            continue
        yield str(document.get("namespace")), str(document.get("name"))


def _sentence(store: Store, count: int) -> str:
    left = sum(1 for _ in islice(store.list(""), _MANY))
    others = f"; {'more than ' if left == _MANY else ''}{left:,} that DiffuGen did not put there stay" if left else ""
    return f"{count:,} objects are deleted{others}"
