"""run.queueName: Kueue decides when a queued Job runs and with how many pods; the operator does not change that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
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
RESERVED = {"type": "QuotaReserved", "status": "True", "reason": "QuotaReserved", "message": "Quota reserved"}
ADMITTED = {"type": "Admitted", "status": "True", "reason": "Admitted", "message": "The workload is admitted"}
CHECK = {"name": "provision", "state": "Pending", "message": "Waiting for nodes."}


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        ([], None),
        ([PENDING], Trouble(reason="Pending", message=PENDING["message"])),
        ([PENDING, EVICTED], Trouble(reason="Preempted", message=f"Preempted by another. {PENDING['message']}")),
        ([PENDING, EVICTED | {"status": "False"}], Trouble(reason="Pending", message=PENDING["message"])),
        ([RESERVED], None),
        ([RESERVED, ADMITTED], None),
    ],
)
def test_a_workload_tells_why_it_was_evicted_and_what_it_waits_for(
    conditions: list[dict[str, str]], said: Trouble | None
) -> None:
    assert why_not_admitted({"status": {"conditions": conditions}}) == said


@pytest.mark.parametrize(
    ("state", "conditions", "said"),
    [
        ("Pending", [RESERVED], "it has quota, and its admission check provision is Pending: Waiting for nodes"),
        ("Retry", [RESERVED], "it has quota, and its admission check provision is Retry: Waiting for nodes"),
        ("Pending", [RESERVED, ADMITTED], None),
        ("Ready", [RESERVED], None),
    ],
)
def test_an_admission_check_that_is_not_ready_is_reported(
    state: str, conditions: list[dict[str, str]], said: str | None
) -> None:
    why = why_not_admitted({"status": {"conditions": conditions, "admissionChecks": [CHECK | {"state": state}]}})

    assert why == (None if said is None else Trouble(reason=f"AdmissionCheck{state}", message=said))


def test_jobs_without_a_model_wait_in_a_queue_of_their_own() -> None:
    run = {**QUEUE, "cpuQueueName": "cpus", "minParallelism": 2, "workloadPriorityClass": "low"}
    life = a_life(run=run).settle()
    kueue_admits(life, "plan").plan_ends(a_plan("base", shards=8)).settle()
    kueue_admits(life, "base").job_completes("base").settle()

    labels = {what: life.job(what)["metadata"]["labels"] for what in ("plan", "base", "publish")}
    queues = {what: each["kueue.x-k8s.io/queue-name"] for what, each in labels.items()}
    assert queues == {"plan": "cpus", "base": "gpus", "publish": "cpus"}
    assert {each["kueue.x-k8s.io/priority-class"] for each in labels.values()} == {"low"}
    name = life.job("publish")["metadata"]["name"]
    assert (life.condition("Queued") or ("", ""))[1].startswith(f"Job {name} waits in Kueue's queue cpus")
    fewest = "kueue.x-k8s.io/job-min-parallelism"
    assert life.job("base")["metadata"]["annotations"][fewest] == "2"
    assert fewest not in life.job("plan")["metadata"]["annotations"]


@pytest.mark.parametrize("fewest", [4, 9])
def test_kueue_refuses_a_minimum_that_is_not_below_the_parallelism_so_there_is_none(fewest: int) -> None:
    life = a_life(run={**QUEUE, "minParallelism": fewest}).settle()
    kueue_admits(life, "plan").plan_ends(a_plan("base", shards=8)).settle()

    assert "kueue.x-k8s.io/job-min-parallelism" not in life.job("base")["metadata"]["annotations"]


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


class WatchedWorkloads(PretendCluster):
    """A Kueue whose Workloads can be watched; a test puts events, or errors that end the watch."""

    def __init__(self) -> None:
        super().__init__()
        self.listed: list[dict[str, Any]] = []
        self.lists = 0
        self.events: asyncio.Queue[tuple[str, dict[str, Any]] | Exception] = asyncio.Queue()  # type: ignore[assignment]
        self.since: list[int] = []

    async def kueue_version(self) -> str:
        return "v1beta2"

    async def workload_pages(
        self, version: str, namespace: str | None
    ) -> AsyncIterator[tuple[list[dict[str, Any]], int]]:
        self.lists += 1
        yield self.listed, 100

    async def watch_workloads(
        self, version: str, namespace: str | None, since: int
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        self.since.append(since)
        while True:
            event = await self.events.get()
            if isinstance(event, Exception):
                raise event
            yield event


def a_workload(uid: str, version: int, *conditions: dict[str, str]) -> dict[str, Any]:
    owner = {"kind": "Job", "name": f"job-{uid}", "uid": uid, "controller": True}
    labels = {"kueue.x-k8s.io/job-uid": uid}
    metadata = {"namespace": "vision", "name": f"w-{uid}", "labels": labels, "ownerReferences": [owner]}
    return {
        "metadata": {**metadata, "resourceVersion": str(version)},
        "status": {"conditions": list(conditions)},
    }


async def test_where_workloads_can_be_watched_each_change_is_known_at_once() -> None:
    workloads, changed, restarts = WatchedWorkloads(), asyncio.Queue[str](), list[tuple[str, str]]()
    kueue = Kueue(
        workloads,
        lambda: 0.0,
        changed=lambda namespace, job: changed.put_nowait(f"{namespace}/{job}"),
        count=lambda resource, reason: restarts.append((resource, reason)),
    )
    workloads.listed = [a_workload("a", 90, PENDING), a_workload("b", 91, RESERVED, ADMITTED)]
    watching = asyncio.create_task(kueue.watch(None, jitter=lambda: 0.0))
    await asyncio.sleep(0)
    assert workloads.lists == 0, "no Job waits yet"

    await kueue.why_waiting("vision", "a")
    async with asyncio.timeout(10):
        assert await changed.get() == "vision/job-a"
        assert kueue.watched("vision")
        assert await kueue.why_waiting("vision", "a") == Trouble(reason="Pending", message=PENDING["message"])
        workloads.events.put_nowait(("MODIFIED", a_workload("b", 101, PENDING, EVICTED)))
        assert await changed.get() == "vision/job-b"
        assert (await kueue.why_waiting("vision", "b") or Trouble(reason="", message="")).reason == "Preempted"
        workloads.events.put_nowait(("MODIFIED", a_workload("b", 102, RESERVED, ADMITTED)))
        assert await changed.get() == "vision/job-b"
        assert await kueue.why_waiting("vision", "b") is None

        workloads.events.put_nowait(ApiError(410, "Expired", "too old resource version"))
        workloads.listed = [a_workload("a", 120, PENDING, EVICTED)]
        assert await changed.get() == "vision/job-a", "it is not watched now"
        assert await changed.get() == "vision/job-a"
        assert workloads.lists == 2
    assert restarts == [("workloads", "gone")]
    watching.cancel()


async def test_where_workloads_may_only_be_listed_kueue_is_asked() -> None:
    workloads = WatchedWorkloads()
    workloads.listed = [a_workload("a", 1), a_workload("b", 2, PENDING), a_workload("c", 3, RESERVED, ADMITTED)]
    workloads.events.put_nowait(ApiError(403, "Forbidden", "cannot watch resource workloads"))
    changed: list[tuple[str, str, bool]] = []

    async def workloads_of(version: str, namespace: str, job_uid: str) -> list[dict[str, Any]]:
        return [a_workload(job_uid, 1, PENDING)]

    workloads.workloads_of = workloads_of  # type: ignore[method-assign]  # a Kueue that may be listed
    kueue = Kueue(
        workloads,
        lambda: 0.0,
        changed=lambda namespace, job: changed.append((namespace, job, kueue.watched(namespace))),
    )
    await kueue.why_waiting("vision", "a")
    watching = asyncio.create_task(kueue.watch("vision"))
    async with asyncio.timeout(10):
        while not workloads.since or kueue.watched("vision"):  # noqa: ASYNC110 - the watch has no event for it
            await asyncio.sleep(0.01)

    assert await kueue.why_waiting("vision", "a") is not None
    assert kueue.readable
    # Once as they are listed, before they are watched; and once for all that wait as the watch is refused.
    waiting = [("vision", "job-a", False), ("vision", "job-b", False)]
    assert changed == [("vision", "job-b", False), *waiting], "so that their datasets are looked at again"
    watching.cancel()
