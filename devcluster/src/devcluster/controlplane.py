"""The command line of each process of a cluster, and the check that it is ready.

The supervisor starts the processes and decides their order and restarts.
"""

import os
import secrets
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from devcluster.layout import ClusterSpec, StateDirectory

# The default of 20 requests a second is for clusters that many people share. Here, tests would wait for this limit and
# benchmarks would measure it.
_UNTHROTTLED = ("--kube-api-qps=500", "--kube-api-burst=1000")

KUBELET = "kubelet"
"""The node kind that runs containerd and a kubelet."""

GOGC = "400"
"""The variable GOGC of the processes that are written in Go, unless the user has set it. With 400, garbage is collected
when the heap is five times as large as what is in use; Go's default, 100, is two times. The heaps here are small and
change fast: the start of a cluster takes 16 % less CPU time."""

_AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: None
    nonResourceURLs: ["*"]
  - level: Metadata
"""


@dataclass(frozen=True, kw_only=True)
class Ports:
    """The ports of the cluster's servers; they listen on 127.0.0.1 unless stated otherwise."""

    etcd: int
    etcd_peer: int
    apiserver: int
    minio: int
    address: str = "127.0.0.1"
    """The API server's address; if the node has its own network, an address that its pods can reach."""

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://{self.address}:{self.apiserver}"

    @property
    def minio_endpoint(self) -> str:
        """MinIO's URL."""
        return f"http://127.0.0.1:{self.minio}"


@dataclass(frozen=True, kw_only=True)
class MinioKeys:
    """MinIO's root credentials."""

    access_key: str
    secret_key: str

    @classmethod
    def random(cls) -> "MinioKeys":
        """Return new credentials."""
        return cls(access_key=secrets.token_hex(8), secret_key=secrets.token_hex(20))


@dataclass(frozen=True, kw_only=True)
class ProcessSpec:
    """One process of the cluster."""

    name: str
    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    needs: Path | None = None
    """A file that must exist before the process can start."""
    after: str | None = None
    """A process that must be ready first."""
    health: str | None = None
    """A URL that answers 200 when the process is ready."""
    ready: Path | None = None
    """A file that the process writes when it is ready."""


def write_audit_policy(path: Path) -> None:
    """Write a policy that records every request without its body."""
    path.write_text(_AUDIT_POLICY)


def process_specs(spec: ClusterSpec, directory: StateDirectory, ports: Ports, keys: MinioKeys) -> list[ProcessSpec]:
    """Return every process of the cluster, in no particular order: each waits for those that it needs."""
    specs = [
        _etcd(spec, directory, ports),
        _apiserver(spec, directory, ports),
        _controller_manager(spec, directory),
        _scheduler(spec, directory),
        STORES[spec.store](spec, directory, ports, keys),
    ]
    seldom = {"GOGC": os.environ.get("GOGC", GOGC)}
    specs = [replace(each, environment={**seldom, **each.environment}) for each in specs]
    node = _kubelet_node if spec.node_kind == KUBELET else _node
    return specs + [node(name, directory) for name in node_names(spec.nodes)]


def node_names(count: int) -> list[str]:
    """Return the names of the nodes, which are also the names of their processes."""
    return [f"node-{number}" for number in range(count)]


def _etcd(spec: ClusterSpec, directory: StateDirectory, ports: Ports) -> ProcessSpec:
    client, peer = f"http://127.0.0.1:{ports.etcd}", f"http://127.0.0.1:{ports.etcd_peer}"
    return ProcessSpec(
        name="etcd",
        command=[
            spec.binaries["etcd"],
            f"--data-dir={directory.data / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",  # the data is temporary, so no write waits for the disk
            "--log-level=warn",
        ],
        health=f"{client}/health",
    )


def _apiserver(spec: ClusterSpec, directory: StateDirectory, ports: Ports) -> ProcessSpec:
    policy = directory.path / "audit-policy.yaml"
    write_audit_policy(policy)
    # The server creates its serving certificate and key before it reads the service-account keys. So one pair is used
    # for both, and no other code creates keys.
    pair = directory.certificates / "apiserver"
    return ProcessSpec(
        name="apiserver",
        command=[
            spec.binaries["kube-apiserver"],
            f"--etcd-servers=http://127.0.0.1:{ports.etcd}",
            f"--cert-dir={directory.certificates}",
            f"--secure-port={ports.apiserver}",
            f"--bind-address={ports.address}",
            f"--advertise-address={ports.address}",
            "--service-cluster-ip-range=10.99.0.0/16",
            "--allow-privileged=true",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pair}.key",
            f"--service-account-signing-key-file={pair}.key",
            f"--token-auth-file={directory.path / 'tokens.csv'}",
            "--authorization-mode=Node,RBAC",
            # Endpoints of the Service `kubernetes`: only pods use them, and loopback addresses are not allowed.
            f"--endpoint-reconciler-type={'lease' if spec.node_kind == KUBELET else 'none'}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--default-unreachable-toleration-seconds={spec.unreachable_toleration_s}",
            f"--default-not-ready-toleration-seconds={spec.unreachable_toleration_s}",
            f"--audit-policy-file={policy}",
            f"--audit-log-path={directory.audit_log}",
            "--audit-log-maxsize=4096",  # megabytes: never rotated, so that counting reads one file
            *([f"--emulated-version={spec.emulated_version}"] if spec.emulated_version else []),
        ],
        needs=directory.network_ready if spec.node_kind == KUBELET else None,
    )


