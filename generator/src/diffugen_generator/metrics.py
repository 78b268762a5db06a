"""What a stage's pod tells while it works: Prometheus metrics at the pod's own address.

The operator reads the two shard gauges for progress, so their names are in the contract. Nobody listens on a
laptop: without the pod's address in the environment nothing is served.
"""

from __future__ import annotations

import logging

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from diffugen_api.contract import (
    METRIC_IMAGES_DRAWN,
    METRIC_SHARD_DONE,
    METRIC_SHARD_SAMPLES,
    METRICS_PORT,
    ShardCounts,
)

LOG = logging.getLogger(__name__)


class ShardMetrics:
    """The metrics of one shard."""

    def __init__(self) -> None:
        """Begin with a shard of unknown size."""
        self.registry = CollectorRegistry()
        self._samples = Gauge(METRIC_SHARD_SAMPLES, "Samples that this shard has.", registry=self.registry)
        self._done = Gauge(METRIC_SHARD_DONE, "Samples of this shard that are done.", registry=self.registry)
        self._drawn = Counter(
            METRIC_IMAGES_DRAWN.removesuffix("_total"), "Pictures drawn by this pod.", registry=self.registry
        )
        self._states = Gauge(
            "diffugen_shard_samples_by_state", "Samples of this shard.", ["state"], registry=self.registry
        )
        self._counts = ShardCounts()

    def update(self, counts: ShardCounts) -> None:
        """Show how far the shard is."""
        self._samples.set(counts.total)
        self._done.set(done(counts))
        self._drawn.inc(max(0, counts.drawn - self._counts.drawn))
        for state in ("drawn", "seen", "labelled", "reused", "skipped"):
            self._states.labels(state).set(getattr(counts, state))
        self._counts = counts

    def serve(self, address: str, port: int = METRICS_PORT) -> None:
        """Serve at this address until the process ends; work goes on where that cannot be had."""
        try:
            start_http_server(port, address, self.registry)
        except OSError as error:
            LOG.warning("no metrics: %s:%d cannot be listened on (%s)", address, port, error)


def done(counts: ShardCounts) -> int:
    """Return how many samples of a shard are done."""
    return counts.done
