"""The worker: runs one step of a run in a pod.

    work order (a file) ──> step ──> exit code, termination message, log lines, metrics while it runs

The result is in the log, with details, and in the termination message, in one sentence; the operator copies that
sentence to the dataset's status. After SIGTERM the worker finishes and uploads the current batch, and its exit code
makes the Job try again for the rest.
"""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Annotated

from pydantic import BaseModel, TypeAdapter, ValidationError

from diffugen_api import layout
from diffugen_api.contract import (
    DEFAULT_TERMINATION_LOG,
    ENV_DATASET,
    ENV_DEVICE,
    ENV_DTYPE,
    ENV_MAX_PROMPT_BYTES,
    ENV_ORDER,
    ENV_ORDER_SHA256,
    ENV_POD_IP,
    ENV_POD_NAMESPACE,
    ENV_REVISION_HISTORY_LIMIT,
    ENV_SAMPLES_PER_SHARD,
    ENV_SHARD,
    ENV_TERMINATION_LOG,
    MOST_ORDER_BYTES,
    ORDER_KEY_COMPRESSED,
    Outcome,
    ShardCounts,
    Step,
)
from diffugen_api.faults import faults_of, first_of
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import SpecError
from diffugen_api.v1alpha1 import LabeledDatasetSpec, Prompts, Run
from diffugen_generator.bounded_json import json_of
from diffugen_generator.exit_codes import CRASHED, outcome_of
from diffugen_generator.failures import BadShard, Missing
from diffugen_generator.samples.shards import read_shard
from diffugen_generator.store.opening import open_bucket, open_folder
from diffugen_generator.store.protocol import Store
from diffugen_generator.telemetry.progress import ProgressLines

LOG = logging.getLogger("diffugen")


@dataclass(frozen=True, slots=True)
class Task:
    """The work of one worker."""

    step: Step
    order: WorkOrder
    store: Store
    stage: str
    """The stage's name, for a stage step."""
    environ: Mapping[str, str]
    stop: Event
    division: tuple[int, int] | None = None
    """For a publication in shards: their number, and the samples of each."""


def work(
    step: Step,
    *,
    order_file: Path | None = None,
    stage: str = "",
    folder: Path | None = None,
    division: tuple[int, int] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> int:
    """Run one step and return the exit code of the process.

    Args:
        step: the step to run.
        order_file: the work order; by default the file named by `$DIFFUGEN_ORDER`.
        stage: the name of the stage, for a stage step.
        folder: a local folder to use in place of the bucket of the order.
        division: for a publication in shards, their number and the samples of each.
        environ: the process's environment.
    """
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True
    )
    stop = _stop_on_signals()

    try:
        outcome, code = _run(step, order_file, stage, folder, division, environ, stop), 0
    except (Exception, KeyboardInterrupt) as error:
        outcome, code = outcome_of(error)
        if code == CRASHED:
            LOG.exception("crashed")
    LOG.log(logging.ERROR if code else logging.INFO, "%s: %s", outcome.reason, outcome.message)
    _write_termination_message(outcome, environ)
    return code


def _run(  # noqa: PLR0917 - the arguments of `work`
    step: Step,
    order_file: Path | None,
    stage: str,
    folder: Path | None,
    division: tuple[int, int] | None,
    environ: Mapping[str, str],
    stop: Event,
) -> Outcome:
    order = read_order(order_file, environ)
    store = _open(order, folder)
    LOG.info("%s of %s/%s, revision %s, in %s", step, order.namespace, order.name, order.revision, store.uri)
    return _STEPS[step](Task(step, order, store, stage, environ, stop, division))


def _plan(task: Task) -> Outcome:
    from diffugen_generator.planning.plan import plan  # noqa: PLC0415 - each step imports its own
    from diffugen_generator.publishing.format_registry import check_formats  # noqa: PLC0415

    check_formats(task.order.spec.output.formats)
    lines = ProgressLines(LOG.info, "planning")
    return plan(task.order, task.store, on_progress=lines.update, stop=task.stop.is_set)