def _controller_manager(spec: ClusterSpec, directory: StateDirectory) -> ProcessSpec:
    pair = directory.certificates / "apiserver"
    return ProcessSpec(
        name="controller-manager",
        command=[
            spec.binaries["kube-controller-manager"],
            f"--kubeconfig={directory.kubeconfig_of('controller-manager')}",
            f"--service-account-private-key-file={pair}.key",
            f"--root-ca-file={pair}.crt",
            "--secure-port=0",
            "--leader-elect=false",
            "--controllers=*,-nodeipam,-cloud-node-lifecycle-controller",
            f"--node-monitor-grace-period={spec.node_monitor_grace_s}s",
            f"--node-monitor-period={spec.node_monitor_grace_s / 8}s",  # as usual: 5 s of 40
            *_UNTHROTTLED,
        ],
        after="apiserver",  # it ends after 10 s without an API server, and on a busy machine that can take longer
    )


def _scheduler(spec: ClusterSpec, directory: StateDirectory) -> ProcessSpec:
    return ProcessSpec(
        name="scheduler",
        command=[
            spec.binaries["kube-scheduler"],
            f"--kubeconfig={directory.kubeconfig_of('scheduler')}",
            "--secure-port=0",
            "--leader-elect=false",
            *_UNTHROTTLED,
        ],
        needs=directory.certificates / "apiserver.key",
    )


def _minio(spec: ClusterSpec, directory: StateDirectory, ports: Ports, keys: MinioKeys) -> ProcessSpec:
    return ProcessSpec(
        name="minio",
        command=[
            spec.binaries["minio"],
            "server",
            f"--address=127.0.0.1:{ports.minio}",
            f"--certs-dir={directory.certificates / 'minio'}",  # otherwise it creates one in the user's home
            "--quiet",
            str(directory.data / "minio"),
        ],
        environment={
            "MINIO_ROOT_USER": keys.access_key,
            "MINIO_ROOT_PASSWORD": keys.secret_key,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
            "MINIO_CI_CD": "on",  # allows any file system
        },
        health=f"{ports.minio_endpoint}/minio/health/live",
    )


def _versitygw(spec: ClusterSpec, directory: StateDirectory, ports: Ports, keys: MinioKeys) -> ProcessSpec:
    folder = directory.data / "versitygw"
    for each in ("objects", "metadata"):
        (folder / each).mkdir(parents=True, exist_ok=True)
    return ProcessSpec(
        name="versitygw",
        command=[
            spec.binaries["versitygw"],
            f"--port=127.0.0.1:{ports.minio}",
            f"--health={_HEALTH}",
            "--keep-alive",
            "--quiet",
            "posix",
            f"--sidecar={folder / 'metadata'}",  # not every file system has extended attributes
            str(folder / "objects"),
        ],
        environment={"ROOT_ACCESS_KEY": keys.access_key, "ROOT_SECRET_KEY": keys.secret_key},
        health=f"{ports.minio_endpoint}{_HEALTH}",
    )


_HEALTH = "/health-of-the-gateway"
"""The path at which VersityGW answers when it is up; it hides a bucket of this name."""
STORES: Mapping[str, Callable[[ClusterSpec, StateDirectory, Ports, MinioKeys], ProcessSpec]] = {
    "minio": _minio,
    "versitygw": _versitygw,
}
"""The object stores that a cluster can have."""


def _kubelet_node(name: str, directory: StateDirectory) -> ProcessSpec:
    namespaces = ["unshare", "--net", "--mount", "--propagation", "private"]
    return ProcessSpec(
        name=name,
        command=[*namespaces, sys.executable, "-m", "devcluster.kubelet", str(directory.path), name],
        ready=directory.node_ready(name),
    )


def _node(name: str, directory: StateDirectory) -> ProcessSpec:
    return ProcessSpec(
        name=name,
        command=[sys.executable, "-m", "devcluster.node", str(directory.path), name],
        needs=directory.certificates / "apiserver.key",
        ready=directory.node_ready(name),
    )
