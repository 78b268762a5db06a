"""From nothing to a published dataset, as in the README; then the operator is upgraded, rolled back and removed."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.e2e.images import ROOT
from tests.e2e.installation import BUCKET, CHART, RELEASE, SYSTEM, Installation, Json, small

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


def test_the_first_example_is_published(installed: Installation, shapes: Json, tmp_path: Path) -> None:
    """Downloads and checks the COCO file, its images by size and digest, and the counts in the status."""
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
            assert len(set(image.getdata())) > 10  # something is drawn
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


@pytest.mark.parametrize(
    "change",
    [
        ["upgrade", RELEASE, str(CHART), "--reuse-values", "--set", "settings.logLevel=DEBUG"],
        ["rollback", RELEASE, "1"],
    ],
    ids=lambda change: str(change[0]),
)
def test_a_change_of_the_release_leaves_a_running_dataset_alone(
    installed: Installation, shapes: Json, change: list[str]
) -> None:
    cluster = installed.cluster
    name = f"during-{change[0]}"
    cluster.apply(small(NAMESPACE, name, seed=len(name)))
    before = {pod["metadata"]["name"] for pod in cluster.items("pods", namespace=SYSTEM)}
    installed.helm(*change, "--wait", "--timeout=3m")

    dataset = installed.wait_ready(NAMESPACE, name)

    after = {pod["metadata"]["name"] for pod in cluster.items("pods", namespace=SYSTEM)}
    assert not before & after  # the operator's pods were replaced
    assert dataset["status"]["dataset"]["samples"] == 4
    jobs = [job["metadata"]["name"] for job in cluster.items("jobs", namespace=NAMESPACE)]
    assert len([job for job in jobs if job.startswith(name)]) == 3, jobs  # plan, stage, publish: none twice
    assert installed.dataset(NAMESPACE, "shapes")["status"]["dataset"] == shapes["status"]["dataset"]


def test_uninstalling_keeps_the_datasets_and_reinstalling_draws_nothing(installed: Installation, shapes: Json) -> None:
    cluster = installed.cluster
    stored = installed.objects("")
    held = {each["metadata"]["name"]: each for each in cluster.items("lds", namespace=NAMESPACE)}

    installed.uninstall()

    left = cluster.kubectl(
        "get",
        "deployments,pods,services,configmaps,serviceaccounts,roles,rolebindings,poddisruptionbudgets,leases",
        "--all-namespaces", "-l", f"app.kubernetes.io/instance={RELEASE}", "-o", "name",
    )  # fmt: skip
    assert left == ""
    everywhere = cluster.kubectl(
        "get", "clusterroles,clusterrolebindings", "-l", f"app.kubernetes.io/instance={RELEASE}", "-o", "name"
    )
    assert everywhere == ""
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