def _stage(task: Task) -> Outcome:
    from diffugen_generator.stages.run_shard import run_shard  # noqa: PLC0415 - the models' libraries
    from diffugen_generator.stages.session_cache import SessionCache  # noqa: PLC0415
    from diffugen_generator.telemetry.metrics import ShardMetrics, done  # noqa: PLC0415 - a tenth of a second
    from diffugen_generator.telemetry.timings import Measures  # noqa: PLC0415

    stages = [stage.name for stage in task.order.spec.stages]
    if task.stage not in stages:
        raise SpecError("UnknownStage", f"--stage: there is no stage {task.stage!r}; there are {', '.join(stages)}.")
    if not next(stage for stage in task.order.spec.stages if stage.name == task.stage).draws:
        return _train(task)
    index = _shard_index(task.environ)
    try:
        header, rows = read_shard(task.store, layout.shard(task.order.revision, task.stage, index))
    except Missing as missing:
        raise BadShard(f"the plan has no shard {index} of stage {task.stage!r} ({missing}); plan again") from missing
    measures = Measures()
    metrics = ShardMetrics(measures)
    if address := task.environ.get(ENV_POD_IP):
        metrics.serve(address)
    lines = ProgressLines(LOG.info, f"{task.stage}, shard {index}")

    def on_progress(counts: ShardCounts) -> None:
        metrics.update(counts)
        lines.update(done(counts), counts.total)

    on_progress(ShardCounts(total=len(rows)))
    counts = run_shard(
        header,
        rows,
        task.store,
        on_progress=on_progress,
        on_loading=lambda: LOG.info("%s, shard %d: loading models", task.stage, index),
        stop=task.stop,
        sessions=SessionCache.of(task.order.spec, device=None, environ=task.environ),
        measures=measures,
    )
    message = f"{counts.total} samples: {counts.drawn} drawn, {counts.labelled} labeled, {counts.reused} reused"
    if counts.skipped:
        message += f", {counts.skipped} skipped because their source is rejected or has no label"
    return Outcome(ok=True, reason="ShardDone", message=message, counts=counts)


def _train(task: Task) -> Outcome:
    from diffugen_generator.inversion.training import TrainingState  # noqa: PLC0415 - torch
    from diffugen_generator.stages.train_stage import train_stage  # noqa: PLC0415 - the models' libraries
    from diffugen_generator.telemetry.metrics import TrainingMetrics  # noqa: PLC0415 - a tenth of a second

    metrics = TrainingMetrics()
    if address := task.environ.get(ENV_POD_IP):
        metrics.serve(address)
    lines = ProgressLines(LOG.info, f"training {task.stage}")

    def on_progress(state: TrainingState, steps: int) -> None:
        metrics.update(state.step, steps)
        lines.update(state.step, steps)

    counts = train_stage(
        task.order.spec,
        task.stage,
        task.store,
        device=task.environ.get(ENV_DEVICE) or None,
        dtype=task.environ.get(ENV_DTYPE) or task.order.spec.run.dtype,
        on_progress=on_progress,
        on_loading=lambda: LOG.info("%s: loading models", task.stage),
        stop=task.stop,
    )
    message = "the word was trained already" if counts.reused else "the word is trained"
    return Outcome(ok=True, reason="ShardDone", message=message, counts=counts)


def _publish(task: Task) -> Outcome:
    from diffugen_generator.publishing.parts import Division  # noqa: PLC0415 - each step imports its own
    from diffugen_generator.publishing.publish import publish  # noqa: PLC0415

    lines = ProgressLines(LOG.info, "publishing")
    division = Division(*task.division) if task.division is not None else None
    return publish(task.order, task.store, on_progress=lines.update, stop=task.stop.is_set, division=division)


def _publish_shard(task: Task) -> Outcome:
    from diffugen_generator.publishing.parts import Division  # noqa: PLC0415 - each step imports its own
    from diffugen_generator.publishing.publish_shard import publish_shard  # noqa: PLC0415

    if task.division is None:
        raise SpecError("NoShards", "--shards and --samples-per-shard are not set; set both.")
    index, division = _shard_index(task.environ), Division(*task.division)
    if index >= division.count:
        raise SpecError("NoShard", f"{ENV_SHARD} is {index}, but there are {division.count} shards, counted from 0.")
    lines = ProgressLines(LOG.info, f"publishing shard {index}")
    return publish_shard(task.order, task.store, index, division, on_progress=lines.update, stop=task.stop.is_set)


def _delete(task: Task) -> Outcome:
    from diffugen_generator.deletion import delete  # noqa: PLC0415 - each step imports its own

    def on_progress(count: int) -> None:
        LOG.info("deleting: %s objects", f"{count:,}")

    return delete(task.order, task.store, on_progress=on_progress, stop=task.stop.is_set)


_PLANTED = "somebody else may have written its ConfigMap. Delete that, then request a retry."

_STEPS: Mapping[Step, Callable[[Task], Outcome]] = {
    Step.PLAN: _plan,
    Step.STAGE: _stage,
    Step.PUBLISH: _publish,
    Step.PUBLISH_SHARD: _publish_shard,
    Step.DELETE: _delete,
}


