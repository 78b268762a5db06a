"""The real Kueue controller on a throwaway cluster: its CRDs, rights and webhooks, and its process."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import Cluster, kernel
from devcluster.binaries import Tool, ensure_tool, module_source
from devcluster.building import ConsoleReporter
from devcluster.ports import free_ports
from tests.cluster.pods import eventually

MANAGED = {"kueue-test/webhooks": "on"}
"""The label of namespaces whose Jobs Kueue's webhooks see; other tests share the cluster."""
WITHOUT_QUEUE = {"kueue-test/without-queue": "held"}
"""The label of namespaces in which Kueue also manages Jobs without a queue name."""

_NAMESPACES = ("unshare", "--map-root-user", "--mount")
_NAMESPACE = "kueue-system"
_ACCOUNT = "kueue-controller-manager"
_KINDS = ("job.kb.io", "workload.kb.io", "clusterqueue.kb.io", "resourceflavor.kb.io", "cohort.kb.io")


@contextmanager
def kueue_on(cluster: Cluster, folder: Path) -> Iterator[Path]:
    """Run Kueue until the end of the block; yields its log."""
    if subprocess.run([*_NAMESPACES, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make namespaces (unshare), which Kueue's certificates need")
    report = ConsoleReporter()
    program = ensure_tool(Tool.KUEUE, report) / "kueue"
    components = module_source(Tool.KUEUE, "sigs.k8s.io/kueue", report) / "config" / "components"
    webhook, health, metrics = free_ports(3)
    for crd in sorted((components / "crd" / "bases").glob("*.yaml")):
        cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(crd))
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _NAMESPACE}})
    kubeconfig = _account(cluster, components, folder)
    authority = _certificates(cluster, folder / "webhook")
    config = folder / "kueue.yaml"
    config.write_text(yaml.safe_dump(_configuration(folder / "webhook", webhook, health, metrics)))
    log = folder / "kueue.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*_with_etc(folder), str(program), f"--config={config}", f"--kubeconfig={kubeconfig}"],
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=kernel.die_with_parent(),
        )
    try:
        _webhooks(cluster, components, f"https://127.0.0.1:{webhook}", authority)
        yield log
    except BaseException:
        print(f"Kueue:\n{log.read_text(errors='replace')[-20_000:]}")
        raise
    finally:
        for kind in ("mutatingwebhookconfigurations", "validatingwebhookconfigurations"):
            cluster.kubectl("delete", kind, "kueue-test", "--ignore-not-found")
        process.terminate()
        process.wait(timeout=60)


def _with_etc(folder: Path) -> list[str]:
    """Return the command before the program that gives it an /etc of its own, with the certificates of its metrics.

    Kueue reads them from a fixed path below /etc, which tests must not write to.
    """
    etc = folder / "etc"
    certificates = etc / "kueue" / "metrics" / "certs"
    certificates.mkdir(parents=True)
    for file in (folder / "webhook").iterdir():
        shutil.copy(file, certificates)
    mounted = 'mount --bind "$0" /etc && exec "$@"'
    return [*_NAMESPACES, "sh", "-c", mounted, str(etc)]


def _account(cluster: Cluster, components: Path, folder: Path) -> Path:
    """Create Kueue's service account with its rights; returns its kubeconfig."""
    (role,) = [
        each
        for each in yaml.safe_load_all((components / "rbac" / "role.yaml").read_text())
        if each["kind"] == "ClusterRole"
    ]
    secrets = yaml.safe_load((components / "rbac" / "manager_secrets_role.yaml").read_text())
    name, group = "kueue-manager-role", "rbac.authorization.k8s.io"
    account = {"kind": "ServiceAccount", "name": _ACCOUNT, "namespace": _NAMESPACE}
    cluster.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": _ACCOUNT, "namespace": _NAMESPACE}},
        {**role, "metadata": {"name": name}},
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
            "subjects": [account],
        },
        {**secrets, "metadata": {"name": name, "namespace": _NAMESPACE}},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name, "namespace": _NAMESPACE},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [account],
        },
    )
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    token = cluster.kubectl("create", "token", _ACCOUNT, "-n", _NAMESPACE, "--duration=2h").strip()
    config["users"][0]["user"] = {"token": token}
    path = folder / "kueue.kubeconfig"
    path.write_text(json.dumps(config))
    return path


