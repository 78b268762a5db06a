"""The reconciler around `decide`: observe, decide, act, write the status once, announce it.

Any error ends the reconcile; the queue repeats it after a pause, and everything is observed again. Actions can be
repeated safely: a Job of this run that exists already is kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from diffugen_api.contract import FINALIZER, Step
from diffugen_api.v1alpha1 import LabeledDatasetStatus
from diffugen_operator import reasons
from diffugen_operator.kube.api import ApiError
from diffugen_operator.kube.backoff import backoff
from diffugen_operator.kube.cache import Cache, Object, Resource, owner_of
from diffugen_operator.kube.connection import TRANSPORT_ERRORS
from diffugen_operator.kube.work_queue import Clock, Key
from diffugen_operator.manifests.jobs import RunPlan, excess_of
from diffugen_operator.observed.base import Trouble
from diffugen_operator.observed.dataset import Dataset, InvalidSpec, Wanted, is_deleting, read_spec
from diffugen_operator.observed.jobs import Job
from diffugen_operator.observed.pods import Pod
from diffugen_operator.observed.progress import Meters, Shard
from diffugen_operator.observed.situation import Observed, Situation
from diffugen_operator.policy.actions import (
    Action,
    CreateJob,
    CreateWorkOrder,
    Decision,
    DeleteJob,
    DeleteWorkOrder,
    ResizeJob,
    SetFinalizer,
    SuspendJob,
)
from diffugen_operator.policy.announcements import announcements, images_between, is_transition
from diffugen_operator.policy.decide import decide, failing, refused
from diffugen_operator.policy.runs import finished, run_key
from diffugen_operator.reconcile.event_recorder import Recorder
from diffugen_operator.reconcile.image_volumes import lack_of_image_volumes
from diffugen_operator.reconcile.kueue import FIRST_LOOK_SECONDS, LOOK_SECONDS, Kueue
from diffugen_operator.reconcile.ownership import RefusedError, check_ours, conflict
from diffugen_operator.reconcile.requests import PodProgress, Requests
from diffugen_operator.settings import Settings
from diffugen_operator.status.conditions import READY, find
from diffugen_operator.status.rendering import dumped, is_halted, merge_patch
from diffugen_operator.telemetry.logs import concern
from diffugen_operator.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_WATCHES_APART_SECONDS = 0.05
"""How much later than a Job's end the end of its pods usually arrives: they come over another watch."""
_ORDER_LOOK_SECONDS = 30.0
"""How long a work order that was created or read is not read again."""
REPORTED_FAILURES = 3
"""After so many failures in a row of a dataset's actions, its status reports which action fails and why."""
_OUTDATED = (404, 409)
"""The API server's answers when the cache is outdated: the next try reads the cache again."""


@dataclass(slots=True)
class _Memory:
    """The data of a dataset that is kept between reconciles; a restart may lose all of it."""

    generation: int = -1
    uid: str = ""
    deleting: bool = False
    wanted: Wanted | InvalidSpec | None = None
    meters: Meters = field(default_factory=Meters)
    attempt: int = 0
    written_at: float = float("-inf")
    queue_looks: int = 0
    """How often in a row Kueue was asked about a waiting Job and gave no reason."""
    order: str = ""
    """The name of the work order that was created or read last."""
    order_seen_at: float = float("-inf")
    failures: int = 0
    """How often in a row an action failed though it was not refused."""
    compared: set[str] = field(default_factory=set)
    """The uids of Jobs that are as a run of the dataset makes them."""


