"""Whichever process is killed, nothing of a throwaway cluster is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster import Cluster
from devcluster.layout import StateDirectory
from tests.cluster.pods import eventually, mentions, pod, shell

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

OWNER = """
import sys
from devcluster import Cluster
cluster = Cluster.start()
print(cluster.directory.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def owner() -> Iterator[subprocess.Popen[str]]:
    """Another process with its own cluster."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def test_nothing_is_left_after_the_owner_is_killed(cluster: Cluster, owner: subprocess.Popen[str]) -> None:
    assert owner.stdout is not None
    directory = StateDirectory(Path(owner.stdout.readline().strip()))
    mark = directory.path.name
    other = Cluster(directory)
    assert other.server != cluster.server
    other.apply(pod("default", shell("sleep 60 & wait", env=[{"name": "MARK", "value": mark}])))
    other.kubectl("wait", "--for=condition=Ready", "pod/pod", "--timeout=50s")
    assert len(mentions(mark)) >= 10, "guard, supervisor, six processes, a shell and what it forked"

    owner.kill()

    eventually(lambda: not mentions(mark) and not directory.path.exists(), within_s=20)
    assert cluster.kubectl("get", "--raw", "/readyz") == "ok"


@pytest.mark.parametrize("victim", ["supervisor", "guard"])
def test_nothing_is_left_after_the_supervisor_is_killed(victim: str) -> None:
    running = Cluster.start(nodes=0)
    directory = running.directory.path
    supervisor = json.loads((directory / "cluster.json").read_text())["supervisor_pid"]
    guard = int(Path(f"/proc/{supervisor}/stat").read_text().rpartition(")")[2].split()[1])

    os.kill(supervisor if victim == "supervisor" else guard, signal.SIGKILL)

    eventually(lambda: not mentions(directory.name) and not directory.exists(), within_s=20)
    running.stop()
