"""The process: its tasks, from start to stop.

    kopf (datasets) ─────┐
    watches (Jobs, pods) ┴─> inbox ──> cache, queue ──> workers ──> reconciler ──> API server
    resync ───────────────────────────────┘                             └──> recorder (Events)

At the start everything is listed once before the first reconcile, so that every decision is based on all objects.
The watches of Jobs and pods continue from that list. kopf lists the datasets itself, and the first resync follows soon,
to catch what changed between the two lists.

With a Lease, all this starts once this process holds it; a standby requests only the Lease. A process that loses the
Lease exits.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import secrets
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from diffugen_api.contract import GROUP, PLURAL
from diffugen_operator import __version__
from diffugen_operator.kube.api import REQUEST_ERRORS, ApiError, Cluster
from diffugen_operator.kube.cache import Cache, Name, Resource
from diffugen_operator.kube.child_events import Watch
from diffugen_operator.kube.connection import Connection
from diffugen_operator.kube.dataset_events import DatasetTransport, Inbox
from diffugen_operator.kube.leader_election import Election, LeaseLostError
from diffugen_operator.kube.work_queue import Key, WorkQueue
from diffugen_operator.reconcile.event_recorder import Recorder
from diffugen_operator.reconcile.kueue import Kueue
from diffugen_operator.reconcile.ownership import ChildStoppingError
from diffugen_operator.reconcile.pod_progress import Scraper
from diffugen_operator.reconcile.reconciler import Reconciler
from diffugen_operator.settings import Settings
from diffugen_operator.telemetry.logs import concerning
from diffugen_operator.telemetry.metrics import Metrics
from diffugen_operator.telemetry.probes import Server

logger = logging.getLogger(__name__)

_FIRST_RESYNC_SECONDS = 15.0
_LONGEST_STOP_SECONDS = 10.0
_POLL_SECONDS = 2.0
_CONFLICT_SECONDS = 0.05
_COLLECTIONS = (5_000, 20, 20)
"""New objects until their garbage is collected, and so many collections until one of the next older generation."""


class Operator:
    """One operator process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metrics = Metrics()
        # A restarted container has another identity: its predecessor's last request may still be running.
        instance = f"{socket.gethostname()}_{secrets.token_hex(4)}"
        self._connection = Connection(
            settings,
            self._metrics.count_request,
            instance=instance,
            count_restart=self._metrics.count_watch_restart,
        )
        self._election: Election | None = None
        self._cluster = Cluster(self._connection, settings, left=self._left)
        if settings.lease_namespace:
            self._election = Election(
                leases=self._cluster,
                settings=settings,
                identity=instance,
                clock=time.monotonic,
                now=lambda: datetime.now(UTC),
                owner=self._connection.service_account,
            )
        self._cache = Cache()
        self._queue = WorkQueue(
            clock=time.monotonic, backoff_base=settings.backoff_base, backoff_limit=settings.backoff_limit
        )
        self._scraper = Scraper(settings)
        self._recorder = Recorder(self._cluster.create_event, instance=instance)
        self._kueue = Kueue(
            self._cluster, time.monotonic, changed=self._workload_changed, count=self._metrics.count_watch_restart
        )
        self._reconciler = Reconciler(
            cache=self._cache,
            cluster=self._cluster,
            scraper=self._scraper,
            recorder=self._recorder,
            metrics=self._metrics,
            settings=settings,
            clock=time.monotonic,
            now=self._connection.server_time,
            kueue=self._kueue,
        )
        self._inbox = Inbox(self._cache, self._queue)
        self._versions: dict[Resource, dict[str | None, int]] = {resource: {} for resource in Resource}
        self._watches: dict[tuple[Resource, str | None], Watch] = {}
        self._datasets = DatasetTransport(
            connection=self._connection,
            inbox=self._inbox,
            settings=settings,
            crd_is_back=self._crd_is_back,
            unless_stopped=_unless_stopped,
        )
        self._resync_now = asyncio.Event()
        self._listed = False
        self._broken = False
        self._metrics.watch_events(self._recorder.waiting)
        self._metrics.watch_leader(lambda: self._left() > 0)
        schedule = self._queue.schedule
        self._metrics.watch_queue(schedule.depth, lambda: schedule.oldest_age(time.monotonic()))

    async def run(self) -> None:
        """Run until a signal comes."""
        server = Server(live=self._stuck, ready=self._not_ready, page=self._page)
        await server.start(self._settings.http_host, self._settings.http_port)
        tasks: list[asyncio.Task[None]] = []
        try:
            if await _unless_stopped(self._prepare(tasks)):
                _spare_garbage_collector()
                self._start(tasks)
                await self._datasets.run()
        finally:
            await self._stop(tasks)
            await server.stop()
        if self._broken:
            raise SystemExit("diffugen-operator: a task failed; the log above says which")

    async def _prepare(self, tasks: list[asyncio.Task[None]]) -> None:
        """Wait for the CRD, the Lease and the rights, then list everything that another leader did before."""
        await self._there(self._cluster.serves_datasets)
        if self._election is not None:
            await self._election.win()
            self._watched(tasks, self._election.hold(), "lease")
        await self._there(self._relist)

    def _start(self, tasks: list[asyncio.Task[None]]) -> None:
        where = ", ".join(self._settings.namespaces) or "all namespaces"
        logger.info("DiffuGen operator %s serves %s.", __version__, where)
        for number in range(self._settings.workers):
            self._watched(tasks, self._work(), f"worker {number}")
        for resource in (Resource.JOBS, Resource.PODS):
            for namespace, version in self._versions[resource].items():
                watch = self._watches[resource, namespace] = Watch(
                    cluster=self._cluster,
                    inbox=self._inbox,
                    resource=resource,
                    namespace=namespace,
                    relist=self._list_and_look,
                    count=self._metrics.count_watch_restart,
                    rewound=partial(self._rewound, resource, namespace),
                )
                self._watched(tasks, watch.run(version), f"watch of {resource.value}")
        for namespace in self._cluster.namespaces:
            self._watched(tasks, self._kueue.watch(namespace), "watch of workloads")
        self._watched(tasks, self._resync(), "resync")
        self._watched(tasks, self._recorder.run(), "recorder")

    def _watched(self, tasks: list[asyncio.Task[None]], work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """End the process if a task has ended by mistake: a restart is better than an operator without a task."""
        if not task.cancelled() and (error := task.exception()) is not None:
            if isinstance(error, LeaseLostError):
                logger.critical("The Lease is lost: %s. Nothing more is written.", error)
            else:
                logger.critical("The task %s failed: %r", task.get_name(), error, exc_info=error)
            self._broken = True
            # kopf stops at signals; waiting for a flag as well would delay every stop by five seconds.
            signal.raise_signal(signal.SIGTERM)

    async def _stop(self, tasks: list[asyncio.Task[None]]) -> None:
        """Let running work finish, within a time limit."""
        self._queue.close()
        workers = [task for task in tasks if task.get_name().startswith("worker")]
        if workers:
            await asyncio.wait(workers, timeout=_LONGEST_STOP_SECONDS)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._recorder.flush(), 3)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._election is not None:
            await self._election.release()
        await self._scraper.close()
        await self._connection.close()
        logger.info("Stopped.")

    async def _work(self) -> None:
        while (key := await self._queue.take()) is not None:
            with concerning(str(key)), self._metrics.reconcile_seconds.time():
                await self._reconcile(key)

    async def _reconcile(self, key: Key) -> None:
        try:
            reconcile_after = await self._reconciler.reconcile(key)
        except ChildStoppingError as stopping:
            self._metrics.reconciles.labels("waiting").inc()
            pause = self._queue.failed(key, at_least=1)
            logger.info("%s; again in %.1f s.", stopping, pause)
        except ApiError as error:
            await self._failed(key, error)
        except Exception as error:
            self._metrics.reconciles.labels("error").inc()
            pause = self._queue.failed(key)
            known = isinstance(error, REQUEST_ERRORS)
            message = "Reconciling failed: %r; again in %.1f s."
            logger.warning(message, error, pause, exc_info=not known)
        else:
            self._metrics.reconciles.labels("ok").inc()
            self._queue.done(key)
            if reconcile_after == 0:  # Only the first part of a change was written.
                self._queue.add(key, urgent=True)
            elif reconcile_after is not None:
                self._queue.add_after(key, reconcile_after)

    async def _failed(self, key: Key, error: ApiError) -> None:
        if error.code in (404, 409):
            # The cached dataset, or a cached child, is outdated.
            self._metrics.reconciles.labels("conflict").inc()
            with contextlib.suppress(*REQUEST_ERRORS):
                await self._refresh(key)
            pause = self._queue.failed(key, at_least=_CONFLICT_SECONDS)
        else:
            self._metrics.reconciles.labels("error").inc()
            pause = self._queue.failed(key, at_least=error.retry_after, firm=error.retry_after > 0)
        logger.info("%s; again in %.1f s.", error, pause)

    def _workload_changed(self, namespace: str, job: str) -> None:
        if (key := self._cache.dataset_of(namespace, job)) is not None:
            self._queue.add(key)

    async def _refresh(self, key: Key) -> None:
        known, requested = self._cache.dataset(key), self._cache.mark()
        there = await self._cluster.get(Resource.DATASETS, key.namespace, key.name)
        if there is not None:
            self._cache.put(Resource.DATASETS, there, requested=requested)
        elif known is not None:
            self._cache.drop(Resource.DATASETS, known)

    async def _there(self, question: Callable[[], Awaitable[bool]]) -> None:
        """Repeat the check until it succeeds: the missing part may be installed after the operator."""
        logged = ""
        while True:
            pause = _POLL_SECONDS
            try:
                if await question():
                    return
                news = "The CRD is not installed; waiting for it."
            except ApiError as error:
                news, pause = _why_not(error), max(pause, error.retry_after)
            except REQUEST_ERRORS as error:
                news = _why_not(error)
            if news != logged:
                logger.warning(news)
                logged = news
            await asyncio.sleep(pause)

    async def _crd_is_back(self) -> None:
        """Wait until the CRD is installed again, and list everything."""
        await self._there(self._cluster.serves_datasets)
        await self._there(self._relist)

    async def _relist(self) -> bool:
        for resource in Resource:
            await self._list(resource)
        for key in self._cache.datasets():
            self._queue.add(key)
        self._listed = True
        return True

    async def _list(self, resource: Resource) -> Mapping[str | None, int]:
        """List a kind again; returns the version of each namespace's list."""
        for namespace in self._cluster.namespaces:
            listed: set[Name] = set()
            version, requested = 0, self._cache.mark()
            async for objects, reached in self._cluster.pages(resource, namespace):
                listed |= self._cache.put_page(resource, objects, requested=requested)
                version = version or reached
            self._cache.keep_listed(resource, namespace, listed, version, requested=requested)
            former, self._versions[resource][namespace] = self._versions[resource].get(namespace, 0), version
            if version < former:
                self._rewound(resource, namespace, version)
        return self._versions[resource]

    def _rewound(self, resource: Resource, namespace: str | None, version: int) -> None:
        """Begin every watch again: the API server will not reach their versions for a long time.

        All kinds are in one etcd, so the versions of datasets went back too. Kopf's watch does not notice by itself.
        """
        logger.warning(
            "The resourceVersions of %s went back to %d, as after etcd was restored from a snapshot: all objects are "
            "listed again, and all watches begin again.",
            resource.value,
            version,
        )
        self._datasets.begin_again()
        if (watch := self._watches.get((resource, namespace))) is not None:
            watch.rewind(version)
        self._connection.end_watches()
        self._resync_now.set()

    async def _list_and_look(self, resource: Resource) -> Mapping[str | None, int]:
        """List a kind again, and queue all datasets: a missed event may concern any of them."""
        versions = await self._list(resource)
        for key in self._cache.datasets():
            self._queue.add(key)
        return versions

    async def _resync(self) -> None:
        pause = min(_FIRST_RESYNC_SECONDS, self._settings.resync_interval)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._resync_now.wait()
            self._resync_now.clear()
            pause = self._settings.resync_interval
            if self._datasets.crd_missing:
                continue
            try:
                await self._relist()
            except REQUEST_ERRORS as error:
                logger.warning("The resync failed: %r", error)
                pause = min(pause, 30.0)

    def _stuck(self) -> str | None:
        longest = self._queue.schedule.longest_work(time.monotonic())
        if longest > self._settings.stuck_after:
            return f"a reconcile has taken {longest:.0f} s"
        waited = self._queue.schedule.oldest_age(time.monotonic())
        if waited > self._settings.stuck_after:
            return f"the first dataset in the queue has waited for {waited:.0f} s"
        return None

    def _not_ready(self) -> str | None:
        # A standby is ready, so that a rollout continues.
        if self._datasets.crd_missing:
            return f"the CRD {PLURAL}.{GROUP} is not installed"
        if self._listed or (self._election is not None and self._election.stands_by):
            return None
        return "not everything is listed yet"

    def _left(self) -> float:
        return math.inf if self._election is None else self._election.left()

    def _page(self) -> bytes:
        for resource in Resource:
            self._metrics.show_objects(resource, self._cache.count(resource))
        held = self._cache.true_conditions()
        for condition in ("Ready", "Reconciling", "Stalled", "Queued", "Suspended"):
            self._metrics.show_datasets(condition, held[condition])
        return self._metrics.page()


def _spare_garbage_collector() -> None:
    """Let the garbage collector skip what lasts as long as the process, and look less often at the rest.

    A reconcile leaves few cycles, but with Python's defaults their search takes a tenth of the process's CPU time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTIONS)


def _why_not(error: BaseException) -> str:
    if isinstance(error, ApiError) and error.code == 403:
        message = f"The operator has no permission: {error.message}"
        return f"{message}; apply operator/rbac.yaml, and bind it to the operator's user."
    if isinstance(error, ApiError):
        return f"The API server refuses the request: {error}"
    return f"The API server cannot be reached: {error!r}"


async def _unless_stopped(preparation: Coroutine[Any, Any, None]) -> bool:
    """Run the preparation; returns whether it ended before a SIGTERM. kopf handles signals only once it runs."""
    task = asyncio.ensure_future(preparation)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        return False
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
    return True
