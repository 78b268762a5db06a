"""A reconciler on a simulated cluster, with a clock that the test sets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from diffugen_api.contract import Outcome
from diffugen_operator.kube.cache import Cache, Resource
from diffugen_operator.kube.work_queue import Key
from diffugen_operator.observed.pods import Pod
from diffugen_operator.observed.progress import Shard
from diffugen_operator.reconcile.event_recorder import Recorder
from diffugen_operator.reconcile.reconciler import Reconciler
from diffugen_operator.reconcile.requests import PodProgress
from diffugen_operator.settings import Settings
from diffugen_operator.telemetry.metrics import Metrics
from tests.operator.clusters import PretendCluster
from tests.operator.lives import NOW, a_plan, a_published, a_raw_dataset

KEY = Key("vision", "shapes")
SETTINGS = Settings(scrape_interval=5, progress_interval=10)


class PretendPods(PodProgress):
    """Pods that have reported what the test wants when the reconciler reads them."""

    def __init__(self) -> None:
        self.done = 0

    def follow(self, key: Key, pods: Iterable[Pod]) -> dict[str, Shard]:
        return {pod.name: Shard(total=8, done=self.done) for pod in pods}

    def forget(self, key: Key) -> None:
        pass


class World:
    """A reconciler on a simulated cluster, with a clock that the test sets."""

    def __init__(self, *, scraper: PodProgress | None = None, **changes: Any) -> None:
        self.seconds = 0.0
        self.cluster, self.cache, self.pods = PretendCluster(), Cache(), PretendPods()
        self.scraper = scraper or self.pods
        self.recorder = Recorder(self.cluster.create_event, instance="test")
        self.reconciler = self.restarted()
        self.see(Resource.DATASETS, self.cluster.put("labeleddatasets", a_raw_dataset(**changes)))

    def restarted(self) -> Reconciler:
        self.reconciler = Reconciler(
            cache=self.cache,
            cluster=self.cluster,
            scraper=self.scraper,
            recorder=self.recorder,
            metrics=Metrics(),
            settings=SETTINGS,
            clock=lambda: self.seconds,
            now=lambda: NOW + timedelta(seconds=self.seconds),
        )
        return self.reconciler

    def crashed(self) -> None:
        """Start again with only the objects that the API server lists."""
        self.cache = Cache()
        for (kind, _), obj in self.cluster.objects.items():
            if kind in set(Resource):
                self.cache.put(Resource(kind), obj)
        self.restarted()

    def see(self, resource: Resource, obj: dict[str, Any]) -> None:
        self.cache.put(resource, obj)

    async def turn(self, times: int = 1) -> float | None:
        reconcile_after = None
        for _ in range(times):
            reconcile_after = await self.reconciler.reconcile(KEY)
        return reconcile_after

    def asked(self) -> list[str]:
        """Return the requests to the API server since the last call."""
        requests, self.cluster.requests = self.cluster.requests, []
        return [f"{verb} {kind}" for verb, kind in requests]

    @property
    def dataset(self) -> dict[str, Any]:
        return self.cluster.objects["labeleddatasets", "shapes"]

    def job(self, step: str) -> dict[str, Any]:
        return next(
            obj
            for (kind, _), obj in self.cluster.objects.items()
            if kind == "jobs" and obj["metadata"]["labels"]["diffugen.dev/step"] == step
        )

    def job_is(self, step: str, condition: str = "", **status: Any) -> None:
        conditions = [{"type": condition, "status": "True"}] if condition else []
        job = self.job(step) | {"status": {"conditions": conditions, **status}}
        self.see(Resource.JOBS, self.cluster.put("jobs", job))

    def pod_is(self, step: str, phase: str, state: dict[str, Any], *, seen: bool = True, number: int = 0) -> None:
        job = self.job(step)["metadata"]["name"]
        pod = {
            "metadata": {
                "namespace": "vision",
                "name": f"{job}-{number}",
                "labels": {"batch.kubernetes.io/job-name": job, "batch.kubernetes.io/job-completion-index": "0"},
                "ownerReferences": [{"kind": "Job", "name": job, "uid": f"uid-of-{job}", "controller": True}],
            },
            "status": {
                "phase": phase,
                "podIP": "10.0.0.1",
                "containerStatuses": [{"name": "generator", "state": state}],
            },
        }
        stored = self.cluster.put("pods", pod)
        if seen:
            self.see(Resource.PODS, stored)

    def delete(self) -> None:
        """Simulate `kubectl delete` of a dataset that a finalizer keeps."""
        metadata = {**self.dataset["metadata"], "deletionTimestamp": "2026-11-22T12:00:00Z"}
        self.see(Resource.DATASETS, self.cluster.put("labeleddatasets", self.dataset | {"metadata": metadata}))

    def hear_of_deletions(self) -> None:
        """Let the watch report the deleted Jobs."""
        for job in self.cache.jobs_of(KEY, "uid-of-shapes"):
            if ("jobs", job["metadata"]["name"]) not in self.cluster.objects:
                self.cache.drop(Resource.JOBS, job)

    def clean_up_ends(self) -> None:
        message = Outcome(ok=True, reason="Deleted").dumps()
        self.pod_is("delete", "Succeeded", {"terminated": {"exitCode": 0, "message": message}})
        self.job_is("delete", "Complete")

    def plan_ends(self, *, seen: bool = True, warnings: Sequence[str] = ()) -> None:
        message = Outcome(reason="Planned", plan=[a_plan("base")], warnings=list(warnings)).dumps()
        self.pod_is("plan", "Succeeded", {"terminated": {"exitCode": 0, "message": message}}, seen=seen)
        self.job_is("plan", "Complete")

    def publish_ends(self) -> None:
        published = a_published(self.dataset["status"]["revision"])
        message = Outcome(reason="Published", published=published).dumps()
        self.pod_is("publish", "Succeeded", {"terminated": {"exitCode": 0, "message": message}})
        self.job_is("publish", "Complete")
