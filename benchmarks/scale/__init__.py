"""Measures the operator's cost for a thousand datasets, and how long datasets wait for the operator.

    python -m benchmarks.scale [--datasets 1000] [--rate 20]

Everything except the kubelets is real: etcd, API server, Job controller and scheduler of a temporary cluster, and the
operator in its own process with the rights of its Role. Datasets arrive at a fixed rate, also if a component is slow.
`kubelets` simulates the pods: it starts each pod that the scheduler binds, lets it run for a short time and ends it
with the termination message of a worker.

Figures of single requests come from the API server's audit log, with the server's clock. Figures of the process come
from /proc, and queue lengths from the operator's own metrics.
"""
