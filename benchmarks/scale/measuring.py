"""One size of the benchmark: applies a number of datasets at a fixed rate and waits until all are Ready."""

from __future__ import annotations

import asyncio
import secrets
import signal
import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks.scale.auditing import OPERATOR, Quantiles, Trail
from benchmarks.scale.operating import NotInTimeError, OperatorProcess, cpu_seconds, wait_until

from devcluster import Cluster
from devcluster.kubeapi import ApiError, KubeApi

DRAIN_SECONDS = 240.0
"""The longest wait until all datasets are Ready, from the last arrival."""
REST_SECONDS = 60.0
NICE = 10
"""Niceness of processes that have their own processors on a real cluster: here they share two with the operator."""
WORK_SECONDS = 3.0
"""How long the pods of a dataset work, one after the other."""


@dataclass
class Measured:
    """The results of one size."""

    datasets: int
    ready: int = 0
    arrival_s: float = 0.0
    """Duration of the arrivals; datasets / rate if the API server was fast enough."""
    drain_s: float = 0.0
    """Seconds from the last arrival until all datasets were Ready."""
    apply_to_job: Quantiles | None = None
    job_to_status: Quantiles | None = None
    cpu_s: float = 0.0
    control_plane_cpu_s: dict[str, float] = field(default_factory=dict)
    """CPU seconds of the control plane's processes in the same time, by process."""
    rss_mb: float = 0.0
    writes: dict[str, int] = field(default_factory=dict)
    progress_writes: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    restart_to_ready_s: float | None = None
    restart_to_synced_s: float | None = None
    restart_rss_mb: float | None = None
    writes_at_rest: int | None = None
    fault: str = ""

    @property
    def cpu_per_dataset(self) -> float:
        """CPU seconds of the operator for one dataset from creation to deletion."""
        return self.cpu_s / self.datasets

    @property
    def writes_per_dataset(self) -> float:
        """The operator's writes for one dataset from creation to deletion, without those of progress."""
        return (sum(self.writes.values()) - self.progress_writes) / self.datasets


