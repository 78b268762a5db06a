"""Models in container images, on a real kubelet with containerd: an image volume under `restricted`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
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


def test_a_dataset_is_drawn_with_a_model_in_an_image(
    installed: Installation, whole: Installation, tmp_path: Path
) -> None:
    reference = bring_model(whole.cluster, SHAPES, REPOSITORY, tmp_path)
    installed.cluster.apply(small(NAMESPACE, "imaged", stages=a_stage(f"oci://{reference}")))

    dataset = installed.wait_ready(NAMESPACE, "imaged")

    assert dataset["status"]["dataset"]["samples"] == 4
    pods = installed.cluster.items("pods", namespace=NAMESPACE)
    mounted = {
        pod["metadata"]["labels"]["diffugen.dev/step"]: [
            volume["image"]["reference"] for volume in pod["spec"]["volumes"] if "image" in volume
        ]
        for pod in pods
    }
    assert mounted == {"plan": [reference], "stage": [reference], "publish": []}
