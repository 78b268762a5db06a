"""Starts and controls a cluster from a program: a test, a benchmark, the demo.

    with devcluster.Cluster.start(gpus=2) as cluster:
        cluster.kubectl("get", "pods", "-A")

The cluster belongs to the process that started it and ends with that process, also if it is killed.
"""

import json
import os
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import urlsplit

from minio import Minio

from devcluster.audit import audit_events, is_write, user_of
from devcluster.building import ConsoleReporter, Reporter
from devcluster.controlplane import node_names
from devcluster.diagnosis import diagnose
from devcluster.ending import ClusterError, take_down
from devcluster.faults import ClusterProcess
from devcluster.kubeapi import JsonObject
from devcluster.launching import launch
from devcluster.layout import ClusterSpec, StateDirectory, is_alive, owned_root, remove_stale, state_root
from devcluster.reading import ObjectReader

__all__ = ["Cluster", "ClusterError", "MinioAccess"]


@dataclass(frozen=True, kw_only=True)
class MinioAccess:
    """The object store's address and credentials."""

    endpoint: str
    """`http://127.0.0.1:PORT`"""
    access_key: str
    secret_key: str

    def client(self) -> Minio:
        """Return a client with all rights."""
        return Minio(
            urlsplit(self.endpoint).netloc,
            access_key=self.access_key,
            secret_key=self.secret_key,
            secure=False,
        )


