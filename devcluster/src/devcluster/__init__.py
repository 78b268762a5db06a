"""A temporary Kubernetes cluster and MinIO for the demo, the tests and the benchmarks.

`Cluster` is imported on first use. The guard, the supervisor and the node agent are modules of this package too, and
they start several times in a test run. Without this import they start faster.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from devcluster.cluster import Cluster, ClusterError

__all__ = ["Cluster", "ClusterError"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from devcluster import cluster  # noqa: PLC0415  (the point of this function)

    return getattr(cluster, name)
