"""The worker: it reads an order and ends with an exit code and a termination message in every case."""

import gzip
import hashlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffugen_api.contract import METRICS_PORT, Outcome, ShardCounts, Step
from diffugen_api.orders import WorkOrder
from diffugen_generator import worker
from diffugen_generator.failures import Interrupted, StoreRefused, StoreUnreachable
from diffugen_generator.store.folder import FolderStore
from diffugen_generator.store.opening import open_folder
from tests.generator.made import a_finished_store, a_model, an_order, do_by_hand


@pytest.fixture(autouse=True)
def _signals() -> Any:
    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.fixture
def order(tmp_path: Path) -> WorkOrder:
    return an_order(a_model(tmp_path / "model"), run={"samplesPerShard": 10})


@pytest.fixture
def pod(order: WorkOrder, tmp_path: Path) -> "Pod":
    return Pod(order, tmp_path)


class Pod:
    """The environment of a pod's process: files and variables."""

    def __init__(self, order: WorkOrder, folder: Path) -> None:
        self.order_file = folder / "order.json"
        self.order_file.write_text(order.dumps())
        self.termination_log = folder / "termination-log"
        self.folder = folder / "datasets"
        self.store = open_folder(self.folder, order.namespace, order.name)
        self.environ = {
            "DIFFUGEN_ORDER": str(self.order_file),
            "DIFFUGEN_TERMINATION_LOG": str(self.termination_log),
        }

    def run(self, step: Step, **more: Any) -> tuple[int, Outcome]:
        environ = {**self.environ, **more.pop("environ", {})}
        code = worker.work(step, folder=self.folder, environ=environ, **more)
        outcome = Outcome.loads(self.termination_log.read_text())
        assert outcome is not None
        return code, outcome

    def run_shard(self, index: int, **more: Any) -> tuple[int, Outcome]:
        environ = {"JOB_COMPLETION_INDEX": str(index), **more.pop("environ", {})}
        return self.run(Step.STAGE, stage="base", environ=environ, **more)


def by_hand(header: Any, rows: Any, store: FolderStore, *, on_progress: Any, stop: Any, **_: Any) -> ShardCounts:
    """Do a stage's work without a model."""
    for number, row in enumerate(rows, start=1):
        do_by_hand(header, row, store)
        on_progress(ShardCounts(total=len(rows), drawn=number, seen=number, labelled=number))
    return ShardCounts(total=len(rows), drawn=len(rows), seen=len(rows), labelled=len(rows))


def test_three_steps_make_a_dataset(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffugen_generator.stages.run_shard.run_shard", by_hand)

    code, planned = pod.run(Step.PLAN)
    assert (code, planned.ok, planned.reason) == (0, True, "Planned")
    assert planned.plan
    assert planned.plan[0].shards == 2

    for index in range(2):
        code, done = pod.run_shard(index)
        assert (code, done.ok, done.reason) == (0, True, "ShardDone")
    assert done.counts == ShardCounts(total=6, drawn=6, seen=6, labelled=6)

    code, published = pod.run(Step.PUBLISH)
    assert (code, published.ok, published.reason) == (0, True, "Published")
    assert published.published
    assert published.published.samples == 16


def test_the_built_in_model_draws_a_shard(tmp_path: Path) -> None:
    order = an_order(
        "builtin://shapes",
        prompts={"templates": ["a red ball on snow", "a blue star on sand"]},
        stages=[{"name": "base", "txt2img": {"model": "builtin://shapes", "steps": 2, "guidanceScale": 1}}],
        quality={"minInstances": 0},
    )
    pod = Pod(order, tmp_path)

    assert pod.run(Step.PLAN)[0] == 0
    code, done = pod.run_shard(0)
    assert (code, done.counts) == (0, ShardCounts(total=2, drawn=2, seen=2, labelled=2))
    code, done = pod.run_shard(0)
    assert (code, done.counts) == (0, ShardCounts(total=2, reused=2))
    assert pod.run(Step.PUBLISH)[0] == 0
    planned = pod.run(Step.PLAN)[1]
    assert planned.plan
    assert planned.plan[0].shards == 0


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (StoreUnreachable("away"), 75, "StoreUnreachable"),
        (StoreRefused("no"), 77, "StoreCredentialsRefused"),
        (Interrupted("stopped"), 75, "Interrupted"),
        (MemoryError(), 75, "OutOfMemory"),
        (OSError(28, "No space left on device"), 75, "NoSpaceLeft"),
        (ZeroDivisionError("division by zero"), 1, "Crashed"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), 75, "OutOfMemory"),
    ],
)
def test_every_failure_has_its_exit_code_and_reason(
    error: Exception, code: int, reason: str, pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> ShardCounts:
        raise error

    pod.run(Step.PLAN)
    monkeypatch.setattr("diffugen_generator.stages.run_shard.run_shard", fail)

    ended, outcome = pod.run_shard(0)

    assert (ended, outcome.ok, outcome.reason) == (code, False, reason)
    assert str(error) in outcome.message


def test_a_crash_leaves_its_traceback_in_the_log(
    pod: Pod, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> ShardCounts:
        raise ZeroDivisionError("division by zero")

    pod.run(Step.PLAN)
    monkeypatch.setattr("diffugen_generator.stages.run_shard.run_shard", fail)

    pod.run_shard(0)

    assert "Traceback" in capfd.readouterr().err
    assert "Traceback" not in pod.termination_log.read_text()


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"DIFFUGEN_ORDER_SHA256": "0" * 64}, "is not the one that the pod's Job names"),
        ({"DIFFUGEN_POD_NAMESPACE": "audio"}, "but DIFFUGEN_POD_NAMESPACE is audio"),
        ({"DIFFUGEN_DATASET": "mine"}, "but DIFFUGEN_DATASET is mine"),
    ],
)
def test_an_order_that_differs_from_the_pods_job_is_refused_and_deletes_nothing(
    environ: dict[str, str], words: str, pod: Pod
) -> None:
    pod.run(Step.PLAN)
    before = sorted(pod.store.list(""))

    code, outcome = pod.run(Step.DELETE, environ=environ)

    assert (code, outcome.reason) == (64, "OrderDiffers")
    assert words in outcome.message
    assert "Delete that, then request a retry" in outcome.message
    assert sorted(pod.store.list("")) == before


