"""Models in container images, on a real kubelet with containerd: an image volume under `restricted`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.images import ROOT, bring_model
from tests.e2e.installation import Installation, small

NAMESPACE = "models"
SHAPES = ROOT / "generator" / "src" / "diffugen_generator" / "builtin" / "shapes"
REPOSITORY = "registry.example/models/shapes"


def a_stage(model: str) -> list[dict[str, Any]]:
    return [{"name": "base", "txt2img": {"model": model, "steps": 4, "guidanceScale": 3}}]


@pytest.fixture(scope="module")
def installed(operator_only: Installation) -> Iterator[Installation]:
    """The chart installed for one namespace."""
    operator_only.add_namespace(NAMESPACE)
    operator_only.install(NAMESPACE)
    yield operator_only
    operator_only.uninstall()


def test_an_image_that_cannot_be_pulled_is_named_in_the_status(installed: Installation) -> None:
    missing = f"127.0.0.1:1/models/none@sha256:{'0' * 64}"
    installed.cluster.apply(small(NAMESPACE, "missing", stages=a_stage(f"oci://{missing}")))

    found = installed.wait_for_reason(NAMESPACE, "missing", "ImagePullFailed")

    assert f"The image '{missing}' of a model cannot be pulled" in found["message"]
    installed.cluster.kubectl("delete", "lds", "missing", "-n", NAMESPACE)


@pytest.fixture(scope="module")
def model(installed: Installation, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image with the built-in model, on the node."""
    return bring_model(installed.cluster, SHAPES, REPOSITORY, tmp_path_factory.mktemp("model"))


def mounted_images(installation: Installation, step: str) -> list[list[str]]:
    """The images that each pod of a step has as volumes."""
    pods = installation.cluster.items("pods", namespace=NAMESPACE, selector=f"diffugen.dev/step={step}")
    return [[each["image"]["reference"] for each in pod["spec"]["volumes"] if "image" in each] for pod in pods]


def test_a_plan_reads_a_model_in_an_image(installed: Installation, model: str) -> None:
    installed.cluster.apply(small(NAMESPACE, "planned", stages=a_stage(f"oci://{model}")))

    def finished() -> list[str]:
        jobs = installed.cluster.items("jobs", namespace=NAMESPACE, selector="diffugen.dev/step=plan")
        conditions = [each for job in jobs for each in job["status"].get("conditions", [])]
        return [each["type"] for each in conditions if each["type"] in {"Complete", "Failed"}]

    end = time.monotonic() + 300
    while not finished() and time.monotonic() < end:
        time.sleep(0.5)
    assert finished() == ["Complete"], installed.pods(NAMESPACE)
    assert mounted_images(installed, "plan") == [[model]]
    installed.cluster.kubectl("delete", "lds", "planned", "-n", NAMESPACE)


def test_a_dataset_is_drawn_with_a_model_in_an_image(installed: Installation, whole: Installation, model: str) -> None:
    installed.cluster.apply(small(NAMESPACE, "imaged", stages=a_stage(f"oci://{model}")))

    dataset = installed.wait_ready(NAMESPACE, "imaged")

    assert dataset["status"]["dataset"]["samples"] == 4
    assert mounted_images(installed, "stage") == [[model]]
    assert mounted_images(installed, "publish") == [[]]
