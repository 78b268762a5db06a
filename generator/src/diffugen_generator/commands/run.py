"""`diffugen run`: plan, stages and publish in this process, against a folder or a bucket. No cluster.

The same steps as in pods, in the same order, through the same store: what a cluster began, a laptop may finish.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from threading import Event

from diffugen_api import layout
from diffugen_api.contract import ShardCounts, StagePlan
from diffugen_api.orders import WorkOrder
from diffugen_api.v1alpha1 import in_graph_order
from diffugen_generator.commands.display import Display
from diffugen_generator.commands.results import RunResult, StageResult
from diffugen_generator.commands.shards import work_off
from diffugen_generator.failures import Interrupted
from diffugen_generator.planning.plan import plan
from diffugen_generator.publishing.publish import publish
from diffugen_generator.publishing.published import dataset_of
from diffugen_generator.samples.shards import read_shard
from diffugen_generator.stages.session_cache import SessionCache
from diffugen_generator.store.protocol import Store


def run(order: WorkOrder, store: Store, display: Display, *, device: str | None, stop: Event) -> RunResult:
    """Take a dataset from its spec to its publication; raise `SpecError` or a `Failure`."""
    began = time.monotonic()
    with display.task("planning", "samples") as advance:
        outcome = plan(order, store, on_progress=advance, stop=stop.is_set)
    plans = outcome.plan or []
    whole = _Whole(total=sum(found.total for found in plans), done=sum(found.reused for found in plans))
    sessions = SessionCache.of(order.spec, device=device)
    try:
        by_name = {found.name: found for found in plans}
        done = {
            stage.name: _draw(order, by_name[stage.name], store, display, whole, sessions=sessions, stop=stop)
            for stage in in_graph_order(order.spec.stages)
        }
        stages = [done[found.name] for found in plans]
        with display.task("publishing", "samples") as advance:
            published = publish(order, store, on_progress=advance, stop=stop.is_set).published
    except Interrupted:
        raise Interrupted(whole.sentence()) from None
    if published is None:
        raise AssertionError("a publish step that ends well has published")
    dataset = dataset_of(store)
    classes = {name: sum(splits.values()) for name, splits in dataset["classes"].items()}
    return RunResult(order, stages, published, time.monotonic() - began, classes, dataset["splits"])


@dataclass
class _Whole:
    """How far the run is, all stages together."""

    total: int
    done: int

    def sentence(self) -> str:
        """Return what to say where it is stopped."""
        return f"stopped with {self.done:,} of {self.total:,} pictures done; the same command goes on from there"


def _draw(
    order: WorkOrder,
    found: StagePlan,
    store: Store,
    display: Display,
    whole: _Whole,
    *,
    sessions: SessionCache,
    stop: Event,
) -> StageResult:
    """Do the shards of one stage, one after the other."""
    began = time.monotonic()
    if not found.shards:
        return StageResult(found, ShardCounts(), 0)
    missing = found.total - found.reused
    before_all = whole.done
    shards = (read_shard(store, layout.shard(order.revision, found.name, index)) for index in range(found.shards))
    with display.task(f"stage {found.name}", "pictures") as advance:
        advance(0, missing)

        def on_done(done: int) -> None:
            whole.done = before_all + done
            advance(done, missing)

        counts = work_off(shards, store, advance, on_done=on_done, sessions=sessions, stop=stop)
    return StageResult(found, counts, time.monotonic() - began)