def test_the_order_that_the_pods_job_names_is_executed(pod: Pod, order: WorkOrder) -> None:
    digest = hashlib.sha256(pod.order_file.read_bytes()).hexdigest()
    named = {"DIFFUGEN_POD_NAMESPACE": order.namespace, "DIFFUGEN_DATASET": order.name}

    code, outcome = pod.run(Step.PLAN, environ={"DIFFUGEN_ORDER_SHA256": digest, **named})

    assert code == 0
    assert outcome.plan
    assert outcome.plan[0].shards == 2, "as run.samplesPerShard of the order says"
    code, outcome = pod.run(Step.PLAN, environ={"DIFFUGEN_SAMPLES_PER_SHARD": "4"})
    assert outcome.plan
    assert outcome.plan[0].shards == 4
    code, outcome = pod.run(Step.PLAN, environ={"DIFFUGEN_SAMPLES_PER_SHARD": "many"})
    assert (code, outcome.reason) == (64, "InvalidOrder")


def test_the_bounds_of_the_pods_environment_apply(pod: Pod) -> None:
    bounds = {"DIFFUGEN_MAX_PROMPT_BYTES": "3", "DIFFUGEN_REVISION_HISTORY_LIMIT": "2"}

    order = worker.read_order(pod.order_file, bounds)

    assert (order.spec.prompts.max_bytes, order.spec.revision_history_limit) == (3, 2)
    code, outcome = pod.run(Step.PLAN, environ=bounds)
    assert code == 64
    assert "spec.prompts.maxBytes" in outcome.message


@pytest.mark.parametrize(
    ("name", "text", "bounds"),
    [
        ("DIFFUGEN_SAMPLES_PER_SHARD", "0", "1 to 10000"),
        ("DIFFUGEN_MAX_PROMPT_BYTES", "x", "1 to 1048576"),
        ("DIFFUGEN_REVISION_HISTORY_LIMIT", "11", "1 to 10"),
    ],
)
def test_a_wrong_number_in_the_pods_environment_is_an_error_that_names_it(
    name: str, text: str, bounds: str, pod: Pod
) -> None:
    code, outcome = pod.run(Step.PLAN, environ={name: text})

    assert (code, outcome.reason) == (64, "InvalidOrder")
    assert outcome.message == f"{name} is {text!r}: set it to a whole number from {bounds}."


