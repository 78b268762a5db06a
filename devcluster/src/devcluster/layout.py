"""The files of a cluster, and the check whether a cluster still runs.

Every cluster has a directory. The guard and the supervisor hold a lock on a file in it while either of them runs. So
the lock shows whether the cluster runs; a process id would not, because it can be reused. Directories of named clusters
(from the command line) are in the user's state directory, those of clusters that belong to a process in the temporary
directory.
"""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO


@dataclass(frozen=True, kw_only=True)
class ClusterSpec:
    """The settings of a cluster, written to a file for the supervisor."""

    name: str
    gpus: int = 2
    """Simulated GPUs of each node."""
    nodes: int = 1
    """With 0 nodes there is only a control plane, and pods stay Pending."""
    images: tuple[str, ...] = ("diffugen/",)
    """The node has all images whose reference, with or without a registry, starts with one of these."""
    node_monitor_grace_s: int = 40
    """How long a node may be silent before it is marked NotReady; the API's own default."""
    unreachable_toleration_s: int = 300
    """How long pods stay on such a node before they are evicted; the API's own default."""
    owner_pid: int | None = None
    """The cluster ends when this process ends; None: it runs until `devcluster down`."""
    binaries: dict[str, str] = field(default_factory=dict)
    """The path of each program by name."""
    node_kind: str = "process"
    """`process`: an agent that runs containers as processes; `kubelet`: containerd and a kubelet, which need root."""
    subnet: str = ""
    """The first three numbers of the network of a node of kind kubelet."""
    node_path: str = ""
    """The first folder in the PATH of every container."""
    store: str = "minio"
    """The object store: `minio`, or `versitygw`, an S3 gateway over a folder."""
    emulated_version: str = ""
    """The Kubernetes version whose features the API server has, such as 1.34; empty: its own."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """A running cluster: processes, addresses, credentials; the supervisor writes it when everything is ready."""

    name: str
    supervisor_pid: int
    owner_pid: int | None
    server: str
    minio_endpoint: str
    minio_access_key: str
    minio_secret_key: str
    nodes: int
    gpus: int
    ready_after_s: float


@dataclass(frozen=True)
class StateDirectory:
    """The files of one cluster."""

    path: Path

    @property
    def lock(self) -> Path:
        """The file that the guard and the supervisor lock while they run."""
        return self.path / "lock"

    @property
    def spec(self) -> Path:
        """The `ClusterSpec`, as JSON."""
        return self.path / "spec.json"

    @property
    def description(self) -> Path:
        """The `Description`, as JSON; it exists when the cluster is ready."""
        return self.path / "cluster.json"

    @property
    def control(self) -> Path:
        """The supervisor's Unix socket."""
        return self.path / "control"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.path / "kubeconfig"

    @property
    def certificates(self) -> Path:
        """The folder where the API server writes its certificate and key."""
        return self.path / "certificates"

    @property
    def data(self) -> Path:
        """The data of etcd and MinIO."""
        return self.path / "data"

    @property
    def logs(self) -> Path:
        """One file for each of the cluster's processes, and the audit log."""
        return self.path / "logs"

    @property
    def audit_log(self) -> Path:
        """The audit log: one JSON line for each request to the API server."""
        return self.logs / "audit.log"

    @property
    def pods(self) -> Path:
        """One directory for each pod: volumes, scratch, logs."""
        return self.path / "pods"

    def image_root(self, reference: str) -> Path:
        """Return the folder with the files of an image, for image volumes on a node of kind process.

        It does not exist if the node does not have the image. Images are known by the digest of NAME@sha256:DIGEST.
        """
        return self.path / "images" / (reference.partition("@sha256:")[2] or "unknown")

    @property
    def network_ready(self) -> Path:
        """A file that exists when a node of kind kubelet has its network, where the API server listens."""
        return self.path / "network.ready"

    def node_ready(self, node: str) -> Path:
        """Return a file that exists while an agent has this node registered."""
        return self.path / f"{node}.ready"

    def kubeconfig_of(self, user: str) -> Path:
        """Return the kubeconfig of one of the cluster's own users."""
        return self.path / f"{user}.kubeconfig"

    def log_of(self, process: str) -> Path:
        """Return the log of a process of the cluster."""
        return self.logs / f"{process}.log"

    def write_spec(self, spec: ClusterSpec) -> None:
        """Write the settings for the supervisor."""
        self.spec.write_text(json.dumps(asdict(spec)))

    def read_spec(self) -> ClusterSpec:
        """Read the settings."""
        fields = json.loads(self.spec.read_text())
        return ClusterSpec(**{**fields, "images": tuple(fields["images"])})

    def write_description(self, description: Description) -> None:
        """Write the description in one atomic step."""
        draft = self.description.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(description), indent=1))
        draft.rename(self.description)

    def read_description(self) -> Description:
        """Read the description."""
        return Description(**json.loads(self.description.read_text()))


def state_root() -> Path:
    """Return the folder of named clusters."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "devcluster"


def owned_root() -> Path:
    """Return the folder of clusters that belong to a process; one for each user, because /tmp is shared."""
    return Path(tempfile.gettempdir()) / f"devcluster-{os.getuid()}"


class AlreadyRunningError(RuntimeError):
    """A running cluster has this directory."""


def claim(path: Path) -> tuple[StateDirectory, IO[str]]:
    """Create the directory, without files of an ended cluster, and lock it until all copies of the lock are closed."""
    with _root_locked(path.parent):
        path.mkdir(exist_ok=True, mode=0o700)
        directory = StateDirectory(path)
        lock = _try_lock(directory)
        if lock is None:
            raise AlreadyRunningError(f"a cluster is running in {path}")
        _clear(directory)
    for part in (directory.certificates, directory.data, directory.logs, directory.pods):
        part.mkdir()
    return directory, lock


def is_alive(directory: StateDirectory) -> bool:
    """Return whether a guard or supervisor holds the lock."""
    try:
        with directory.lock.open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def directories() -> Iterator[StateDirectory]:
    """Yield every cluster's directory, also those of clusters that have ended."""
    for root in (state_root(), owned_root()):
        if root.is_dir():
            yield from (
                StateDirectory(path) for path in sorted(root.iterdir()) if path.is_dir() and path.name[0] != "."
            )


def remove_stale() -> list[Path]:
    """Delete the directories of clusters that were killed before they could do so; return them."""
    removed = []
    for root in filter(Path.is_dir, (state_root(), owned_root())):
        with _root_locked(root):
            for path in filter(Path.is_dir, list(root.iterdir())):
                lock = _try_lock(StateDirectory(path))
                if lock is None:
                    continue
                with lock:
                    shutil.rmtree(path, ignore_errors=True)
                removed.append(path)
    return removed


@contextmanager
def _root_locked(root: Path) -> Iterator[None]:
    """Lock the root, so that a new directory that is not locked yet is not deleted as that of an ended cluster."""
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _try_lock(directory: StateDirectory) -> IO[str] | None:
    lock = directory.lock.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def _clear(directory: StateDirectory) -> None:
    for entry in directory.path.iterdir():
        if entry == directory.lock:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink()
