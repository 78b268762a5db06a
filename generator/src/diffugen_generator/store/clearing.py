"""Deletes many objects: a thousand per request, a few requests in parallel, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from diffugen_generator.bounded_pool import BoundedPool
from diffugen_generator.failures import Interrupted
from diffugen_generator.store.protocol import Store

_BATCH = 1000
"""The most keys that S3 deletes in one request."""
_REQUESTS = 4
"""Parallel requests."""


def clear(store: Store, keys: Iterable[str], *, stop: Callable[[], bool] = lambda: False) -> int:
    """Delete objects, in no particular order, and return their number.

    All objects are deleted when it returns. Raises `Interrupted` if `stop` returns true, and the `StoreFailure` of an
    object that could not be deleted.
    """
    count = 0
    with BoundedPool(_REQUESTS) as pool:
        pending = iter(keys)
        while batch := list(islice(pending, _BATCH)):
            if stop():
                raise Interrupted("deleting was stopped; the next try continues")
            pool.submit(store.delete, batch)
            count += len(batch)
        pool.finish()
    return count
