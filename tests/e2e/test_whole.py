"""From nothing to a published dataset, as in the README; then the operator is upgraded, rolled back and removed."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from version import version as checkout_version

from tests.e2e.images import ROOT, VERSION, bring_own
from tests.e2e.installation import (
    ACCESS_KEY,
    BUCKET,
    CHART,
    RELEASE,
    SECRET_KEY,
    SYSTEM,
    Installation,
    Json,
    small,
)

NAMESPACE = "vision"
JOBS = "batch.kubernetes.io/job-name"


@pytest.fixture(scope="module")
def installed(whole: Installation) -> Iterator[Installation]:
    """The chart installed for one namespace, and in that namespace only the store's Secret."""
    whole.add_namespace(NAMESPACE)
    whole.install(NAMESPACE)
    yield whole
    whole.uninstall()


@pytest.fixture(scope="module")
def shapes(installed: Installation) -> Json:
    """The first example, applied as it is, and Ready."""
    installed.cluster.kubectl("apply", "-n", NAMESPACE, "-f", str(ROOT / "examples" / "shapes.yaml"))
    return installed.wait_ready(NAMESPACE, "shapes")


def diffugen(installation: Installation, *arguments: str) -> Json:
    """Run a command on the store, as users do from their own machine; return its JSON."""
    address = installation.cluster.get("pod", "minio", namespace="minio")["status"]["podIP"]
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    program = Path(sys.executable).with_name("diffugen")
    done = subprocess.run(
        [program, *arguments, "--endpoint", f"http://{address}:9000", "--json"],
        env={**os.environ, **keys},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: Json = json.loads(done.stdout)
    return found


def test_the_first_example_is_pulled_and_verified(installed: Installation, shapes: Json, tmp_path: Path) -> None:
    uri = f"s3://{BUCKET}/{NAMESPACE}/shapes"

    diffugen(installed, "pull", uri, str(tmp_path / "pulled"))
    diffugen(installed, "verify", uri)

    annotations = tmp_path / "pulled" / "current" / "coco" / "annotations"
    images = [each for file in annotations.glob("*.json") for each in json.loads(file.read_text())["images"]]
    assert len(images) == shapes["status"]["dataset"]["samples"]


def test_the_first_example_is_published(installed: Installation, shapes: Json, tmp_path: Path) -> None:
    """Downloads and checks the COCO file, images by size and content, and the counts in the status."""
    published = shapes["status"]["dataset"]
    prefix = published["uri"].removeprefix(f"s3://{BUCKET}/").rstrip("/")
    described = installed.read_json(f"{prefix}/dataset.json")
    assert described["samples"] == 96 == published["samples"]

    boxes = 0
    for split in ("train", "val", "test"):
        annotations = installed.read_json(f"{prefix}/coco/annotations/instances_{split}.json")
        assert {each["name"] for each in annotations["categories"]} == {"ball", "square", "triangle", "star"}
        boxes += len(annotations["annotations"])
    assert boxes == described["instances"] > 0

    keys = installed.objects(f"{NAMESPACE}/shapes/samples/")
    images = [key for key in keys if key.endswith("image.png")]
    assert len(images) == 96
    for key in images[:10]:
        file = tmp_path / "image.png"
        installed.store().fget_object(BUCKET, key, str(file))
        with Image.open(file) as image:
            assert image.size == (64, 64)
            assert len(np.unique(np.asarray(image))) > 10, "something is drawn"
    installed.store().fget_object(BUCKET, f"{prefix}/manifest.jsonl.gz", str(tmp_path / "manifest.gz"))
    entries = [json.loads(line) for line in gzip.decompress((tmp_path / "manifest.gz").read_bytes()).splitlines()]
    assert {key.split("/")[-2] for key in images} == {entry["id"] for entry in entries}


def test_its_pods_ran_under_the_restricted_standard_with_simulated_gpus(installed: Installation, shapes: Json) -> None:
    namespace = installed.cluster.get("namespace", NAMESPACE)
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"

    pods = [pod for pod in installed.cluster.items("pods", namespace=NAMESPACE) if JOBS in pod["metadata"]["labels"]]
    assert {pod["status"]["phase"] for pod in pods} == {"Succeeded"}
    asked = [pod["spec"]["containers"][0]["resources"].get("limits", {}).get("nvidia.com/gpu") for pod in pods]
    assert asked.count("1") == 6  # one for each of the stage's shards of 16 images; plan and publish request none
    assert None in asked


def test_helm_test_succeeds(installed: Installation) -> None:
    installed.helm("test", RELEASE, "--timeout=2m")


NEXT = "99.0.0"
"""The version of a second operator image, of the same code."""


@pytest.mark.parametrize(
    ("change", "version"),
    [
        (["upgrade", RELEASE, str(CHART), "--reuse-values", "--set", f"image.tag={NEXT}"], NEXT),
        (["rollback", RELEASE, "1"], VERSION),
    ],
    ids=["upgrade", "rollback"],
)
def test_another_version_of_the_operator_leaves_a_running_dataset_alone(
    installed: Installation, shapes: Json, change: list[str], version: str
) -> None:
    cluster = installed.cluster
    bring_own(cluster, "operator", version)
    name = f"during-{change[0]}"
    cluster.apply(small(NAMESPACE, name, seed=len(name)))
    before = {pod["metadata"]["name"] for pod in cluster.items("pods", namespace=SYSTEM)}
    installed.helm(*change, "--wait", "--timeout=3m")

    dataset = installed.wait_ready(NAMESPACE, name)

    after = {pod["metadata"]["name"] for pod in cluster.items("pods", namespace=SYSTEM)}
    assert not before & after  # the operator's pods were replaced
    assert f"DiffuGen operator {_own_version(version)} serves" in installed.operator_log()
    assert dataset["status"]["dataset"]["samples"] == 4
    jobs = [job["metadata"]["name"] for job in cluster.items("jobs", namespace=NAMESPACE)]
    assert len([job for job in jobs if job.startswith(name)]) == 3, jobs  # plan, stage, publish: none twice
    assert installed.dataset(NAMESPACE, "shapes")["status"]["dataset"] == shapes["status"]["dataset"]


def _own_version(version: str) -> str:
    """The version that an image's operator logs: that of the checkout, unless another one was built."""
    return version if version == NEXT else checkout_version()


def test_uninstalling_keeps_the_datasets_and_reinstalling_draws_nothing(installed: Installation, shapes: Json) -> None:
    cluster = installed.cluster
    stored = installed.objects("")
    held = {each["metadata"]["name"]: each for each in cluster.items("lds", namespace=NAMESPACE)}

    installed.uninstall()

    left = cluster.kubectl(
        "get",
        "deployments,pods,services,configmaps,serviceaccounts,roles,rolebindings,poddisruptionbudgets",
        "--all-namespaces", "-l", f"app.kubernetes.io/instance={RELEASE}", "-o", "name",
    )  # fmt: skip
    assert left == ""
    everywhere = cluster.kubectl(
        "get", "clusterroles,clusterrolebindings", "-l", f"app.kubernetes.io/instance={RELEASE}", "-o", "name"
    )
    assert everywhere == ""
    cluster.kubectl("wait", "-n", SYSTEM, "--for=delete", f"lease/{RELEASE}", "--timeout=60s", timeout_s=90)
    cluster.kubectl("get", "crd", "labeleddatasets.diffugen.dev")
    assert {each["metadata"]["name"] for each in cluster.items("lds", namespace=NAMESPACE)} == set(held)
    assert installed.objects("") == stored

    installed.install(NAMESPACE)
    jobs = {job["metadata"]["uid"] for job in cluster.items("jobs", namespace=NAMESPACE)}
    cluster.apply(small(NAMESPACE, "after", seed=3))  # Ready: the new operator has seen them all
    installed.wait_ready(NAMESPACE, "after")

    new = [job for job in cluster.items("jobs", namespace=NAMESPACE) if job["metadata"]["uid"] not in jobs]
    assert all(job["metadata"]["name"].startswith("after") for job in new)
    again = installed.objects("")
    assert {key: tag for key, tag in again.items() if "/after/" not in key} == stored
