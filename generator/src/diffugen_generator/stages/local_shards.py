"""Runs shards in this process, one after the other, and shows the progress."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from threading import Event

from diffugen_api.contract import ShardCounts
from diffugen_generator.samples.shards import ShardHeader, ShardRow
from diffugen_generator.stages.run_shard import run_shard
from diffugen_generator.stages.session_cache import SessionCache
from diffugen_generator.store.protocol import Store
from diffugen_generator.telemetry.reporter import Advance


def run_shards(
    shards: Iterable[tuple[ShardHeader, Sequence[ShardRow]]],
    store: Store,
    advance: Advance,
    *,
    on_done: Callable[[int], None],
    sessions: SessionCache,
    stop: Event,
) -> ShardCounts:
    """Complete the samples of the shards; return the counts of all shards together.

    `on_done` is called with the number of completed samples; `advance` shows that a model is being loaded. Raises as
    `run_shard` does.
    """
    whole = ShardCounts()
    for header, rows in shards:
        before = whole.done

        def on_progress(now: ShardCounts, before: int = before) -> None:
            on_done(before + now.done)

        whole += run_shard(
            header,
            rows,
            store,
            on_progress=on_progress,
            on_loading=lambda: advance.busy("loading the model"),
            stop=stop,
            sessions=sessions,
        )
    return whole
