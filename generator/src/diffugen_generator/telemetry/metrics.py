"""Prometheus metrics of a stage's pod, served at the pod's own address.

The operator reads the two shard gauges for progress, so their names are in the contract. Seconds, queue and GPU memory
are read at the time of a scrape. Without the pod's address in the environment, as on a laptop, nothing is served.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from diffugen_api.contract import (
    METRIC_IMAGES_DRAWN,
    METRIC_SHARD_DONE,
    METRIC_SHARD_SAMPLES,
    METRICS_PORT,
    ShardCounts,
)
from diffugen_generator.telemetry.progress import Clock, Meter
from diffugen_generator.telemetry.timings import Measures

LOG = logging.getLogger(__name__)


class _Served:
    """Metrics with a registry of their own."""

    registry: CollectorRegistry

    def serve(self, address: str, port: int = METRICS_PORT) -> None:
        """Serve at this address until the process ends; a failure to listen is only logged."""
        try:
            start_http_server(port, address, self.registry)
        except OSError as error:
            LOG.warning("no metrics: cannot listen on %s:%d (%s)", address, port, error)


class TrainingMetrics(_Served):
    """The metrics of a stage that trains a word. The gauges of a shard's samples count its steps."""

    def __init__(self) -> None:
        """Start with a training of unknown length."""
        self.registry = CollectorRegistry()
        self._steps = Gauge(METRIC_SHARD_SAMPLES, "Steps of this training.", registry=self.registry)
        self._done = Gauge(METRIC_SHARD_DONE, "Steps of this training that are done.", registry=self.registry)

    def update(self, step: int, steps: int) -> None:
        """Set the metrics to `step` of `steps`."""
        self._steps.set(steps)
        self._done.set(step)


class ShardMetrics(_Served):
    """The metrics of one shard."""

    def __init__(self, measures: Measures | None = None, clock: Clock = time.monotonic) -> None:
        """Start with a shard of unknown size; a scrape reads `measures`."""
        self.registry = CollectorRegistry()
        self.registry.register(_Measured(measures or Measures()))
        self._meter = Meter(clock)
        Gauge(
            "diffugen_images_per_second", "Samples done per second, over the last minute.", registry=self.registry
        ).set_function(lambda: self._meter.rate)
        self._samples = Gauge(METRIC_SHARD_SAMPLES, "Samples of this shard.", registry=self.registry)
        self._done = Gauge(METRIC_SHARD_DONE, "Samples of this shard that are done.", registry=self.registry)
        self._drawn = Counter(
            METRIC_IMAGES_DRAWN.removesuffix("_total"), "Images drawn by this pod.", registry=self.registry
        )
        self._states = Gauge(
            "diffugen_shard_samples_by_state", "Samples of this shard.", ["state"], registry=self.registry
        )
        self._counts = ShardCounts()

    def update(self, counts: ShardCounts) -> None:
        """Set the metrics to the progress of the shard."""
        self._samples.set(counts.total)
        self._done.set(done(counts))
        self._drawn.inc(max(0, counts.drawn - self._counts.drawn))
        self._meter.update(done(counts), counts.total)
        for state in ("drawn", "seen", "labelled", "reused", "skipped"):
            self._states.labels(state).set(getattr(counts, state))
        self._states.labels("missing").set(counts.total - done(counts))
        self._counts = counts


class _Measured(Collector):
    """Metrics that are read at each scrape."""

    def __init__(self, measures: Measures) -> None:
        self._measures = measures

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        spent = CounterMetricFamily("diffugen_part_seconds", "Seconds spent, by part; parts overlap.", labels=["part"])
        for part, seconds in self._measures.seconds.items():
            spent.add_metric([part], seconds)
        yield spent
        yield GaugeMetricFamily(
            "diffugen_queue_depth", "Samples that are drawn or seen and not stored yet.", self._measures.queued
        )
        if memory := gpu_memory():
            held = GaugeMetricFamily("diffugen_gpu_memory_bytes", "The GPU's memory.", labels=["kind"])
            for kind, size in memory.items():
                held.add_metric([kind], size)
            yield held


def gpu_memory() -> dict[str, int]:
    """Return bytes of GPU memory: in tensors, reserved by this process, the most reserved so far, and in total.

    Empty without a GPU, or before one is used.
    """
    torch = sys.modules.get(
        "torch"
    )  # a process that uses a GPU has imported torch; another thread may still be importing it
    cuda: Any = getattr(torch, "cuda", None)
    if not hasattr(cuda, "is_initialized") or not cuda.is_available() or not cuda.is_initialized():
        return {}
    return {
        "allocated": cuda.memory_allocated(),
        "reserved": cuda.memory_reserved(),
        "peak": cuda.max_memory_reserved(),
        "total": cuda.get_device_properties(cuda.current_device()).total_memory,
    }


def done(counts: ShardCounts) -> int:
    """Return how many samples of a shard are done."""
    return counts.done
