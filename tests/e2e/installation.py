"""The operator as its users install it: the chart by helm, a store, a namespace under `restricted`, manifests."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from minio import Minio

from devcluster import Cluster
from devcluster.binaries import Tool, ensure_tool
from devcluster.building import ConsoleReporter
from tests.e2e.images import ROOT

CHART = ROOT / "charts" / "diffugen-operator"
RELEASE, SYSTEM = "diffugen-operator", "diffugen-system"
ACCESS_KEY, SECRET_KEY = "e2e-access", "e2e-secret-key"
BUCKET = "datasets"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}

Json = dict[str, Any]


class NotReadyError(AssertionError):
    """A dataset or an installation did not become ready; the message shows its state."""


@dataclass(frozen=True)
class Installation:
    """One release of the chart on one cluster."""

    cluster: Cluster

    # --- the cluster before anything is installed ---

    def prepare(self) -> None:
        """Start MinIO as a pod with the bucket; make the operator's namespace."""
        self.cluster.apply_file(Path(__file__).parent / "minio.yaml")
        self.cluster.kubectl(
            "wait", "-n", "minio", "--for=condition=Ready", "pod/minio", "--timeout=120s", timeout_s=150
        )
        self.store().make_bucket(BUCKET)
        self.cluster.apply(_namespace(SYSTEM))

    def add_namespace(self, name: str) -> None:
        """Make a namespace for datasets, with the store's Secret that the examples name."""
        self.cluster.apply(_namespace(name))
        secret = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        self.cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "datasets-store", "namespace": name},
                "stringData": secret,
            }
        )

    def store(self) -> Minio:
        """A client of the store, at its pod's address, to which this machine has a route."""
        address = self.cluster.get("pod", "minio", namespace="minio")["status"]["podIP"]
        return Minio(f"{address}:9000", access_key=ACCESS_KEY, secret_key=SECRET_KEY, secure=False)

    # --- the release ---

    def helm(self, *arguments: str, timeout_s: float = 300) -> str:
        """Run helm and return its output. Raises `NotReadyError` with its error message and the pods' state."""
        program = helm_folder() / "helm"
        command = [str(program), f"--kubeconfig={self.cluster.kubeconfig}", f"--namespace={SYSTEM}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
        if done.returncode != 0:
            raise NotReadyError(f"helm {arguments[0]}: {done.stderr.strip()}\n{self.pods(SYSTEM)}")
        return done.stdout

    def install(
        self,
        *namespaces: str,
        chart: Path = CHART,
        operator: str = "diffugen/operator",
        wait: str = "3m",
        **settings: str,
    ) -> None:
        """`helm install`, with the images of this checkout and these settings; wait until the operator is ready."""
        values = {
            "image": {"registry": "", "repository": operator},
            "namespaces": list(namespaces),
            "settings": {"scrapeInterval": 1, "progressInterval": 2, **settings},
        }
        self.helm("install", RELEASE, str(chart), "--wait", f"--timeout={wait}", *_set(values))

    def uninstall(self) -> None:
        """`helm uninstall`, and wait until the operator is deleted."""
        self.helm("uninstall", RELEASE, "--wait", "--ignore-not-found")
        # helm waits for what it created; the Deployment's pods end a little later.
        pods = ["wait", "-n", SYSTEM, "--for=delete", "pod", "-l", f"app.kubernetes.io/instance={RELEASE}"]
        self.cluster.kubectl(*pods, "--timeout=60s", timeout_s=90)

    def pods(self, namespace: str) -> str:
        """The pods and Events of a namespace, for messages."""
        shown = [
            self.cluster.kubectl("get", "pods", "-n", namespace, "-o", "wide"),
            self.cluster.kubectl("get", "events", "-n", namespace, "--sort-by=.lastTimestamp"),
        ]
        return "\n".join(text[-3000:] for text in shown)

    def operator_log(self) -> str:
        """The end of the operator's logs."""
        selector = f"app.kubernetes.io/instance={RELEASE}"
        return self.cluster.kubectl("logs", "-n", SYSTEM, "-l", selector, "--tail=200", "--prefix")

    # --- datasets ---

    def dataset(self, namespace: str, name: str) -> Json:
        """A dataset as the API server returns it."""
        return self.cluster.get("lds", name, namespace=namespace)

    def wait_ready(self, namespace: str, name: str, *, within_s: float = 900) -> Json:
        """Wait for `Ready=True` of the present spec. Raises `NotReadyError` when it stalls, or after `within_s`."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            dataset = self.dataset(namespace, name)
            conditions = {
                each["type"]: each
                for each in dataset.get("status", {}).get("conditions", [])
                if each.get("observedGeneration") == dataset["metadata"]["generation"]
            }
            if conditions.get("Ready", {}).get("status") == "True":
                return dataset
            if conditions.get("Stalled", {}).get("status") == "True":
                raise NotReadyError(f"{name} is stalled: {conditions['Stalled']['message']}")
            time.sleep(1)
        status = json.dumps(self.dataset(namespace, name).get("status", {}), indent=1)
        raise NotReadyError(
            f"{name} is not Ready after {within_s:.0f} s\n{status}\n{self.pods(namespace)}\n{self.operator_log()}"
        )

    def wait_for_reason(self, namespace: str, name: str, reason: str, *, within_s: float = 180) -> Json:
        """Wait until a dataset is Reconciling for this reason; return the condition. Raises `NotReadyError`."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            for each in self.dataset(namespace, name).get("status", {}).get("conditions", []):
                if each["type"] == "Reconciling" and each["reason"] == reason:
                    found: Json = each
                    return found
            time.sleep(0.5)
        status = json.dumps(self.dataset(namespace, name).get("status", {}), indent=1)
        raise NotReadyError(f"{name} has not the reason {reason} after {within_s:.0f} s\n{status}")

    def objects(self, prefix: str) -> dict[str, str]:
        """Every object of the store below a prefix: its key and its version, as the etag tells."""
        listed = self.store().list_objects(BUCKET, prefix=prefix, recursive=True)
        return {str(each.object_name): str(each.etag) for each in listed}

    def read_json(self, key: str) -> Json:
        """A JSON object of the store."""
        answer = self.store().get_object(BUCKET, key)
        try:
            content: Json = json.loads(answer.read())
            return content
        finally:
            answer.close()
            answer.release_conn()


def helm_folder() -> Path:
    """The folder with helm's program."""
    return ensure_tool(Tool.HELM, ConsoleReporter())


def example(file: str, **metadata: str) -> Json:
    """One of the examples, under another name where `metadata` has one."""
    document: Json = yaml.safe_load((ROOT / "examples" / f"{file}.yaml").read_text())
    document["metadata"] |= metadata
    return document


def small(namespace: str, name: str, **spec: Any) -> Json:
    """The first example cut down to four images."""
    document = example("shapes", namespace=namespace, name=name)
    document["spec"]["prompts"] = {
        "templates": ["a red {object} on snow"],
        "variables": {"object": ["ball", "square", "triangle", "star"]},
    }
    document["spec"] |= spec
    return document


def _namespace(name: str) -> Json:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}}


def _set(values: Json) -> Iterator[str]:
    for name, value in values.items():
        yield "--set-json"
        yield f"{name}={json.dumps(value)}"
