"""run.queueName: Kueue decides when a queued Job runs and with how many pods; the operator does not change that."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from diffugen_operator.kube.api import ApiError
from diffugen_operator.observed.base import Trouble
from diffugen_operator.policy.actions import CreateJob, DeleteJob
from diffugen_operator.reconcile.kueue import Kueue, why_not_admitted
from tests.operator.clusters import PretendCluster
from tests.operator.lives import Life, a_life, a_plan

QUEUE = {"queueName": "gpus", "parallelism": 4}


def kueue_admits(life: Life, what: str, **spec: Any) -> Life:
    life.job(what)["spec"] |= {"suspend": False, **spec}
    return life


def kueue_evicts(life: Life, what: str, **spec: Any) -> Life:
    life.job(what)["spec"] |= {"suspend": True, **spec}
    life.pods.clear()
    return life


def planning() -> Life:
    return a_life(run=QUEUE).settle()


def drawing() -> Life:
    life = kueue_admits(planning(), "plan").plan_ends(a_plan("base", total=24, shards=8)).settle()
    return kueue_admits(life, "base").pod_runs("base", "0").settle()


def publishing() -> Life:
    life = drawing().job_completes("base").settle()
    return kueue_admits(life, "publish").settle()


@pytest.mark.parametrize(
    ("life", "what"),
    [
        pytest.param(planning(), "plan", id="planning"),
        pytest.param(kueue_evicts(drawing(), "base"), "base", id="drawing"),
        pytest.param(drawing().job_completes("base").settle(), "publish", id="publishing"),
    ],
)
def test_every_job_waits_in_the_queue(life: Life, what: str) -> None:
    job = life.job(what)
    life.settle()

    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert job["spec"]["suspend"] is True
    assert life.condition("Queued") == (
        "NotAdmitted",
        f"Job {job['metadata']['name']} waits in Kueue's queue gpus: it is not admitted yet, or was evicted.",
    )
    assert life.shown()[2] == "Queued"
    assert life.condition("Suspended") is None
    assert list(life.later(3600).turn().actions) == []


def test_kueues_messages_are_reported_where_they_can_be_read() -> None:
    life = planning()
    job = life.job("plan")["metadata"]["name"]
    life.queue_reasons[job] = Trouble(reason="Preempted", message="Preempted for a workload of higher priority")
    life.settle()

    said = f"Job {job} waits in Kueue's queue gpus: Preempted for a workload of higher priority."
    assert life.condition("Queued") == ("Preempted", said)
    assert life.shown()[2] == "Queued"


PENDING = {
    "type": "QuotaReserved",
    "status": "False",
    "reason": "Pending",
    "message": "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor a100",
}
EVICTED = {"type": "Evicted", "status": "True", "reason": "Preempted", "message": "Preempted by another."}
ADMITTED = {"type": "QuotaReserved", "status": "True", "reason": "QuotaReserved", "message": "Quota reserved"}


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        ([], None),
        ([PENDING], Trouble(reason="Pending", message=PENDING["message"])),
        ([PENDING, EVICTED], Trouble(reason="Preempted", message=f"Preempted by another. {PENDING['message']}")),
        ([PENDING, EVICTED | {"status": "False"}], Trouble(reason="Pending", message=PENDING["message"])),
        ([ADMITTED], None),
    ],
)
def test_a_workload_tells_why_it_was_evicted_and_what_it_waits_for(
    conditions: list[dict[str, str]], said: Trouble | None
) -> None:
    assert why_not_admitted({"status": {"conditions": conditions}}) == said


class Workloads(PretendCluster):
    """A Kueue that answers, forbids access, fails, or is not installed."""

    def __init__(self, refusal: Exception | None) -> None:
        super().__init__()
        self.refusal, self.asked = refusal, 0

    async def kueue_version(self) -> str:
        return "v1beta1"

    async def workloads_of(self, version: str, namespace: str, job_uid: str) -> list[dict[str, Any]]:
        self.asked += 1
        if self.refusal is not None:
            raise self.refusal
        return [{"status": {"conditions": [PENDING]}}] if job_uid == "known" else []


async def test_messages_are_read_by_the_jobs_uid() -> None:
    kueue = Kueue(Workloads(None), lambda: 0.0)

    assert await kueue.why_waiting("vision", "known") == Trouble(reason="Pending", message=PENDING["message"])
    assert await kueue.why_waiting("vision", "unknown") is None


@pytest.mark.parametrize("code", [403, 404])
async def test_without_kueue_or_the_right_to_read_it_nothing_is_reported_and_it_is_asked_again_later(code: int) -> None:
    seconds = 0.0
    workloads = Workloads(ApiError(code, "", "no"))
    kueue = Kueue(workloads, lambda: seconds)

    assert [await kueue.why_waiting("vision", "known") for _ in range(3)] == [None, None, None]
    assert workloads.asked == 1
    assert not kueue.readable

    seconds, workloads.refusal = 601.0, None
    assert await kueue.why_waiting("vision", "known") is not None


@pytest.mark.parametrize(
    "trouble",
    [
        ApiError(500, "InternalError", "conversion webhook failed"),
        ApiError(429, "TooManyRequests", "slow down"),
        aiohttp.ClientConnectionError("reset"),
        TimeoutError(),
    ],
    ids=["500", "429", "reset", "timeout"],
)
async def test_a_failing_kueue_gives_no_message_and_is_asked_again_soon(trouble: Exception) -> None:
    seconds = 0.0
    workloads = Workloads(trouble)
    kueue = Kueue(workloads, lambda: seconds)

    assert [await kueue.why_waiting("vision", "known") for _ in range(3)] == [None, None, None]
    assert workloads.asked == 1
    assert kueue.readable, "so that its Jobs are looked at again"

    seconds, workloads.refusal = 31.0, None
    assert await kueue.why_waiting("vision", "known") is not None


async def test_a_kueue_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffugen_operator.reconcile.kueue.ANSWER_SECONDS", 0.05)
    workloads = Workloads(None)

    async def workloads_of(version: str, namespace: str, job_uid: str) -> list[dict[str, Any]]:
        await asyncio.Event().wait()
        return []

    workloads.workloads_of = workloads_of  # type: ignore[method-assign]  # a Kueue that hangs
    async with asyncio.timeout(5):
        assert await Kueue(workloads, lambda: 0.0).why_waiting("vision", "known") is None


def test_the_dataset_is_queued_from_the_first_status() -> None:
    life = a_life(run=QUEUE)
    life.turn()
    decision = life.turn()

    assert any(isinstance(action, CreateJob) for action in decision.actions)
    before = life.raw["status"]
    life.turn()
    assert life.condition("Queued") is not None
    assert life.raw["status"] == before, "one write, not two"


def test_an_admitted_job_is_neither_resized_nor_touched() -> None:
    life = kueue_evicts(drawing(), "base").settle()
    kueue_admits(life, "base", parallelism=2).pod_runs("base", "0")

    decision = life.turn()

    assert list(decision.actions) == []
    assert life.condition("Queued") is None
    assert life.status.stages[0].state == "Running"
    assert list(life.edit(run={**QUEUE, "parallelism": 7}).turn().actions) == []


def test_work_done_before_an_eviction_stays_counted() -> None:
    life = drawing().job_status("base", completedIndexes="0-3").settle()
    assert life.shown() == ("base", "12/24", "Drawing")

    kueue_evicts(life, "base").settle()
    assert life.shown() == ("base", "12/24", "Queued")
    assert life.status.stages[0].state == "Queued"

    kueue_admits(life, "base").pod_runs("base", "5").settle()
    assert life.shown() == ("base", "12/24", "Drawing")


@pytest.mark.parametrize(
    ("life", "what"), [(planning(), "plan"), (drawing(), "base"), (publishing(), "publish")], ids=lambda v: str(v)[:8]
)
def test_a_run_suspended_by_its_user_holds_no_quota_and_returns_to_the_queue(life: Life, what: str) -> None:
    kueue_admits(life, what)
    name, attempt = life.job(what)["metadata"]["name"], life.status.attempt

    decision = life.edit(run=QUEUE, suspend=True).turn()

    assert decision.actions == [DeleteJob(name, f"uid-of-{name}", wait=True)]
    assert life.shown()[2] == "Suspended"
    life.stopped().settle()
    assert list(life.turn().actions) == []

    life.edit(suspend=False).settle()
    assert life.job(what)["spec"]["suspend"] is True
    assert life.condition("Queued") is not None
    assert life.status.attempt == attempt


def test_a_run_resumed_before_its_pods_have_ended_waits_for_them() -> None:
    life = drawing().edit(suspend=True).settle()

    life.edit(suspend=False).settle()
    assert life.shown()[2] == "FormerJobStopping"
    life.stopped().settle()

    assert life.job("base")["spec"]["suspend"] is True


def test_without_a_queue_a_job_starts_at_once() -> None:
    job = a_life().settle().job("plan")

    assert "suspend" not in job["spec"]
    assert "kueue.x-k8s.io/queue-name" not in job["metadata"]["labels"]


def test_a_job_that_kueue_itself_queued_is_left_to_kueue() -> None:
    life = a_life().settle()
    job = life.job("plan")
    job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "default"
    job["spec"]["suspend"] = True

    decision = life.turn()

    assert list(decision.actions) == []
    assert life.condition("Queued") is not None
