"""Where a cluster keeps its files, and how one tells a living cluster from what a dead one left.

Every cluster has a directory. The guard and the supervisor hold a lock on a file in it for as long as either
lives, so "is it alive" is asked of the kernel, never of a process id that may have been reused. Named
clusters (from the command line) live in the user's state directory, clusters owned by a process in the
temporary directory.
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
    """What a cluster shall be; written down for the supervisor."""

    name: str
    gpus: int = 2
    """Pretended GPUs of each node."""
    nodes: int = 1
    """None: a control plane alone; pods stay Pending."""
    images: tuple[str, ...] = ("diffugen/",)
    """Images whose reference, with or without a registry before it, starts so are present on the node."""
    node_monitor_grace_s: int = 40
    """How long a node may be silent before it is called NotReady; the API's own default."""
    unreachable_toleration_s: int = 300
    """How long pods stay on such a node before they are evicted; the API's own default."""
    owner_pid: int | None = None
    """The process whose death ends the cluster; None: it stays until `devcluster down`."""
    binaries: dict[str, str] = field(default_factory=dict)
    """Program name to path."""
    node_kind: str = "process"
    """`process`: an agent that runs containers as processes; `kubelet`: containerd and a kubelet, which need root."""
    subnet: str = ""
    """The first three numbers of the network of a node of kind kubelet."""
    node_path: str = ""
    """What the PATH of every container begins with."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a running cluster is; written by the supervisor once everything is up."""

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
        """Held by the guard and the supervisor while they live."""
        return self.path / "lock"

    @property
    def spec(self) -> Path:
        """The `ClusterSpec`, as JSON."""
        return self.path / "spec.json"

    @property
    def description(self) -> Path:
        """The `Description`, as JSON; there once the cluster is ready."""
        return self.path / "cluster.json"

    @property
    def control(self) -> Path:
        """The supervisor's Unix socket."""
        return self.path / "control"

    @property
    def kubeconfig(self) -> Path:
        """For the administrator."""
        return self.path / "kubeconfig"

    @property
    def certificates(self) -> Path:
        """Where the API server writes its certificate and key."""
        return self.path / "certificates"

    @property
    def data(self) -> Path:
        """What etcd and MinIO store."""
        return self.path / "data"

    @property
    def logs(self) -> Path:
        """One file for each of the cluster's processes, and the audit log."""
        return self.path / "logs"

    @property
    def audit_log(self) -> Path:
        """One JSON line for each request to the API server."""
        return self.logs / "audit.log"

    @property
    def pods(self) -> Path:
        """One directory for each pod: volumes, scratch, logs."""
        return self.path / "pods"

    @property
    def network_ready(self) -> Path:
        """There once a node of kind kubelet has its network, at which the API server listens."""
        return self.path / "network.ready"

    def node_ready(self, node: str) -> Path:
        """There while an agent has that node registered."""
        return self.path / f"{node}.ready"

    def kubeconfig_of(self, user: str) -> Path:
        """For one of the cluster's own users."""
        return self.path / f"{user}.kubeconfig"

    def log_of(self, process: str) -> Path:
        """What a process of the cluster wrote."""
        return self.logs / f"{process}.log"

    def write_spec(self, spec: ClusterSpec) -> None:
        """For the supervisor."""
        self.spec.write_text(json.dumps(asdict(spec)))

    def read_spec(self) -> ClusterSpec:
        """What the starter wanted."""
        fields = json.loads(self.spec.read_text())
        return ClusterSpec(**{**fields, "images": tuple(fields["images"])})

    def write_description(self, description: Description) -> None:
        """Appears at once and whole."""
        draft = self.description.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(description), indent=1))
        draft.rename(self.description)

    def read_description(self) -> Description:
        """What the cluster is."""
        return Description(**json.loads(self.description.read_text()))


def state_root() -> Path:
    """Where named clusters live."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "devcluster"


def owned_root() -> Path:
    """Where clusters that belong to a process live; one directory for each user, for /tmp is shared."""
    return Path(tempfile.gettempdir()) / f"devcluster-{os.getuid()}"


class AlreadyRunningError(RuntimeError):
    """A cluster holds this directory."""


def claim(path: Path) -> tuple[StateDirectory, IO[str]]:
    """Make the directory, clear of a dead cluster's rest, and lock it; the last copy's end frees it."""
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
    """Whether a guard or supervisor holds the lock."""
    try:
        with directory.lock.open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def directories() -> Iterator[StateDirectory]:
    """Every cluster's directory, living or not."""
    for root in (state_root(), owned_root()):
        if root.is_dir():
            yield from (
                StateDirectory(path) for path in sorted(root.iterdir()) if path.is_dir() and path.name[0] != "."
            )


def remove_stale() -> list[Path]:
    """Delete the directories of clusters that died without a chance to; says which."""
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
    """Between making a directory and locking it, nobody else may take it for a dead cluster's."""
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