def test_a_compressed_order_is_the_same_order(pod: Pod, tmp_path: Path) -> None:
    text = pod.order_file.read_bytes()
    packed = tmp_path / "order.json.gz"
    packed.write_bytes(gzip.compress(text))
    environ = {"DIFFUGEN_ORDER": str(packed), "DIFFUGEN_ORDER_SHA256": hashlib.sha256(text).hexdigest()}

    assert pod.run(Step.PLAN, environ=environ)[0] == 0
    packed.write_bytes(b"{}")
    code, outcome = pod.run(Step.PLAN, environ=environ)
    assert (code, outcome.reason) == (64, "InvalidOrder")
    assert "is not compressed with gzip" in outcome.message
    packed.write_bytes(gzip.compress(text + b" "))
    assert pod.run(Step.PLAN, environ=environ)[1].reason == "OrderDiffers"


def test_a_bad_spec_gives_field_and_reason(tmp_path: Path) -> None:
    code, outcome = Pod(an_order("/models/none"), tmp_path).run(Step.PLAN)

    assert (code, outcome.reason) == (64, "UnknownModel")
    assert "spec.stages[0].txt2img.model" in outcome.message


def test_publishing_before_the_stages_are_done_is_an_error(pod: Pod) -> None:
    pod.run(Step.PLAN)

    code, outcome = pod.run(Step.PUBLISH)

    assert (code, outcome.reason) == (65, "Incomplete")
    assert "plan again" in outcome.message


def test_a_large_dataset_is_published_by_shards_and_joined(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffugen_generator.stages.run_shard.run_shard", by_hand)
    pod.run(Step.PLAN)
    for index in range(2):
        pod.run_shard(index)

    code, outcome = pod.run(Step.PUBLISH, division=(2, 8))
    assert (code, outcome.reason) == (65, "Incomplete")
    for index in range(2):
        code, outcome = pod.run(Step.PUBLISH_SHARD, division=(2, 8), environ={"JOB_COMPLETION_INDEX": str(index)})
        assert (code, outcome.reason, outcome.counts) == (0, "ShardDone", ShardCounts(total=8))
    assert not pod.store.exists("current.json")
    code, outcome = pod.run(Step.PUBLISH, division=(2, 8))

    assert (code, outcome.reason) == (0, "Published")
    assert outcome.published is not None
    assert outcome.published.samples + outcome.published.rejected == 16


@pytest.mark.parametrize(
    ("more", "reason", "words"),
    [
        ({}, "NoShards", "set both"),
        ({"division": (2, 8)}, "NoShard", "JOB_COMPLETION_INDEX is ''"),
        ({"division": (2, 8), "environ": {"JOB_COMPLETION_INDEX": "2"}}, "NoShard", "there are 2 shards"),
    ],
)
def test_a_shard_of_a_publication_needs_its_number(pod: Pod, more: dict[str, Any], reason: str, words: str) -> None:
    code, outcome = pod.run(Step.PUBLISH_SHARD, **more)

    assert (code, outcome.reason) == (64, reason)
    assert words in outcome.message


def test_a_shard_that_is_not_in_the_plan_fails_alone(pod: Pod) -> None:
    pod.run(Step.PLAN)

    code, outcome = pod.run_shard(7)

    assert (code, outcome.reason) == (65, "BadShard")
    assert "no shard 7 of stage 'base'" in outcome.message


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"stage": "other", "environ": {"JOB_COMPLETION_INDEX": "0"}}, "UnknownStage"),
        ({"stage": "base"}, "NoShard"),
        ({"stage": "base", "environ": {"JOB_COMPLETION_INDEX": "one"}}, "NoShard"),
    ],
)
def test_a_stage_needs_a_name_and_a_shard_number(pod: Pod, more: dict[str, Any], reason: str) -> None:
    code, outcome = pod.run(Step.STAGE, **more)

    assert (code, outcome.reason) == (64, reason)


@pytest.mark.parametrize(
    ("write", "reason", "words"),
    [
        (lambda path: path.unlink(), "NoOrder", "cannot be read"),
        (lambda path: path.write_text("{"), "InvalidOrder", "is not "),
        (lambda path: path.write_text('{"namespace": "a", "name": "b"}'), "InvalidOrder", "revision"),
    ],
)
def test_a_broken_order_is_an_error(pod: Pod, write: Callable[[Path], object], reason: str, words: str) -> None:
    write(pod.order_file)

    code, outcome = pod.run(Step.PLAN)

    assert (code, outcome.reason) == (64, reason)
    assert words in outcome.message


def test_without_a_termination_log_the_result_is_in_the_log(pod: Pod, capfd: pytest.CaptureFixture[str]) -> None:
    code = worker.work(Step.PLAN, folder=pod.folder, environ={"DIFFUGEN_ORDER": str(pod.order_file)})

    assert code == 0
    assert "Planned: 16 samples" in capfd.readouterr().err


