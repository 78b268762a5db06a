"""Starts a cluster: locks its directory, starts the guard, waits until the supervisor reports that it is ready."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from devcluster.binaries import Tool, ensure_binaries, ensure_tool
from devcluster.building import Reporter
from devcluster.controlplane import KUBELET, STORES
from devcluster.ending import ClusterError, take_down
from devcluster.kubelet.network import choose_network
from devcluster.kubelet.requirements import missing_for_a_node
from devcluster.layout import ClusterSpec, StateDirectory, claim


def launch(spec: ClusterSpec, path: Path, report: Reporter) -> "tuple[StateDirectory, subprocess.Popen[str]]":
    """Start the cluster of `spec` in `path`; return its files and its guard. Raises `ClusterError`."""
    if spec.store not in STORES:
        raise ClusterError(f"there is no store {spec.store!r}; there are {', '.join(STORES)}")
    if spec.node_kind == KUBELET:
        spec = _with_a_network(spec, path)
    found = ensure_binaries(report)
    programs = {
        "etcd": found.etcd,
        "kube-apiserver": found.kube_apiserver,
        "kube-controller-manager": found.kube_controller_manager,
        "kube-scheduler": found.kube_scheduler,
        "kubectl": found.kubectl,
        "minio": found.minio,
    }
    if spec.store == "versitygw":
        programs["versitygw"] = ensure_tool(Tool.VERSITYGW, report) / "versitygw"
    if spec.node_kind == KUBELET:
        programs |= _node_programs(report)
    complete = replace(
        spec,
        binaries={name: str(program) for name, program in programs.items()},
        # The folder of this environment's console scripts: it replaces the image of every container.
        node_path=spec.node_path or str(Path(sys.executable).parent),
    )
    directory, lock = claim(path)
    with lock:
        directory.write_spec(complete)
        guard = _start_guard(directory, lock.fileno())
    assert guard.stdout is not None
    try:
        with guard.stdout as progress:
            answer = json.loads(progress.readline() or '{"state": "failed", "text": "the supervisor died"}')
    except BaseException:  # also an interrupt: otherwise the cluster would run without an owner
        guard.kill()  # when the guard ends, the supervisor ends everything
        take_down(directory)
        raise
    if answer["state"] != "ready":
        guard.wait()
        raise ClusterError(f"the cluster did not start: {answer['text']}")
    return directory, guard


def _with_a_network(spec: ClusterSpec, path: Path) -> ClusterSpec:
    if missing := missing_for_a_node():
        raise ClusterError(missing)
    if spec.nodes != 1:
        raise ClusterError(f"a cluster has one node of kind kubelet, not {spec.nodes}")
    return replace(spec, subnet=choose_network(str(path)).subnet)


def _node_programs(report: Reporter) -> dict[str, Path]:
    """Return the programs of a real node by name; compile those that are not in the cache."""
    tools = (Tool.KUBELET, Tool.CONTAINERD, Tool.COREDNS, Tool.PAUSE)
    return {name: ensure_tool(tool, report) / name for tool in tools for name in tool.value.packages}


def _start_guard(directory: StateDirectory, lock: int) -> "subprocess.Popen[str]":
    with directory.log_of("supervisor").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "devcluster.guard", str(directory.path), str(lock)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd="/",
            env=_clean_environment(),
            pass_fds=[lock],
            start_new_session=True,
        )


def _clean_environment() -> dict[str, str]:
    """Return the environment without variables that name another cluster or store."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("KUBE", "MINIO_"))}