def _certificates(cluster: Cluster, folder: Path) -> str:
    """Give the webhook server the API server's certificate, which is for 127.0.0.1; returns its authority."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    certificate = Path(config["clusters"][0]["cluster"]["certificate-authority"])
    folder.mkdir()
    (folder / "tls.crt").write_bytes(certificate.read_bytes())
    (folder / "tls.key").write_bytes(certificate.with_suffix(".key").read_bytes())
    return base64.b64encode(certificate.read_bytes()).decode()


def _configuration(certificates: Path, webhook: int, health: int, metrics: int) -> dict[str, Any]:
    return {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "namespace": _NAMESPACE,
        "health": {"healthProbeBindAddress": f"127.0.0.1:{health}"},
        "metrics": {"bindAddress": f"127.0.0.1:{metrics}"},
        "webhook": {"host": "127.0.0.1", "port": webhook, "certDir": str(certificates)},
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": False},
        "integrations": {"frameworks": ["batch/job"]},
        "manageJobsWithoutQueueName": True,
        "managedJobsNamespaceSelector": {"matchLabels": WITHOUT_QUEUE},
        # The selector is of Jobs without a queue name alone.
        "featureGates": {"VisibilityOnDemand": False, "ManagedJobsNamespaceSelectorAlwaysRespected": False},
    }


def _webhooks(cluster: Cluster, components: Path, url: str, authority: str) -> None:
    """Register the webhooks of Kueue's own kinds and of Jobs, by URL, once their server answers."""
    wanted = []
    for config in yaml.safe_load_all((components / "webhook" / "manifests.yaml").read_text()):
        hooks = [hook for hook in config["webhooks"] if hook["name"][1:] in _KINDS]
        for hook in hooks:
            path = hook["clientConfig"]["service"]["path"]
            hook["clientConfig"] = {"url": f"{url}{path}", "caBundle": authority}
            if hook["name"][1:] == "job.kb.io":
                hook["namespaceSelector"] = {"matchLabels": MANAGED}
        wanted.append({**config, "metadata": {"name": "kueue-test"}, "webhooks": hooks})
    cluster.apply(*wanted)

    def answers() -> bool:
        flavor = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ResourceFlavor", "metadata": {"name": "default"}}
        cluster.apply(flavor)
        return True

    eventually(answers, within_s=60)


def a_queue(name: str, namespace: str, quota: dict[str, str], **more: Any) -> list[dict[str, Any]]:
    """Return a ClusterQueue with this quota, and a LocalQueue of the same name for it."""
    resources = [{"name": resource, "nominalQuota": amount} for resource, amount in quota.items()]
    version = "kueue.x-k8s.io/v1beta2"
    return [
        {
            "apiVersion": version,
            "kind": "ClusterQueue",
            "metadata": {"name": f"{namespace}-{name}"},
            "spec": {
                "namespaceSelector": {},
                "preemption": {"withinClusterQueue": "LowerPriority"},
                "resourceGroups": [
                    {"coveredResources": list(quota), "flavors": [{"name": "default", "resources": resources}]}
                ],
                **more,
            },
        },
        {
            "apiVersion": version,
            "kind": "LocalQueue",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"clusterQueue": f"{namespace}-{name}"},
        },
    ]


def quiet_writes(cluster: Cluster, namespace: str, seconds: float) -> list[str]:
    """Return the operator's writes in this namespace during so many seconds."""
    before = len(_writes(cluster, namespace))
    time.sleep(seconds)
    return _writes(cluster, namespace)[before:]


def _writes(cluster: Cluster, namespace: str) -> list[str]:
    return [
        f"{event['verb']} {event['requestURI']}"
        for event in cluster.writes_of("operator")
        if event["objectRef"].get("namespace") == namespace
    ]
