"""Deleting many objects: a thousand by a request, a few requests beside the caller, and no more in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from diffugen_generator.bounded_pool import Lane
from diffugen_generator.failures import Interrupted
from diffugen_generator.store.protocol import Store

_BATCH = 1000
"""Keys that S3 deletes by one request, at most."""
_REQUESTS = 4
"""Requests at once."""


def clear(store: Store, keys: Iterable[str], *, stop: Callable[[], bool] = lambda: False) -> int:
    """Delete objects, in no particular order, and return how many there were.

    All of them are gone when it returns. Raises `Interrupted` where `stop` says so, and the `StoreFailure` that kept
    any of them.
    """
    count = 0
    with Lane(_REQUESTS) as lane:
        pending = iter(keys)
        while batch := list(islice(pending, _BATCH)):
            if stop():
                raise Interrupted("deleting was stopped; the next try goes on")
            lane.put(store.delete, batch)
            count += len(batch)
        lane.finish()
    return count
