"""A user's view of a cluster: a namespace with a bucket, an operator process, kubectl, and access to the store."""

from __future__ import annotations

import copy
import io
import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import minio
import yaml

from devcluster import Cluster
from devcluster.cluster import ClusterError
from tests.cluster.operator_process import OperatorProcess

ROOT = Path(__file__).parents[2]
CRD = ROOT / "crds" / "diffugen.dev_labeleddatasets.yaml"
RBAC = ROOT / "operator" / "rbac.yaml"

Json = dict[str, Any]


def merged(base: Json, changes: Mapping[str, Any]) -> Json:
    """Return `base` with `changes` merged in, maps deeply; a value of None removes the key."""
    out = copy.deepcopy(base)
    for key, value in changes.items():
        if value is None:
            out.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(out.get(key), dict):
            out[key] = merged(out[key], value)
        else:
            out[key] = copy.deepcopy(value)
    return out


def a_manifest(namespace: str, endpoint: str, bucket: str, **changes: Any) -> Json:
    """Return a small dataset: four prompts, two images each, in shards of four; `changes` to its spec."""
    spec: Json = {
        "classes": [{"name": "ball"}, {"name": "star"}],
        "image": {"width": 64, "height": 64},
        "prompts": {
            "templates": [
                "a red {object} on snow",
                "a blue {object} on sand",
            ],
            "variables": {"object": ["ball", "star"]},
            "samplesPerPrompt": 2,
        },
        "stages": [{"name": "base", "txt2img": {"model": "builtin://shapes", "steps": 4, "guidanceScale": 3}}],
        "quality": {"minInstances": 0},
        "output": {
            "s3": {
                "endpoint": endpoint,
                "bucket": bucket,
                "prefix": "datasets",
                "secretRef": {"name": "store"},
            },
        },
        # In batches of one, a recipe gives the same bytes, even if its worker was killed meanwhile.
        "run": {"samplesPerShard": 4, "parallelism": 2, "batchSize": 1},
    }
    return {
        "apiVersion": "diffugen.dev/v1alpha1",
        "kind": "LabeledDataset",
        "metadata": {"name": "shapes", "namespace": namespace},
        "spec": merged(spec, changes),
    }


