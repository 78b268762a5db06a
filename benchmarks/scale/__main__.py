"""`python -m benchmarks.scale`: see the docstring of the package."""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.scale import kubelets, reporting
from benchmarks.scale.measuring import NICE, Bench
from benchmarks.scale.operating import lower_priority, wait_until
from rich.console import Console

from devcluster import Cluster, ClusterError, kernel

ROOT = Path(__file__).parents[2]
REPETITIONS = 3
"""Number of short runs: their cost differs by a quarter from run to run, so the median by CPU time counts."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.scale", description="What a thousand datasets cost the operator.")
    parser.add_argument("--datasets", type=int, default=1000, help="the greatest number; a tenth and a hundredth too")
    parser.add_argument("--rate", type=float, default=20.0, help="arrivals in a second")
    parser.add_argument("--results", type=Path, default=reporting.RESULTS, help="where the figures go, as JSON")
    arguments = parser.parse_args()
    sizes = sorted({max(2, arguments.datasets // part) for part in (100, 10, 1)})
    began, load = time.monotonic(), os.getloadavg()[0]
    with Cluster.start(nodes=0) as cluster, played(cluster):
        for process in (cluster.controller_manager, cluster.scheduler):
            if process.pid is not None:
                lower_priority(process.pid, NICE)
        cluster.apply_file(ROOT / "crds" / "diffugen.dev_labeleddatasets.yaml")
        wait_until(lambda: _serves(cluster), "the CRD is served", within=30)
        cluster.apply_file(ROOT / "operator" / "rbac.yaml")
        bench = Bench(cluster, rate=arguments.rate)
        measured = []
        for size in sizes:
            print(f"{size} datasets …", file=sys.stderr, flush=True)
            last = size == sizes[-1]
            runs = [bench.measure(size, restart=last) for _ in range(1 if last else REPETITIONS)]
            measured.append(sorted(runs, key=lambda run: run.cpu_s or 0)[len(runs) // 2])
    report = reporting.report(measured, rate=arguments.rate, load=load, seconds=time.monotonic() - began)
    reporting.show(report, Console(width=110))
    reporting.write(report, arguments.results)
    return 0 if report.holds else 1


@contextlib.contextmanager
def played(cluster: Cluster) -> Iterator[None]:
    """Simulate the kubelets in a process that ends with the block and with this process."""
    kubeconfig = cluster.directory.kubeconfig_of("node")
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.scale.kubelets", str(kubeconfig)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=_in_the_background(),
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != kubelets.READY:
            raise SystemExit("the played kubelets did not start")
        yield
    finally:
        process.kill()
        process.wait()


def _serves(cluster: Cluster) -> bool:
    try:
        cluster.kubectl("get", "labeleddatasets", "--all-namespaces")
    except ClusterError:
        return False
    return True


def _in_the_background() -> Callable[[], None]:
    bound = kernel.die_with_parent()

    def in_child() -> None:
        bound()
        os.nice(NICE)

    return in_child


if __name__ == "__main__":
    sys.exit(main())