def read_order(file: Path | None, environ: Mapping[str, str]) -> WorkOrder:
    """Return the work order of a file, else of the environment; raise `SpecError` if it cannot be read."""
    path = file or (Path(environ[ENV_ORDER]) if environ.get(ENV_ORDER) else None)
    if path is None:
        raise SpecError("NoOrder", f"no work order is given: use --order FILE, or set {ENV_ORDER}.")
    try:
        text = _unpacked(path.read_bytes()) if path.name == ORDER_KEY_COMPRESSED else path.read_bytes()
    except OSError as error:
        raise SpecError("NoOrder", f"the work order {path} cannot be read: {error.strerror}.") from error
    except zlib.error as error:
        raise SpecError("InvalidOrder", f"the work order {path} is not compressed with gzip: {error}.") from error
    if (wanted := environ.get(ENV_ORDER_SHA256)) and hashlib.sha256(text).hexdigest() != wanted:
        raise SpecError("OrderDiffers", f"the work order {path} is not the one that the pod's Job names: {_PLANTED}")
    try:
        data = json_of(text)
        order = WorkOrder.model_validate(data)
    except ValidationError as error:
        fault = first_of(faults_of(error, WorkOrder, data))
        raise SpecError("InvalidOrder", f"the work order {path} is not valid: {fault}") from error
    except ValueError as error:
        raise SpecError("InvalidOrder", f"the work order {path} is not JSON: {error}.") from error
    return _of_this_pod(order, path, environ)


def _unpacked(data: bytes) -> bytes:
    """Return the text of a compressed order, at most MOST_ORDER_BYTES of it."""
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(data, MOST_ORDER_BYTES)


def _of_this_pod(order: WorkOrder, path: Path, environ: Mapping[str, str]) -> WorkOrder:
    """Return the order with the settings of the pod's environment. Raises SpecError if it is for another dataset."""
    for name, found in ((ENV_POD_NAMESPACE, order.namespace), (ENV_DATASET, order.name)):
        if (wanted := environ.get(name)) and found != wanted:
            whose = f"{order.namespace}/{order.name}"
            raise SpecError("OrderDiffers", f"the work order {path} is for {whose}, but {name} is {wanted}: {_PLANTED}")
    spec = order.spec
    if (size := _number(environ, ENV_SAMPLES_PER_SHARD, Run, "samples_per_shard")) is not None:
        spec = spec.model_copy(update={"run": spec.run.model_copy(update={"samples_per_shard": size})})
    if (most := _number(environ, ENV_MAX_PROMPT_BYTES, Prompts, "max_bytes")) is not None:
        spec = spec.model_copy(update={"prompts": spec.prompts.model_copy(update={"max_bytes": most})})
    limit = _number(environ, ENV_REVISION_HISTORY_LIMIT, LabeledDatasetSpec, "revision_history_limit")
    if limit is not None:
        spec = spec.model_copy(update={"revision_history_limit": limit})
    return order.model_copy(update={"spec": spec})


def _number(environ: Mapping[str, str], name: str, model: type[BaseModel], field: str) -> int | None:
    """Return the whole number of a variable within the bounds of a field; None if unset. Raises SpecError."""
    if not (text := environ.get(name)):
        return None
    bounds = model.model_fields[field].metadata
    try:
        number: int = TypeAdapter(Annotated[int, *bounds]).validate_json(text)
    except ValidationError as error:
        least, most = (next(getattr(each, bound) for each in bounds if hasattr(each, bound)) for bound in ("ge", "le"))
        fix = f"set it to a whole number from {least} to {most}."
        raise SpecError("InvalidOrder", f"{name} is {text!r}: {fix}") from error
    return number


def _open(order: WorkOrder, folder: Path | None) -> Store:
    if folder is not None:
        return open_folder(folder, order.namespace, order.name)
    return open_bucket(order.spec.output.s3, order.namespace, order.name)


def _shard_index(environ: Mapping[str, str]) -> int:
    text = environ.get(ENV_SHARD, "")
    if not text.isdecimal():
        raise SpecError("NoShard", f"{ENV_SHARD} is {text!r}; set it to the number of a shard, from 0.")
    return int(text)


def _stop_on_signals() -> Event:
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _write_termination_message(outcome: Outcome, environ: Mapping[str, str]) -> None:
    path = Path(environ.get(ENV_TERMINATION_LOG) or DEFAULT_TERMINATION_LOG)
    try:
        if path.exists() or environ.get(ENV_TERMINATION_LOG):
            path.write_text(outcome.dumps())
    except OSError as error:
        LOG.warning("no termination message: %s cannot be written (%s)", path, error)