@dataclass
class World:
    """One namespace and the actions of a user in it."""

    cluster: Cluster
    namespace: str
    operator: OperatorProcess
    bucket: str = field(init=False)
    store: minio.Minio = field(init=False)

    def __post_init__(self) -> None:
        self.bucket = self.namespace
        self.cluster.make_bucket(self.bucket)
        access = self.cluster.minio
        self.store = access.client()
        enforce = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.cluster.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace, "labels": enforce}}
        )
        self.secret("store", access.access_key, access.secret_key)

    # --- what a user writes ---

    def manifest(self, **changes: Any) -> Json:
        """Return a small dataset of this namespace, which is written to its bucket; `changes` to its spec."""
        return a_manifest(self.namespace, self.cluster.minio.endpoint, self.bucket, **changes)

    def secret(self, name: str, access_key: str, secret_key: str) -> None:
        data = {"AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key}
        self._apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name, "namespace": self.namespace},
                "stringData": data,
            }
        )

    def apply(self, **changes: Any) -> Json:
        """`kubectl apply` the dataset with these changes to its spec; returns the manifest."""
        manifest = self.manifest(**changes)
        self._apply(manifest)
        return manifest

    def refusal(self, manifest: Json) -> str:
        """`kubectl apply` a manifest that must be refused; returns kubectl's message."""
        done = self._kubectl("apply", "-f", "-", stdin=yaml.safe_dump(manifest))
        assert done.returncode != 0, f"accepted: {done.stdout}"
        return done.stderr

    def annotate(self, text: str, name: str = "shapes") -> None:
        self.kubectl("annotate", "--overwrite", "lds", name, text, "-n", self.namespace)

    def kubectl(self, *arguments: str) -> str:
        return self.cluster.kubectl(*arguments)

    def applied(self, manifest: Json, *, server_side: bool) -> None:
        """`kubectl apply` a manifest, as the client or the server merges it."""
        done = self._kubectl("apply", *["--server-side"] * server_side, "-f", "-", stdin=yaml.safe_dump(manifest))
        assert done.returncode == 0, done.stderr

    def _apply(self, manifest: Json) -> None:
        self.applied(manifest, server_side=False)

    def _kubectl(self, *arguments: str, stdin: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["kubectl", f"--kubeconfig={self.cluster.kubeconfig}", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    # --- what a user sees ---

    def get(self, what: str = "lds", name: str = "shapes") -> Json:
        return self.cluster.get(what, name, namespace=self.namespace)

    def items(self, what: str) -> list[Json]:
        return self.cluster.items(what, namespace=self.namespace)

    def jobs(self, step: str | None = None) -> list[Json]:
        return [j for j in self.items("jobs") if step in {None, j["metadata"]["labels"].get("diffugen.dev/step")}]

    def pods(self, step: str | None = None) -> list[Json]:
        return [p for p in self.items("pods") if step in {None, p["metadata"]["labels"].get("diffugen.dev/step")}]

    def condition(self, kind: str, dataset: Json | None = None) -> Json:
        status = (dataset or self.get()).get("status", {})
        for condition in status.get("conditions", []):
            if condition["type"] == kind:
                found: Json = condition
                return found
        return {"status": "Absent", "reason": "", "message": ""}

    def wait(self, what: str, seen: Callable[[Json], bool], *, seconds: float = 300, look_every_s: float = 0.2) -> Json:
        """Poll the dataset until `seen` holds; fails with its status, or with the server's error, where it does not."""
        end = time.monotonic() + seconds
        while True:
            try:
                dataset = self.get()
                if seen(dataset):
                    return dataset
                last: object = dataset.get("status", {})
            except ClusterError as error:
                last = str(error)
            if time.monotonic() > end:
                status = yaml.safe_dump(last)
                raise AssertionError(f"not {what} within {seconds:.0f} s; status:\n{status}\n{self.operator_log()}")
            time.sleep(look_every_s)

    def wait_ready(self, *, seconds: float = 480) -> Json:
        def ready(dataset: Json) -> bool:
            generation = dataset["metadata"]["generation"]
            condition = self.condition("Ready", dataset)
            return condition["status"] == "True" and condition.get("observedGeneration") == generation

        return self.wait("Ready", ready, seconds=seconds)

    def wait_stalled(self, reason: str, *, seconds: float = 240) -> str:
        """Wait until it is Stalled for this reason; returns the message."""

        def stalled(dataset: Json) -> bool:
            condition = self.condition("Stalled", dataset)
            return condition["status"] == "True" and condition["reason"] == reason

        message: str = self.condition("Stalled", self.wait(f"Stalled={reason}", stalled, seconds=seconds))["message"]
        return message

    def operator_log(self, lines: int = 60) -> str:
        return "\n".join(["operator:", *self.operator.log.read_text(errors="replace").splitlines()[-lines:]])

    # --- what lies in the store ---

    @property
    def root(self) -> str:
        return f"datasets/{self.namespace}/shapes/"

    def keys(self, prefix: str = "") -> list[str]:
        found = self.store.list_objects(self.bucket, prefix=self.root + prefix, recursive=True)
        return [str(o.object_name).removeprefix(self.root) for o in found]

    def read(self, key: str) -> bytes:
        with self.store.get_object(self.bucket, self.root + key) as response:
            return response.read()

    def write(self, key: str, data: bytes) -> None:
        self.store.put_object(self.bucket, self.root + key, io.BytesIO(data), len(data))

    def current(self) -> Json | None:
        if "current.json" not in self.keys("current.json"):
            return None
        pointer: Json = json.loads(self.read("current.json"))
        return pointer

    def drawn_at(self) -> dict[str, Any]:
        """Return the time at which each image was written: an image that was drawn again has a later time.

        An image counts only with its recipe: if the worker ended before it wrote the recipe, the image is drawn again.
        """
        found = self.store.list_objects(self.bucket, prefix=f"{self.root}samples/", recursive=True)
        written = {str(o.object_name): o.last_modified for o in found}
        return {
            key: at
            for key, at in written.items()
            if "/image." in key and f"{key.rpartition('/')[0]}/recipe.json" in written
        }
