"""The programs of a cluster, compiled once from pinned modules and kept in a cache.

`modules/` has Go modules whose go.mod and go.sum pin every byte that is compiled. A cache directory is named by a hash
of those files and of the build flags, so a changed pin never uses an old binary. Each tool that no cluster needs
(`Tool`) has its own directory, so a change of its pin does not rebuild Kubernetes. With a lock, one process builds
while others wait for it. A binary gets its name only when it is complete.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from devcluster import toolchain
from devcluster.building import Reporter, build_packages

KUBERNETES_VERSION = "v1.36.3"
_VERSION_FLAG = "-X k8s.io/component-base/version."
_MODULES = Path(__file__).parent / "modules"


@dataclass(frozen=True, kw_only=True)
class Module:
    """A wrapper module and the programs that are built from it."""

    name: str
    ldflags: str
    packages: dict[str, str]
    """Binary name to package path."""

    @property
    def directory(self) -> Path:
        """The folder of its go.mod."""
        return _MODULES / self.name


_KUBERNETES = Module(
    name="kubernetes",
    # Without the version flags the API server reports v0.0.0.
    ldflags=" ".join(
        [
            "-s -w",
            f"{_VERSION_FLAG}gitVersion={KUBERNETES_VERSION}",
            f"{_VERSION_FLAG}gitMajor={KUBERNETES_VERSION[1:].split('.', maxsplit=1)[0]}",
            f"{_VERSION_FLAG}gitMinor={KUBERNETES_VERSION.split('.')[1]}",
        ]
    ),
    packages={
        "etcd": "go.etcd.io/etcd/server/v3",
        "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
        "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
        "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
        "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    },
)
_MINIO = Module(name="minio", ldflags="-s -w", packages={"minio": "github.com/minio/minio"})
_ALL_MODULES = (_KUBERNETES, _MINIO)
_HELM_VERSION = "v3.22.0"


class Tool(Enum):
    """A program that tests use in addition to the cluster, compiled when it is first needed."""

    HELM = Module(
        name="helm",
        ldflags=" ".join(
            [
                f"-s -w -X helm.sh/helm/v3/internal/version.version={_HELM_VERSION}",
                # The cluster version that `helm template` and `helm lint` assume without a cluster.
                *(
                    f"-X helm.sh/helm/v3/{package}.k8sVersion{part}={number}"
                    for package in ("pkg/lint/rules", "pkg/chartutil")
                    for part, number in zip(("Major", "Minor"), KUBERNETES_VERSION[1:].split(".")[:2], strict=True)
                ),
            ]
        ),
        packages={"helm": "helm.sh/helm/v3/cmd/helm"},
    )
    KUBELET = Module(
        name="kubelet",
        ldflags=_KUBERNETES.ldflags,
        packages={
            "kubelet": "k8s.io/kubernetes/cmd/kubelet",
            "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
        },
    )
    CONTAINERD = Module(
        name="containerd",
        ldflags="-s -w",
        packages={
            program: f"github.com/containerd/containerd/v2/cmd/{program}"
            for program in ("containerd", "containerd-shim-runc-v2", "ctr")
        },
    )
    COREDNS = Module(name="coredns", ldflags="-s -w", packages={"coredns": "github.com/coredns/coredns"})
    PAUSE = Module(name="pause", ldflags="-s -w", packages={"pause": "devcluster/pause"})
    ACTIONLINT = Module(
        name="actionlint", ldflags="-s -w", packages={"actionlint": "github.com/rhysd/actionlint/cmd/actionlint"}
    )
    KUEUE = Module(name="kueue", ldflags="-s -w", packages={"kueue": "sigs.k8s.io/kueue/cmd/kueue"})
    PROMETHEUS_OPERATOR = Module(name="prometheus-operator", ldflags="", packages={})
    """Nothing is built of it: tests install its CRDs, which are among its sources."""
    VERSITYGW = Module(
        name="versitygw", ldflags="-s -w", packages={"versitygw": "github.com/versity/versitygw/cmd/versitygw"}
    )


@dataclass(frozen=True)
class Binaries:
    """The paths of the programs."""

    etcd: Path
    kube_apiserver: Path
    kube_controller_manager: Path
    kube_scheduler: Path
    kubectl: Path
    minio: Path


def cache_root() -> Path:
    """Return `$DEVCLUSTER_CACHE`, else `devcluster` in the user's cache directory."""
    if own := os.environ.get("DEVCLUSTER_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "devcluster"


def cache_directory(modules: Sequence[Module] = _ALL_MODULES) -> Path:
    """Return the folder for the binaries of these pins; it may not exist yet."""
    digest = hashlib.sha256()
    for module in modules:
        digest.update(repr(module).encode())
        for pin in ("go.mod", "go.sum", "tools.go"):
            digest.update((module.directory / pin).read_bytes())
    return cache_root() / digest.hexdigest()[:16]


def ensure_binaries(report: Reporter) -> Binaries:
    """Return the programs; compile them first if they are not in the cache. `report` receives the progress."""
    directory = cache_directory()
    kubectl = shutil.which("kubectl")
    if not _missing(directory, with_kubectl=kubectl is None):
        return _binaries(directory, kubectl)
    directory.mkdir(parents=True, exist_ok=True)
    with _locked(directory / ".lock", report.line):
        for module in _ALL_MODULES:
            _build_missing(module, directory, with_kubectl=kubectl is None, report=report)
    return _binaries(directory, kubectl)


def ensure_tool(tool: Tool, report: Reporter) -> Path:
    """Return the folder with the tool's programs, compiled first if not in the cache. The PATH is not searched."""
    module = tool.value
    directory = cache_directory([module])
    if _missing(directory, with_kubectl=False, modules=[module]):
        directory.mkdir(parents=True, exist_ok=True)
        with _locked(directory / ".lock", report.line):
            _build_missing(module, directory, with_kubectl=False, report=report)
    return directory


def module_source(tool: Tool, module: str, report: Reporter) -> Path:
    """Return the folder with the sources of a Go module of the tool, which has for example its CRDs and RBAC."""
    go = toolchain.find_go(
        at_least=toolchain.required_version(tool.value.directory / "go.mod"), cache=cache_root(), say=report.line
    )
    downloaded = subprocess.run(
        [go, "mod", "download", "-json", module],
        cwd=tool.value.directory,
        env=toolchain.go_environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    return Path(json.loads(downloaded.stdout)["Dir"])


def _binaries(directory: Path, kubectl: str | None) -> Binaries:
    return Binaries(
        etcd=directory / "etcd",
        kube_apiserver=directory / "kube-apiserver",
        kube_controller_manager=directory / "kube-controller-manager",
        kube_scheduler=directory / "kube-scheduler",
        kubectl=Path(kubectl) if kubectl else directory / "kubectl",
        minio=directory / "minio",
    )


def _missing(directory: Path, *, with_kubectl: bool, modules: Sequence[Module] = _ALL_MODULES) -> list[str]:
    wanted = [name for module in modules for name in module.packages if with_kubectl or name != "kubectl"]
    return [name for name in wanted if not (directory / name).exists()]


def _build_missing(module: Module, directory: Path, *, with_kubectl: bool, report: Reporter) -> None:
    missing = _missing(directory, with_kubectl=with_kubectl, modules=[module])
    if not missing:
        return
    go = toolchain.find_go(
        at_least=toolchain.required_version(module.directory / "go.mod"), cache=cache_root(), say=report.line
    )
    draft = directory / ".draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    packages = [module.packages[name] for name in missing]
    build_packages(go, module.directory, packages, ldflags=module.ldflags, output=draft, report=report)
    for name in missing:
        (draft / _file_of_package(module.packages[name])).rename(directory / name)
    draft.rmdir()


def _file_of_package(package: str) -> str:
    """Return the name that `go build` gives a program: the last part of its path that is not a major version."""
    *_, parent, last = package.split("/")
    return parent if last in {"v2", "v3"} else last


@contextmanager
def _locked(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is building the binaries; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