class Cluster:
    """A running cluster."""

    def __init__(self, directory: StateDirectory) -> None:
        description = directory.read_description()
        self.name = description.name
        self.directory = directory
        self.server = description.server
        """The API server's address."""
        self.gpus = description.gpus
        self.ready_after_s = description.ready_after_s
        """Duration of the start."""
        self.owner_pid = description.owner_pid
        self.kubeconfig = directory.kubeconfig
        """The administrator's kubeconfig."""
        self.operator_kubeconfig = directory.kubeconfig_of("operator")
        """The kubeconfig of the user `operator`, who has no rights until a role is bound to that name."""
        self.minio = MinioAccess(
            endpoint=description.minio_endpoint,
            access_key=description.minio_access_key,
            secret_key=description.minio_secret_key,
        )
        self.etcd = ClusterProcess("etcd", directory)
        self.apiserver = ClusterProcess("apiserver", directory)
        self.controller_manager = ClusterProcess("controller-manager", directory)
        self.scheduler = ClusterProcess("scheduler", directory)
        self.minio_process = ClusterProcess(directory.read_spec().store, directory)
        self.nodes = [ClusterProcess(name, directory) for name in node_names(description.nodes)]
        self._reader = ObjectReader(self.kubeconfig)
        self.kubectl_path = Path(directory.read_spec().binaries["kubectl"])
        self._guard: subprocess.Popen[str] | None = None

    @classmethod
    def start(
        cls,
        *,
        gpus: int = 2,
        nodes: int = 1,
        images: Sequence[str] = ("diffugen/",),
        node_kind: str = "process",
        node_monitor_grace_s: int = 40,
        unreachable_toleration_s: int = 300,
        owner_pid: int | None = None,
        store: str = "minio",
        emulated_version: str = "",
        report: Reporter | None = None,
    ) -> Self:
        """Start a cluster that belongs to this process, or to `owner_pid`; return when all of it is usable.

        A test of node loss needs a shorter grace (how long a node may be silent) and toleration (how long its pods
        then stay) than the default 40 s and 5 min. It also needs two nodes: Kubernetes evicts no pods if all nodes are
        lost.
        """
        remove_stale()
        path = owned_root() / secrets.token_hex(4)
        spec = ClusterSpec(
            name=path.name,
            gpus=gpus,
            nodes=nodes,
            images=tuple(images),
            node_kind=node_kind,
            node_monitor_grace_s=node_monitor_grace_s,
            unreachable_toleration_s=unreachable_toleration_s,
            owner_pid=owner_pid or os.getpid(),
            store=store,
            emulated_version=emulated_version,
        )
        directory, guard = launch(spec, path, report or ConsoleReporter())
        cluster = cls(directory)
        cluster._guard = guard
        return cluster

    @classmethod
    def up(cls, spec: ClusterSpec, report: Reporter) -> Self:
        """Start a cluster with a name, which runs until `devcluster down`."""
        remove_stale()
        directory, _ = launch(spec, state_root() / spec.name, report)
        return cls(directory)

    @classmethod
    def named(cls, name: str) -> Self:
        """Return a cluster that `up` has started. Raises `ClusterError` if there is none."""
        directory = StateDirectory(state_root() / name)
        if not (is_alive(directory) and directory.description.exists()):
            raise ClusterError(f"no cluster {name!r} is up")
        return cls(directory)

    @property
    def node(self) -> ClusterProcess:
        """The first node."""
        return self.nodes[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the cluster and wait until nothing of it is left; do nothing if it has ended already."""
        take_down(self.directory)
        if self._guard is not None:
            self._guard.wait()

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout_s: float = 60) -> str:
        """Return the output of kubectl, run as the administrator. Raises `ClusterError` with kubectl's error."""
        # Its own cache folder: in the user's cache, every cluster would leave a directory.
        cache = self.directory.path / "kubectl-cache"
        command = [str(self.kubectl_path), f"--kubeconfig={self.kubeconfig}", f"--cache-dir={cache}", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False)
        if done.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, *manifests: Mapping[str, Any]) -> None:
        """`kubectl apply` of objects."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(items))

    def apply_file(self, path: Path) -> None:
        """`kubectl apply` of a manifest file."""
        self.kubectl("apply", "-f", str(path))

    def get(self, resource: str, name: str, *, namespace: str = "") -> JsonObject:
        """Return one object; `resource` as in `kubectl get`. Raises `ClusterError` if it does not exist."""
        return self._reader.get(resource, name, namespace=namespace)

    def items(self, resource: str, *, namespace: str = "", selector: str = "") -> list[JsonObject]:
        """Return the objects of a type, of one namespace or of all. Raises `ClusterError`."""
        return self._reader.items(resource, namespace=namespace, selector=selector)

    def import_image(self, archive: IO[bytes]) -> None:
        """Import an image from a docker or OCI archive, a file or a pipe, into a node of kind kubelet.

        Raises `ClusterError`.
        """
        self._ctr("images", "import", "--discard-unpacked-layers", "--local", "-", stdin=archive)

    def name_image(self, image: str, name: str) -> None:
        """Give an image of a node of kind kubelet another name. Raises `ClusterError`."""
        self._ctr("images", "tag", image, name)

    def _ctr(self, *arguments: str, stdin: IO[bytes] | None = None) -> None:
        ctr = self.directory.read_spec().binaries["ctr"]
        socket = self.directory.path / self.node.name / "containerd.sock"
        command = [ctr, f"--address={socket}", "--namespace=k8s.io", *arguments]
        done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ClusterError(f"ctr {' '.join(arguments)}: {done.stderr.strip()}")

    def add_image(self, reference: str, root: Path) -> None:
        """Let image volumes on a node of kind process have the image `NAME@sha256:DIGEST`, with the files of `root`."""
        folder = self.directory.image_root(reference)
        folder.parent.mkdir(exist_ok=True)
        folder.symlink_to(root)

    def pod_log(self, namespace: str, pod: str, container: str | None = None) -> str:
        """Return the log of a pod's containers, or of one of them; also after the pod's end."""
        logs = sorted(self.directory.pods.glob(f"{namespace}_{pod}_*/{container or '*'}.log"))
        return "".join(log.read_text(errors="replace") for log in logs)

    def audit_events(self, user: str | None = None) -> list[JsonObject]:
        """Return every request that the API server has answered, from its audit log; with `user`, only that user's."""
        events = audit_events(self.directory.audit_log)
        return [event for event in events if user is None or user_of(event) == user]

    def writes_of(self, user: str) -> list[JsonObject]:
        """Return a user's write requests."""
        return [event for event in self.audit_events(user) if is_write(event)]

    def diagnose(self) -> str:
        """Return nodes, Jobs, pods, events and the ends of all logs, for a failed test's report."""
        return diagnose(self.directory, self.kubectl)

    def make_bucket(self, name: str) -> None:
        """Create a bucket."""
        self.minio.client().make_bucket(name)
