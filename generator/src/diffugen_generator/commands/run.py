"""`diffugen run`: plan, stages and publish in this process, with a folder or a bucket as store. Needs no cluster.

The steps, their order and the store are those of the pods, so a laptop can finish the run of a cluster.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING

from diffugen_api import layout
from diffugen_api.contract import ShardCounts, StagePlan
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import Expansion
from diffugen_api.v1alpha1 import in_graph_order
from diffugen_generator.failures import Incomplete, Interrupted
from diffugen_generator.planning.plan import plan
from diffugen_generator.planning.prompt_rows import expansion_of
from diffugen_generator.publishing.format_registry import check_formats
from diffugen_generator.publishing.publish import publish
from diffugen_generator.publishing.published import dataset_of
from diffugen_generator.results import RunResult, StageResult
from diffugen_generator.samples.shards import read_shard
from diffugen_generator.stages.local_shards import run_shards
from diffugen_generator.stages.session_cache import SessionCache
from diffugen_generator.stages.train_stage import train_stage
from diffugen_generator.store.protocol import Store
from diffugen_generator.telemetry.reporter import Reporter

if TYPE_CHECKING:
    from diffugen_generator.inversion.training import TrainingState

LOG = logging.getLogger("diffugen")

_ROUNDS = 4
"""How often a run plans. Damage is found in the order source labels, source images, labels, images."""


def run(
    order: WorkOrder,
    store: Store,
    display: Reporter,
    *,
    expansion: Expansion | None = None,
    device: str | None,
    stop: Event,
    reproduce: bool = False,
) -> RunResult:
    """Draw, label and publish a dataset; raise `SpecError` or a `Failure`.

    `expansion` is that of the order's spec, if the caller has it already.

    With `reproduce`, images, evidence and labels have the same bytes each time, on the same machine. If objects in the
    store are found to be damaged or missing, the run plans again, because the new plan includes them.
    """
    began = time.monotonic()
    check_formats(order.spec.output.formats)
    expansion = expansion or expansion_of(order.spec)
    for _ in range(_ROUNDS - 1):
        try:
            return _run(order, store, display, expansion, device=device, stop=stop, began=began, reproduce=reproduce)
        except Incomplete as incomplete:
            LOG.warning("%s: planning again", incomplete)
    return _run(order, store, display, expansion, device=device, stop=stop, began=began, reproduce=reproduce)


def _run(
    order: WorkOrder,
    store: Store,
    display: Reporter,
    expansion: Expansion,
    *,
    device: str | None,
    stop: Event,
    began: float,
    reproduce: bool,
) -> RunResult:
    with display.task("planning", "samples") as advance:
        outcome = plan(order, store, expansion=expansion, run_samplers=True, on_progress=advance, stop=stop.is_set)
    plans = outcome.plan or []
    progress = _RunProgress(total=sum(found.total for found in plans), done=sum(found.reused for found in plans))
    sessions = SessionCache.of(order.spec, device=device, reproduce=reproduce)
    try:
        by_name = {found.name: found for found in plans}
        done = {
            stage.name: _draw(order, by_name[stage.name], store, display, progress, sessions=sessions, stop=stop)
            if stage.draws
            else _train(
                order, by_name[stage.name], store, display, progress, device=device, stop=stop, reproduce=reproduce
            )
            for stage in in_graph_order(order.spec.stages)
        }
        stages = [done[found.name] for found in plans]
        with display.task("publishing", "samples") as advance:
            published = publish(order, store, on_progress=advance, stop=stop.is_set).published
    except Interrupted:
        raise Interrupted(progress.sentence()) from None
    if published is None:
        raise AssertionError("a publish step that succeeds returns what it published")
    dataset = dataset_of(store)
    classes = {name: sum(splits.values()) for name, splits in dataset["classes"].items()}
    return RunResult(order, stages, published, time.monotonic() - began, classes, dataset["splits"])


@dataclass
class _RunProgress:
    """The progress of the run, over all stages."""

    total: int
    done: int

    def sentence(self) -> str:
        """Return the message of a stopped run."""
        return f"stopped with {self.done:,} of {self.total:,} images done; the same command continues from there"


def _draw(
    order: WorkOrder,
    found: StagePlan,
    store: Store,
    display: Reporter,
    progress: _RunProgress,
    *,
    sessions: SessionCache,
    stop: Event,
) -> StageResult:
    """Run the shards of one stage one after the other."""
    began = time.monotonic()
    if not found.shards:
        return StageResult(found, ShardCounts(), 0)
    missing = found.total - found.reused
    done_before = progress.done
    shards = (read_shard(store, layout.shard(order.revision, found.name, index)) for index in range(found.shards))
    with display.task(f"stage {found.name}", "images") as advance:
        advance(0, missing)

        def on_done(done: int) -> None:
            progress.done = done_before + done
            advance(done, missing)

        counts = run_shards(shards, store, advance, on_done=on_done, sessions=sessions, stop=stop)
    return StageResult(found, counts, time.monotonic() - began)


def _train(
    order: WorkOrder,
    found: StagePlan,
    store: Store,
    display: Reporter,
    progress: _RunProgress,
    *,
    device: str | None,
    stop: Event,
    reproduce: bool,
) -> StageResult:
    """Run a stage that trains a word."""
    began = time.monotonic()
    if not found.shards:
        return StageResult(found, ShardCounts(), 0)
    with display.task(f"stage {found.name}", "steps") as advance:

        def on_progress(state: TrainingState, steps: int) -> None:
            advance(state.step, steps)
            advance.busy(f"loss {state.evaluations[-1][1]:.4f}")

        counts = train_stage(
            order.spec,
            found.name,
            store,
            device=device,
            dtype=order.spec.run.dtype,
            reproduce=reproduce,
            on_progress=on_progress,
            on_loading=lambda: advance.busy("loading the model"),
            stop=stop,
        )
    progress.done += 1
    return StageResult(found, counts, time.monotonic() - began)