class Reconciler:
    """Brings each dataset one step closer to its spec."""

    def __init__(
        self,
        *,
        cache: Cache,
        cluster: Requests,
        scraper: PodProgress,
        recorder: Recorder,
        metrics: Metrics,
        settings: Settings,
        clock: Clock,
        now: Callable[[], datetime],
        kueue: Kueue | None = None,
    ) -> None:
        self._cache, self._cluster, self._scraper, self._recorder = cache, cluster, scraper, recorder
        self._metrics, self._settings, self._clock, self._now = metrics, settings, clock, now
        self._kueue = kueue or Kueue(cluster, clock)
        self._memories: dict[Key, _Memory] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Reconcile a dataset; returns the seconds until the next reconcile, or None if events are enough."""
        raw = self._cache.dataset(key)
        if raw is None:
            self._memories.pop(key, None)
            self._scraper.forget(key)
            return None
        memory = self._memories.setdefault(key, _Memory())
        dataset = Dataset.read(raw, self._wanted(raw, memory))
        concern(dataset.wanted.revision if isinstance(dataset.wanted, Wanted) else dataset.status.revision)
        observed = await self._observe(key, dataset, memory)
        situation = Situation(dataset, observed, self._now(), self._settings)
        decision = decide(situation)
        foreign = self._foreign(dataset, observed, memory)
        if foreign is not None:
            decision = refused(situation, decision, foreign, for_good=True)
        memory.meters.record(self._clock(), {stage.name: stage.samples.done for stage in decision.status.stages})
        try:
            for action in decision.actions:
                await self._tried(situation, decision, action, memory)
            memory.failures = 0
        except RefusedError as refusal:
            decision = refused(situation, decision, refusal.trouble, for_good=refusal.for_good)
        reconcile_after = await self._commit(key, raw, dataset, decision, memory)
        if reconcile_after is None and not decision.actions:  # Nothing is left to do, so the parsed spec is not needed.
            memory.wanted = None
        return self._with_queue_look(key, observed, memory, reconcile_after)

    def _with_queue_look(
        self, key: Key, observed: Observed, memory: _Memory, reconcile_after: float | None
    ) -> float | None:
        """Return when to look again at Jobs that wait: Kueue's reasons change without a change of the Job."""
        waiting = [job.name for job in observed.jobs if _waits_in_queue(job)]
        if not waiting or not self._kueue.readable or self._kueue.watched(key.namespace):
            memory.queue_looks = 0
            return reconcile_after
        # It makes the Workload, and tries to admit it, just after the Job was created or evicted.
        unknown = any(name not in observed.queue_reasons for name in waiting)
        memory.queue_looks = memory.queue_looks + 1 if unknown else 0
        pause = backoff(memory.queue_looks, base=FIRST_LOOK_SECONDS, limit=LOOK_SECONDS) if unknown else LOOK_SECONDS
        return pause if reconcile_after is None else min(reconcile_after, pause)

    async def _tried(self, situation: Situation, decision: Decision, action: Action, memory: _Memory) -> None:
        """Apply an action. One that fails repeatedly is reported in the status, with the API server's message."""
        try:
            await self._apply(situation.dataset, action)
        except (ApiError, *TRANSPORT_ERRORS) as error:
            memory.failures += 1
            if memory.failures >= REPORTED_FAILURES:
                if isinstance(action, DeleteWorkOrder):  # Nothing reads it; it is deleted with the dataset.
                    logger.warning("ConfigMap %s of the former run cannot be deleted: %s", action.name, error)
                    return
                await self._report(situation, decision, action, error, memory)
            raise

    async def _report(
        self, situation: Situation, decision: Decision, action: Action, error: Exception, memory: _Memory
    ) -> None:
        """Write to the status that an action fails, and why; nothing if only the cache is outdated."""
        dataset, words = situation.dataset, f"the API server does not answer: {error!r}"
        key = Key(dataset.namespace, dataset.name)
        if isinstance(error, ApiError):
            if error.code in _OUTDATED:
                return
            words = error.message or str(error)
        report = failing(situation, decision, action, words)
        if report is not None and (raw := self._cache.dataset(key)) is not None:
            await self._commit(key, raw, dataset, report, memory)

    def _wanted(self, raw: Object, memory: _Memory) -> Wanted | InvalidSpec:
        """Read the spec once per generation, and once more for a deletion: a large one takes milliseconds."""
        now = raw["metadata"]["uid"], raw["metadata"]["generation"], is_deleting(raw)
        if memory.wanted is None or (memory.uid, memory.generation, memory.deleting) != now:
            memory.uid, memory.generation, memory.deleting = now
            restricted = self._settings.pod_template_policy == "restricted"
            memory.wanted = read_spec(raw, self._settings.default_store, restricted=restricted)
        return memory.wanted

    async def _observe(self, key: Key, dataset: Dataset, memory: _Memory) -> Observed:
        jobs = [Job.read(job) for job in self._cache.jobs_of(key, dataset.uid)]
        pods: list[Pod] = []
        for job in jobs:
            pods += await self._pods(key, job, dataset.status)
        shards = self._shards(key, dataset, jobs, pods, memory)
        return Observed(
            jobs=tuple(jobs),
            pods=tuple(pods),
            shards=shards,
            pace=memory.meters.pace(),
            queue_reasons=await self._queue_reasons(key.namespace, jobs),
        )

    async def _pods(self, key: Key, job: Job, status: LabeledDatasetStatus) -> list[Pod]:
        """Return a Job's pods. Its end may arrive before theirs, but their termination messages are needed."""

        def cached() -> list[Pod]:
            return _pods_of(job, self._cache.pods_of(key.namespace, job.name))

        known = cached()
        if _result_is_missing(job, known, status):
            await asyncio.sleep(_WATCHES_APART_SECONDS)
            known = cached()
        if _result_is_missing(job, known, status):
            known = _pods_of(job, await self._cluster.pods_of(key.namespace, job.name))
        return known

    def _foreign(self, dataset: Dataset, observed: Observed, memory: _Memory) -> Trouble | None:
        """Return the trouble if a Job of the present run is not as this run makes it.

        The name, labels and owner of a Job can be guessed, so each that this process did not create is compared once.
        One that the status names was compared before that was written.
        """
        status, wanted = dataset.status, dataset.wanted
        if not isinstance(wanted, Wanted) or wanted.revision != status.revision or wanted.spec.suspend:
            return None
        if dataset.deleting or is_halted(status) or finished(dataset):
            return None
        recorded = {stage.job for stage in status.stages}
        for job in observed.jobs:
            current = job.attempt == status.attempt and job.deleting_since is None
            if not current or job.name in recorded or job.uid in memory.compared:
                continue
            run = RunPlan(key=run_key(dataset), spec=wanted.spec, settings=self._settings)
            if job.order_sha256 != run.order_sha256:
                return conflict("Job", job.name)
            memory.compared.add(job.uid)
        return None

    async def _queue_reasons(self, namespace: str, jobs: list[Job]) -> Mapping[str, Trouble]:
        found = {job.name: await self._kueue.why_waiting(namespace, job.uid) for job in jobs if _waits_in_queue(job)}
        return {name: reason for name, reason in found.items() if reason is not None}

    def _shards(
        self, key: Key, dataset: Dataset, jobs: list[Job], pods: list[Pod], memory: _Memory
    ) -> Mapping[str, Shard]:
        staging = {job.name for job in jobs if job.stage and not job.finished}
        resting = isinstance(dataset.wanted, InvalidSpec) or dataset.wanted.spec.suspend
        if resting or memory.attempt != dataset.status.attempt:
            memory.meters, memory.attempt = Meters(), dataset.status.attempt
        return self._scraper.follow(key, [pod for pod in pods if pod.job in staging and pod.running])

    async def _apply(self, dataset: Dataset, action: Action) -> None:
        namespace = dataset.namespace
        match action:
            case SetFinalizer(present):
                await self._set_finalizer(dataset, present=present)
            case CreateWorkOrder(manifest, probably_exists):
                await self._create_work_order(dataset, manifest, probably_exists=probably_exists)
            case CreateJob(manifest):
                await self._create_job(dataset, manifest)
            case SuspendJob(name, suspend):
                job = await self._cluster.suspend_job(namespace, name, suspend=suspend)
                self._cache.put(Resource.JOBS, job)
            case ResizeJob(name, parallelism):
                self._cache.put(Resource.JOBS, await self._cluster.resize_job(namespace, name, parallelism))
            case DeleteJob(name, uid, wait):
                await self._cluster.delete_job(namespace, name, uid, wait=wait)
                if not wait:
                    gone = {"metadata": {"namespace": namespace, "name": name, "uid": uid}}
                    self._cache.drop(Resource.JOBS, gone)
            case DeleteWorkOrder(name):
                await self._cluster.delete_config_map(namespace, name)

    async def _set_finalizer(self, dataset: Dataset, *, present: bool) -> None:
        others = [finalizer for finalizer in dataset.finalizers if finalizer != FINALIZER]
        finalizers = [*others, FINALIZER] if present else others
        key = Key(dataset.namespace, dataset.name)
        changed = await self._cluster.set_finalizers(key, dataset.version, finalizers)
        if dataset.deleting and not finalizers:  # Our finalizer was the last one.
            self._cache.drop(Resource.DATASETS, changed)
        else:
            self._cache.put(Resource.DATASETS, changed)

    async def _create_work_order(self, dataset: Dataset, manifest: Object, *, probably_exists: bool) -> None:
        name, memory = manifest["metadata"]["name"], self._memories[Key(dataset.namespace, dataset.name)]
        if isinstance(dataset.wanted, Wanted) and (excess := excess_of(manifest, dataset.wanted.spec)) is not None:
            raise RefusedError(Trouble(reason=reasons.CONFIG_MAP_REJECTED, message=excess), for_good=True)
        if probably_exists:
            if (memory.order, memory.order_seen_at > self._clock() - _ORDER_LOOK_SECONDS) == (name, True):
                return
            if (there := await self._cluster.get_config_map(dataset.namespace, name)) is not None:
                check_ours(there, manifest, dataset)
                memory.order, memory.order_seen_at = name, self._clock()
                return
        try:
            await self._cluster.create_config_map(manifest)
        except ApiError as error:
            if error.code != 409:
                raise _refusal(error, reasons.CONFIG_MAP_REJECTED) from error
            check_ours(await self._cluster.get_config_map(dataset.namespace, name), manifest, dataset)
        memory.order, memory.order_seen_at = name, self._clock()

    async def _create_job(self, dataset: Dataset, manifest: Object) -> None:
        name = manifest["metadata"]["name"]
        spec = dataset.wanted.spec if isinstance(dataset.wanted, Wanted) else None
        if (lack := await lack_of_image_volumes(self._cluster, manifest, spec)) is not None:
            raise RefusedError(lack, for_good=True)
        try:
            job = await self._cluster.create_job(manifest)
        except ApiError as error:
            if error.code != 409:
                overlay = spec is not None and spec.run.pod_template
                raise _refusal(error, reasons.INVALID_POD_TEMPLATE if overlay else reasons.JOB_REJECTED) from error
            job = check_ours(await self._cluster.get(Resource.JOBS, dataset.namespace, name), manifest, dataset)
        self._memories[Key(dataset.namespace, dataset.name)].compared.add(job["metadata"]["uid"])
        self._cache.put(Resource.JOBS, job)

    async def _commit(
        self, key: Key, raw: Object, dataset: Dataset, decision: Decision, memory: _Memory
    ) -> float | None:
        """Write the status if it changed; changes of numbers alone are written at intervals."""
        old, new = dataset.status, decision.status
        if new == old and not dataset.unreadable:
            return decision.reconcile_after
        wait = memory.written_at + self._settings.progress_interval - self._clock()
        transition = is_transition(old, new) or bool(dataset.unreadable)
        if wait > 0 and not transition:
            return min(wait, decision.reconcile_after or wait)
        version = raw["metadata"]["resourceVersion"]
        patch = merge_patch(raw["status"], dumped(new))
        self._cache.put(Resource.DATASETS, await self._cluster.patch_status(key, version, patch))
        memory.written_at = self._clock()
        self._metrics.status_writes.labels("transition" if transition else "progress").inc()
        self._metrics.images.inc(images_between(old, new))
        self._announce(dataset, decision)
        return decision.reconcile_after

    def _announce(self, dataset: Dataset, decision: Decision) -> None:
        old, new = dataset.status, decision.status
        dataset = replace(dataset, status=new)
        plan, warnings, unreadable = decision.plan, decision.warnings, dataset.unreadable
        for announcement in announcements(old, new, plan, warnings=warnings, unreadable=unreadable):
            level = logging.WARNING if announcement.warning else logging.INFO
            logger.log(level, "%s: %s", announcement.reason, announcement.message, extra={"attempt": new.attempt})
            self._recorder.announce(dataset, announcement, self._now())


