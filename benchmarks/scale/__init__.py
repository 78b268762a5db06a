"""What a thousand datasets cost the operator, and how long they wait for it.

    python -m benchmarks.scale [--datasets 1000] [--rate 20]

Everything is real but the kubelets: etcd, API server, Job controller and scheduler of a throwaway cluster, the
operator as a process of its own with the rights of its Role, and datasets that arrive at a fixed rate, whoever is
slow. Pods are played by `kubelets`, which start each pod that the scheduler binds, let it work for a moment and end
it with a worker's own last words.

What is told of single requests comes from the API server's audit log, by its own clock; what is told of the process
from /proc; what is in line from the operator's own metrics.
"""
