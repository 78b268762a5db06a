"""A dataset's life, simulated turn by turn: the real `decide`, and a cluster of a few values.

life = a_life().of_a_dataset(stages=["base"])
life.turn()
life.plan_ends(a_plan("base", total=24, shards=3))
life.turn()
assert life.job_names() == ["base", "plan"]
"""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

from diffugen_api.contract import (
    ANNOTATION_SUSPENDED,
    FINALIZER,
    LABEL_STAGE,
    LABEL_STEP,
    RETRY_ANNOTATION,
    Outcome,
    Published,
    StagePlan,
)
from diffugen_api.v1alpha1 import LabeledDatasetStatus
from diffugen_operator.manifests import names
from diffugen_operator.observed.base import Trouble
from diffugen_operator.observed.dataset import Dataset, read_spec
from diffugen_operator.observed.jobs import Job
from diffugen_operator.observed.pods import Pod
from diffugen_operator.observed.progress import Pace, Shard
from diffugen_operator.observed.situation import Observed, Situation
from diffugen_operator.policy.actions import (
    CreateJob,
    CreateWorkOrder,
    Decision,
    DeleteJob,
    DeleteWorkOrder,
    ResizeJob,
    SetFinalizer,
    SuspendJob,
)
from diffugen_operator.policy.decide import decide, refused
from diffugen_operator.settings import Settings
from diffugen_operator.status.conditions import find
from diffugen_operator.status.rendering import dumped

Raw = dict[str, Any]

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def spec_data(*stages: str, **changes: Any) -> Raw:
    """Return a small valid spec; `changes` replace its fields."""
    return {
        "classes": [{"name": "ball"}, {"name": "star"}],
        "prompts": {"templates": ["a {object}"], "variables": {"object": ["ball", "star"]}},
        "stages": [{"name": name, "txt2img": {"model": "builtin://shapes"}} for name in stages or ("base",)],
        "output": {"s3": {"endpoint": "http://minio:9000", "bucket": "pictures", "secretRef": {"name": "store"}}},
        **changes,
    }


def a_raw_dataset(*stages: str, name: str = "shapes", **changes: Any) -> Raw:
    """Return a LabeledDataset as the API server sends it."""
    return {
        "metadata": {
            "namespace": "vision",
            "name": name,
            "uid": f"uid-of-{name}",
            "generation": 1,
            "resourceVersion": "1",
        },
        "spec": spec_data(*stages, **changes),
        "status": {"observedGeneration": -1},
    }


def a_plan(name: str, *, total: int = 24, reused: int = 0, shards: int = 3, gpu: bool = True) -> StagePlan:
    draw = total - reused if gpu else 0
    return StagePlan(
        name=name, total=total, reused=reused, draw=draw, relabel=total - reused - draw, shards=shards, gpu=gpu
    )


def a_published(revision: str = "rev", samples: int = 24) -> Published:
    return Published(
        uri="s3://pictures/vision/shapes",
        revision=revision,
        samples=samples,
        rejected=0,
        instances=30,
        manifest_sha256="ab" * 32,
        accepted_by_stage={"base": samples},
    )