def _refusal(error: ApiError, reason: str) -> Exception:
    """Return the exception for a refused creation; `reason` is used if it is refused permanently."""
    if error.code not in (400, 403, 413, 422):
        return error
    if error.namespace_goes:
        reason = reasons.NAMESPACE_TERMINATING
    elif not error.for_good:
        reason = reasons.QUOTA_EXCEEDED if "exceeded quota" in error.message else error.reason or reason
    return RefusedError(Trouble(reason=reason, message=error.message), for_good=error.for_good)


def _pods_of(job: Job, pods: list[Object]) -> list[Pod]:
    """Return the pods that this Job owns, and not those of another Job with the same name."""
    return [Pod.read(pod) for pod in pods if (owner_of(pod) or {}).get("uid") == job.uid]


def _waits_in_queue(job: Job) -> bool:
    return job.held and not job.finished


def _result_is_missing(job: Job, pods: list[Pod], status: LabeledDatasetStatus) -> bool:
    """Whether a step has just finished and the end of some of its pods is not known yet."""
    over = is_halted(status) or find(status.conditions, READY) is not None
    if not job.finished or over or job.attempt != status.attempt or (job.step is Step.PLAN and status.planned):
        return False
    if job.complete:  # Shards need no termination message: their Job has the result.
        return not (job.stage or job.step is Step.PUBLISH_SHARD) and not any(
            pod.ended is not None and pod.ended.exit_code == 0 for pod in pods
        )
    return not pods or any(pod.ended is None for pod in pods)
