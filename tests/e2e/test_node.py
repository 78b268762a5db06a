"""The node itself: it runs pods as a kubelet does, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from devcluster import Cluster
from devcluster.kubelet.archives import write_image
from devcluster.kubelet.cgroups import cgroup_of
from tests.e2e.installation import RESTRICTED


def traces(subnet: str, folder: Path) -> list[str]:
    """The parts of a node that are still on this machine."""
    name = cgroup_of(subnet)
    found = [
        str(path)
        for path in (Path("/sys/fs/cgroup") / name, *Path("/sys/fs/cgroup").glob(f"*/{name}"))
        if path.exists()
    ]
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if str(folder) in line]
    for command in (["ip", "-o", "addr"], ["ip", "route"], ["iptables-save"]):
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found += [line for line in printed.splitlines() if f"{subnet}." in line]
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in process.read_bytes():
                found.append(process.parent.name)
        except OSError:
            continue
    return [*found, *([str(folder)] if folder.exists() else [])]


def run_a_pod(cluster: Cluster, scratch: Path) -> None:
    """A pod of an image with one static program, under `restricted`, that requests a simulated GPU."""
    archive = scratch / "kubectl.tar"
    program = Path(cluster.directory.read_spec().binaries["pause"])
    write_image(archive, reference="docker.io/tests/pause:1", files={"/pause": program}, entrypoint=["/pause"])
    with archive.open("rb") as file:
        cluster.import_image(file)
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "pods", "labels": RESTRICTED}})
    container = {
        "name": "pause",
        "image": "tests/pause:1",
        "resources": {"limits": {"nvidia.com/gpu": "1"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "pause", "namespace": "pods"},
            "spec": {
                "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [container],
            },
        }
    )
    cluster.kubectl("wait", "-n", "pods", "--for=condition=Ready", "pod/pause", "--timeout=60s", timeout_s=90)


def test_a_pod_runs_and_nothing_is_left_after_the_end(tmp_path: Path) -> None:
    with Cluster.start(node_kind="kubelet") as cluster:
        run_a_pod(cluster, tmp_path)
        subnet, folder = cluster.directory.read_spec().subnet, cluster.directory.path
        assert traces(subnet, folder)

    assert traces(subnet, folder) == []


def test_nothing_is_left_when_the_owner_is_killed() -> None:
    script = (
        "import time\n"
        "from devcluster import Cluster\n"
        "cluster = Cluster.start(node_kind='kubelet')\n"
        "print(cluster.directory.read_spec().subnet, cluster.directory.path, flush=True)\n"
        "time.sleep(3600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        subnet, folder = owner.stdout.readline().split()
        assert traces(subnet, Path(folder))
        os.kill(owner.pid, signal.SIGKILL)

    end = time.monotonic() + 120
    while traces(subnet, Path(folder)) and time.monotonic() < end:
        time.sleep(0.5)
    assert traces(subnet, Path(folder)) == []