class Life:
    """One dataset, its Jobs and pods, and the clock."""

    def __init__(self, dataset: Raw, settings: Settings | None = None) -> None:
        self.raw = dataset
        self.settings = settings or Settings()
        self.now = NOW
        self.jobs: dict[str, Raw] = {}
        self.pods: dict[str, Raw] = {}
        self.orders: set[str] = set()
        self.shards: dict[str, Shard] = {}
        self.pace: float | None = None
        self.paces: dict[str, float] = {}
        self.queue_reasons: dict[str, Trouble] = {}
        self.last: Decision | None = None

    # --- what the user does ---

    def edit(self, **changes: Any) -> Life:
        self.raw["spec"] = {**self.raw["spec"], **changes}
        self.raw["metadata"]["generation"] += 1
        return self

    def ask_for_retry(self, at: str = "2026-11-22T13:00:00Z") -> Life:
        self.raw["metadata"]["annotations"] = {RETRY_ANNOTATION: at}
        return self

    def delete(self) -> Life:
        self.raw["metadata"]["deletionTimestamp"] = "2026-11-22T13:00:00Z"
        return self

    # --- what the operator does ---

    def dataset(self) -> Dataset:
        restricted = self.settings.pod_template_policy == "restricted"
        return Dataset.read(self.raw, read_spec(self.raw, self.settings.default_store, restricted=restricted))

    def situation(self) -> Situation:
        observed = Observed(
            jobs=tuple(Job.read(job) for job in self.jobs.values()),
            pods=tuple(Pod.read(pod) for pod in self.pods.values()),
            shards=self.shards,
            pace=Pace(self.pace, self.paces),
            queue_reasons=self.queue_reasons,
        )
        return Situation(self.dataset(), observed, self.now, self.settings)

    def decision(self) -> Decision:
        return decide(self.situation())

    def turn(self) -> Decision:
        """Decide, act, write the status."""
        self.last = decision = self.decision()
        for action in decision.actions:
            match action:
                case CreateJob(manifest):
                    assert action.name not in self.jobs, "a Job is created once"
                    uid = f"uid-of-{action.name}"
                    self.jobs[action.name] = copy.deepcopy(manifest) | {"status": {}}
                    self.jobs[action.name]["metadata"] |= {"uid": uid, "creationTimestamp": self.now.isoformat()}
                case SetFinalizer(present):
                    assert decision.status == self.dataset().status, "one or the other"
                    self.raw["metadata"]["finalizers"] = [FINALIZER] if present else []
                case CreateWorkOrder(manifest):
                    self.orders.add(manifest["metadata"]["name"])
                case DeleteWorkOrder(name):
                    self.orders.discard(name)
                case SuspendJob(name, suspend):
                    self.jobs[name]["spec"]["suspend"] = suspend
                    self.mark(name, suspend=suspend)
                case ResizeJob(name, parallelism):
                    self.jobs[name]["spec"]["parallelism"] = parallelism
                case DeleteJob(name, _, wait):
                    if wait:
                        self.jobs[name]["metadata"]["deletionTimestamp"] = self.now.isoformat()
                    else:
                        self.gone(name)
        self.raw["status"] = dumped(decision.status)
        return decision

    def settle(self) -> Life:
        """Take turns until nothing changes."""
        for _ in range(10):
            before = copy.deepcopy((self.raw["status"], self.jobs, self.orders))
            self.turn()
            if before == (self.raw["status"], self.jobs, self.orders):
                return self
        raise AssertionError("it does not come to rest")

    def refuse(self, reason: str, message: str, *, for_good: bool = True) -> Decision:
        """Take a turn whose actions the API server refuses."""
        trouble = Trouble(reason=reason, message=message)
        decision = refused(self.situation(), self.decision(), trouble, for_good=for_good)
        self.raw["status"] = dumped(decision.status)
        return decision

    # --- what the cluster does ---

    def mark(self, name: str, *, suspend: bool) -> None:
        """Mark a Job as suspended by the operator, or remove the mark."""
        annotations = self.jobs[name]["metadata"].setdefault("annotations", {})
        annotations.pop(ANNOTATION_SUSPENDED, None)
        annotations.update({ANNOTATION_SUSPENDED: "true"} if suspend else {})

    def held(self, what: str, *, suspend: bool = True, by: str = "") -> Life:
        """Somebody else sets `suspend` of a Job."""
        self.job(what)["spec"] |= {"suspend": suspend, "suspendedBy": by}
        return self

    def later(self, seconds: float) -> Life:
        self.now += timedelta(seconds=seconds)
        return self

    def pod(self, what: str, index: str = "", **status: Any) -> Life:
        """Put a pod of this step or stage in this state."""
        job = self.job(what)["metadata"]["name"]
        name = f"{job}-{index or 'x'}-{len(self.pods)}"
        labels = {"batch.kubernetes.io/job-name": job}
        if index:
            labels["batch.kubernetes.io/job-completion-index"] = index
        self.pods[name] = {"metadata": {"name": name, "labels": labels}, "spec": {"nodeName": "n7"}, "status": status}
        return self

    def pod_runs(self, what: str, index: str = "", *, total: int = 0, done: int | None = None) -> Life:
        self.pod(what, index, phase="Running", podIP="10.0.0.1", containerStatuses=[_container(running={})])
        if done is not None:
            self.shards[list(self.pods)[-1]] = Shard(total=total, done=done)
        return self

    def pod_ends(
        self, what: str, code: int, outcome: Outcome | str | None = None, *, index: str = "", word: str = ""
    ) -> Life:
        terminated: Raw = {
            "exitCode": code,
            "reason": word or ("Error" if code else "Completed"),
            "finishedAt": f"2026-11-22T12:00:{len(self.pods):02d}Z",
        }
        if outcome is not None:
            terminated["message"] = outcome.dumps() if isinstance(outcome, Outcome) else outcome
        phase = "Failed" if code else "Succeeded"
        return self.pod(what, index, phase=phase, containerStatuses=[_container(terminated=terminated)])

    def pod_waits(self, what: str, reason: str, message: str = "") -> Life:
        waiting = {"reason": reason, "message": message}
        return self.pod(what, phase="Pending", containerStatuses=[_container(waiting=waiting)])

    def pod_starts(self, what: str) -> Life:
        """The pod has a node, and the kubelet makes its containers ready."""
        waiting = _container(waiting={"reason": "ContainerCreating"})
        return self.pod(what, phase="Pending", startTime=self.now.isoformat(), containerStatuses=[waiting])

    def pod_unschedulable(self, what: str, message: str) -> Life:
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
        }
        return self.pod(what, phase="Pending", conditions=[condition])

    def job_status(self, what: str, **status: Any) -> Life:
        self.job(what)["status"].update(status)
        return self

    def job_completes(self, what: str) -> Life:
        condition = {"type": "Complete", "status": "True"}
        return self.job_status(what, conditions=[condition], completionTime="2026-11-22T12:30:00Z")

    def job_fails(self, what: str, reason: str, message: str = "", **status: Any) -> Life:
        condition = {"type": "Failed", "status": "True", "reason": reason, "message": message}
        return self.job_status(what, conditions=[condition], **status)

    def plan_ends(self, *plans: StagePlan) -> Life:
        self.pod_ends("plan", 0, Outcome(reason="Planned", plan=list(plans)))
        return self.job_completes("plan")

    def publish_ends(self, samples: int = 24) -> Life:
        published = a_published(self.status.revision, samples)
        self.pod_ends("publish", 0, Outcome(reason="Published", published=published))
        return self.job_completes("publish")

    def gone(self, name: str) -> None:
        """A Job is gone, and its pods with it."""
        del self.jobs[name]
        self.pods = {
            pod: raw
            for pod, raw in self.pods.items()
            if raw["metadata"]["labels"]["batch.kubernetes.io/job-name"] != name
        }

    def collected(self, what: str) -> Life:
        """A Job's time to live is over: it is deleted."""
        self.gone(self.job(what)["metadata"]["name"])
        return self

    def stopped(self) -> Life:
        """All Jobs that are being deleted are gone."""
        for name, job in list(self.jobs.items()):
            if "deletionTimestamp" in job["metadata"]:
                self.gone(name)
        return self

    # --- shortcuts through a life ---

    def until_planning(self) -> Life:
        return self.settle()

    def until_drawing(self, *plans: StagePlan) -> Life:
        self.settle().plan_ends(*plans or (a_plan("base"),))
        return self.settle()

    def until_publishing(self) -> Life:
        self.until_drawing()
        return self.job_completes("base").settle()

    def until_published(self) -> Life:
        return self.until_publishing().publish_ends().settle()

    # --- what can be seen ---

    @property
    def status(self) -> LabeledDatasetStatus:
        return LabeledDatasetStatus.model_validate(self.raw["status"])

    def job(self, what: str) -> Raw:
        """Return the present run's Job of a step, or of a stage by its name."""
        attempt = str(self.status.attempt)
        found = [
            job
            for job in self.jobs.values()
            if what in (job["metadata"]["labels"].get(LABEL_STAGE), _step_of(job))
            and job["metadata"]["labels"]["diffugen.dev/attempt"] == attempt
        ]
        assert len(found) == 1, f"{len(found)} Jobs are {what!r}"
        return found[0]

    def job_names(self) -> list[str]:
        return sorted(job["metadata"]["labels"].get(LABEL_STAGE) or _step_of(job) for job in self.jobs.values())

    def condition(self, kind: str) -> tuple[str, str] | None:
        """Return reason and message of a true condition."""
        condition = find(self.status.conditions, kind)
        return None if condition is None else (condition.reason, condition.message)

    def ready(self) -> tuple[str, str, str]:
        condition = next(c for c in self.status.conditions if c.type == "Ready")
        return condition.status, condition.reason, condition.message

    def shown(self) -> tuple[str, str, str]:
        """Return what `kubectl get lds` shows: stage, progress, reason."""
        summary = self.status.summary
        return summary.stage, summary.progress, summary.reason


def _step_of(job: Raw) -> str:
    step = job["metadata"]["labels"][LABEL_STEP]
    return "" if step == "stage" else str(step)


def _container(**state: Any) -> Raw:
    return {"name": names.CONTAINER, "image": "diffugen/generator:1", "state": state}


def a_life(*stages: str, settings: Settings | None = None, **changes: Any) -> Life:
    """Return a dataset that was just applied."""
    return Life(a_raw_dataset(*stages, **changes), settings)
