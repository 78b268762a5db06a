"""The operator's Prometheus metrics. No label names a dataset: cardinality stays constant."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The operator's metrics, in a separate registry."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.reconciles = Counter(
            "diffugen_operator_reconciles",
            "Reconciles by result: ok, waiting (for a child that is being deleted), conflict, error.",
            ["result"],
            registry=self._registry,
        )
        self.reconcile_seconds = Histogram(
            "diffugen_operator_reconcile_seconds",
            "How long a reconcile takes.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.requests = Counter(
            "diffugen_operator_api_requests",
            "Requests to the API server by verb and status code.",
            ["verb", "code"],
            registry=self._registry,
        )
        self.watch_restarts = Counter(
            "diffugen_operator_watch_restarts",
            "Watches that began again, by resource and by why the former one ended.",
            ["resource", "reason"],
            registry=self._registry,
        )
        self.status_writes = Counter(
            "diffugen_operator_status_writes",
            "Status writes by kind: transition, progress (only new numbers or wording).",
            ["kind"],
            registry=self._registry,
        )
        self.images = Counter(
            "diffugen_operator_images_generated",
            "Images that stages drew and labeled, by the statuses written since this process started.",
            registry=self._registry,
        )
        self._depth = self._gauge("diffugen_operator_queue_depth", "Datasets that wait for a reconcile.")
        self._age = self._gauge("diffugen_operator_queue_age_seconds", "How long the first of them has waited.")
        self._events = self._gauge("diffugen_operator_events_waiting", "Kubernetes Events that are not posted yet.")
        self._leader = self._gauge(
            "diffugen_operator_leader", "1 if this process is the leader, which reconciles and writes."
        )
        self._objects = Gauge(
            "diffugen_operator_objects", "Objects known, by resource.", ["resource"], registry=self._registry
        )
        self._datasets = Gauge(
            "diffugen_operator_datasets",
            "Datasets by the condition that is true.",
            ["condition"],
            registry=self._registry,
        )

    def count_request(self, verb: str, code: str) -> None:
        """Count a request to the API server."""
        self.requests.labels(verb, code).inc()

    def count_watch_restart(self, resource: str, reason: str) -> None:
        """Count a watch that begins again."""
        self.watch_restarts.labels(resource, reason).inc()

    def watch_queue(self, depth: Callable[[], float], age: Callable[[], float]) -> None:
        """Read the queue's state from these functions at each scrape."""
        self._depth.set_function(depth)
        self._age.set_function(age)

    def watch_events(self, waiting: Callable[[], float]) -> None:
        """Read from this function, at each scrape, how many Events are not posted yet."""
        self._events.set_function(waiting)

    def watch_leader(self, leading: Callable[[], bool]) -> None:
        """Read from this function, at each scrape, whether this process leads."""
        self._leader.set_function(lambda: float(leading()))

    def show_objects(self, resource: str, count: int) -> None:
        """Set how many objects of a kind are known."""
        self._objects.labels(resource).set(count)

    def show_datasets(self, condition: str, count: int) -> None:
        """Set how many datasets have a condition that is true."""
        self._datasets.labels(condition).set(count)

    def page(self) -> bytes:
        """Return the metrics as text."""
        return generate_latest(self._registry)

    def _gauge(self, name: str, help_text: str) -> Gauge:
        return Gauge(name, help_text, registry=self._registry)
