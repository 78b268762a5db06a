"""Shards worked off here, one after the other, as a person watches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from threading import Event

from diffugen_api.contract import ShardCounts
from diffugen_generator.commands.display import Advance
from diffugen_generator.samples.shards import ShardHeader, ShardRow
from diffugen_generator.stages.run_shard import run_shard
from diffugen_generator.stages.session_cache import SessionCache
from diffugen_generator.store.protocol import Store


def work_off(
    shards: Iterable[tuple[ShardHeader, Sequence[ShardRow]]],
    store: Store,
    advance: Advance,
    *,
    on_done: Callable[[int], None],
    sessions: SessionCache,
    stop: Event,
) -> ShardCounts:
    """Do what the shards' samples still need; return the counts of all shards together.

    `on_done` is told how many samples are done, `advance` what takes its time. Raises as `run_shard` does.
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