def test_the_termination_message_fits(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> ShardCounts:
        raise StoreUnreachable("away " * 5000)

    pod.run(Step.PLAN)
    monkeypatch.setattr("diffugen_generator.stages.run_shard.run_shard", fail)

    pod.run_shard(0)

    assert pod.termination_log.stat().st_size <= 4096


def test_metrics_are_served_while_a_shard_is_worked_on(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(256)}.77"  # another test run may use a fixed port
    page = ""

    def look(header: Any, rows: Any, store: FolderStore, *, on_progress: Any, **_: Any) -> ShardCounts:
        nonlocal page
        on_progress(ShardCounts(total=10, drawn=3, seen=3, labelled=3, reused=2))
        with urllib.request.urlopen(f"http://{address}:{METRICS_PORT}/metrics", timeout=5) as answer:
            page = answer.read().decode()
        return ShardCounts(total=10)

    pod.run(Step.PLAN)
    monkeypatch.setattr("diffugen_generator.stages.run_shard.run_shard", look)

    assert pod.run_shard(0, environ={"DIFFUGEN_POD_IP": address})[0] == 0

    lines = page.splitlines()
    assert "diffugen_shard_samples 10.0" in lines
    assert "diffugen_shard_samples_done 5.0" in lines
    assert "diffugen_images_drawn_total 3.0" in lines
    assert 'diffugen_shard_samples_by_state{state="labelled"} 3.0' in lines


def test_a_shard_is_done_even_if_its_metrics_cannot_be_served(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    pod.run(Step.PLAN)
    monkeypatch.setattr("diffugen_generator.stages.run_shard.run_shard", by_hand)

    with socket.socket() as taken:
        taken.bind(("127.0.0.78", METRICS_PORT))
        taken.listen()
        assert pod.run_shard(0, environ={"DIFFUGEN_POD_IP": "127.0.0.78"})[0] == 0


def test_sigterm_ends_the_work_with_the_exit_code_to_try_again(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(*_: Any, stop: threading.Event, **__: Any) -> ShardCounts:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(5)
        raise Interrupted("stopped with 3 of 10 samples done")

    pod.run(Step.PLAN)
    monkeypatch.setattr("diffugen_generator.stages.run_shard.run_shard", wait)

    code, outcome = pod.run_shard(0)

    assert (code, outcome.reason) == (75, "Interrupted")


def test_a_publish_step_is_stopped_by_sigterm(order: WorkOrder, tmp_path: Path) -> None:
    pod = Pod(order, tmp_path)
    a_finished_store(order, pod.store.root)
    script = (
        "import os, signal, threading, time\n"
        "from diffugen_generator.publishing import publish as p\n"
        "real = p.labeled_samples\n"
        "def slow(*a):\n"
        "    for n, e in enumerate(real(*a)):\n"
        "        if n == 3: os.kill(os.getpid(), signal.SIGTERM)\n"
        "        yield e\n"
        "p.labeled_samples = slow\n"
        "from diffugen_generator.cli import main\n"
        "main()\n"
    )

    ended = subprocess.run(
        [sys.executable, "-c", script, "worker", "publish", "--store", str(pod.folder)],
        env={**os.environ, **pod.environ},
        check=False,
        capture_output=True,
        text=True,
    )

    assert ended.returncode == 75, ended.stderr
    assert json.loads(pod.termination_log.read_text())["reason"] == "Interrupted"
    assert not pod.store.exists("current.json")


def test_progress_is_logged_only_every_few_seconds() -> None:
    from diffugen_generator.telemetry.progress import ProgressLines

    now = 0.0
    said: list[str] = []
    lines = ProgressLines(said.append, "base, shard 3", clock=lambda: now)
    for done in range(101):
        now = done * 0.1
        lines.update(done, 100)

    assert said == [
        "base, shard 3: 50/100 (50 %), 10.0/s, 5 s left",
        "base, shard 3: 100/100 (100 %), 10.0/s",
    ]


def test_existing_samples_do_not_count_for_the_speed() -> None:
    from diffugen_generator.telemetry.progress import Meter, duration

    now = 0.0
    meter = Meter(clock=lambda: now)
    meter.update(90, 100)
    now = 10.0
    meter.update(91, 100)

    assert meter.line() == "91/100 (91 %), 10.0 s each, 1 min 30 s left"
    assert duration(7500) == "2 h 5 min"
    assert time.monotonic() > 0