class Bench:
    """A cluster with simulated pods, and the measurements on it."""

    def __init__(self, cluster: Cluster, *, rate: float) -> None:
        self._cluster = cluster
        self._rate = rate

    def measure(self, datasets: int, *, restart: bool) -> Measured:
        """Measure this number of datasets; with `restart`, kill and start the operator afterwards."""
        namespace = f"scale-{datasets}-{secrets.token_hex(2)}"
        self._cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        log = self._cluster.directory.logs / f"{namespace}.log"
        operator = OperatorProcess(kubeconfig=self._cluster.operator_kubeconfig, namespace=namespace, log=log)
        measured = Measured(datasets=datasets)
        try:
            operator.start()
            self._live(operator, namespace, measured)
            if restart:
                self._restart(operator, namespace, measured)
        except NotInTimeError as error:
            measured.fault = str(error)
        finally:
            operator.end()
        return measured

    def _live(self, operator: OperatorProcess, namespace: str, measured: Measured) -> None:
        before, others = operator.cpu_seconds(), self._control_plane()
        measured.arrival_s = asyncio.run(self._arrive(namespace, measured.datasets))

        def all_ready() -> bool:
            measured.ready = int(operator.page().of("diffugen_operator_datasets", 'condition="Ready"'))
            return measured.ready == measured.datasets

        try:
            measured.drain_s = wait_until(all_ready, "all datasets are Ready", within=DRAIN_SECONDS, every=1)
            wait_until(lambda: _is_idle(operator), "nothing is in line", within=60, every=1)
        finally:
            measured.cpu_s = operator.cpu_seconds() - before
            after = self._control_plane()
            measured.control_plane_cpu_s = {name: round(after[name] - others[name], 2) for name in others}
            measured.rss_mb = operator.peak_megabytes()
            page = operator.page()
            self._read_audit(namespace, measured)
            measured.progress_writes = int(page.of("diffugen_operator_status_writes_total", 'kind="progress"'))

    def _control_plane(self) -> dict[str, float]:
        """Return the CPU seconds that the control plane's processes have taken, by name."""
        cluster = self._cluster
        processes = (cluster.etcd, cluster.apiserver, cluster.controller_manager, cluster.scheduler)
        return {process.name: cpu_seconds(process.pid) for process in processes if process.pid is not None}

    async def _arrive(self, namespace: str, datasets: int) -> float:
        """Apply datasets, one every 1/rate seconds, without waiting for the answers."""
        path = f"/apis/diffugen.dev/v1alpha1/namespaces/{namespace}/labeleddatasets"
        async with KubeApi.from_kubeconfig(self._cluster.kubeconfig) as api:
            began = time.monotonic()
            async with asyncio.TaskGroup() as tasks:
                for number in range(datasets):
                    await asyncio.sleep(began + number / self._rate - time.monotonic())
                    tasks.create_task(_create(api, path, manifest(number, namespace)))
            return time.monotonic() - began

    def _read_audit(self, namespace: str, measured: Measured) -> None:
        trail = Trail.read(self._cluster.audit_events(), namespace)
        measured.writes, measured.refused = dict(trail.writes), dict(trail.refused)
        if len(waits := trail.apply_to_job()) > 1:
            measured.apply_to_job = Quantiles.of(waits)
        if len(waits := trail.job_to_status()) > 1:
            measured.job_to_status = Quantiles.of(waits)

    def _restart(self, operator: OperatorProcess, namespace: str, measured: Measured) -> None:
        operator.end(signal.SIGKILL)
        measured.restart_to_ready_s = operator.start()

        def all_seen() -> bool:
            done = operator.page().of("diffugen_operator_reconciles_total", 'result="ok"')
            return done >= measured.datasets and _is_idle(operator)

        waited = wait_until(all_seen, "all datasets are reconciled once", within=60)
        measured.restart_to_synced_s = measured.restart_to_ready_s + waited
        before = self._writes(namespace)
        time.sleep(REST_SECONDS)
        measured.writes_at_rest = self._writes(namespace) - before
        measured.restart_rss_mb = operator.peak_megabytes()

    def _writes(self, namespace: str) -> int:
        return sum(event["objectRef"].get("namespace") == namespace for event in self._cluster.writes_of(OPERATOR))


def _is_idle(operator: OperatorProcess) -> bool:
    page = operator.page()
    return page.of("diffugen_operator_queue_depth") == page.of("diffugen_operator_events_waiting") == 0


async def _create(api: KubeApi, path: str, body: dict[str, Any]) -> None:
    for _ in range(5):
        try:
            await api.create(path, body)
        except ApiError as error:
            if error.status == 409:
                return
            await asyncio.sleep(1)
        else:
            return


def manifest(number: int, namespace: str) -> dict[str, Any]:
    """Return the dataset of this number: four templates over three variables, one stage, its own bucket."""
    return {
        "apiVersion": "diffugen.dev/v1alpha1",
        "kind": "LabeledDataset",
        "metadata": {"name": f"d{number}", "namespace": namespace},
        "spec": {
            "classes": [{"name": name} for name in ("ball", "square", "triangle", "star")],
            "image": {"width": 64, "height": 64},
            "prompts": {
                "templates": [
                    "a {color} {object} on {place}",
                    "a photo of a {color} {object} on {place}",
                ],
                "variables": {
                    "object": ["ball", "square", "triangle", "star"],
                    "color": ["red", "green", "blue"],
                    "place": ["snow", "stone", "sand"],
                },
                "samplesPerPrompt": 2,
            },
            "stages": [{"name": "base", "txt2img": {"model": "builtin://shapes", "steps": 20}}],
            "output": {
                "s3": {
                    "endpoint": "http://minio.minio.svc:9000",
                    "bucket": f"bucket-{number}",
                    "secretRef": {"name": "datasets-store"},
                },
                "formats": ["coco", "yolo"],
            },
            "run": {"parallelism": 2},
        },
    }
