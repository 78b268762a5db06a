"""Models in container images: mounted into the pods of a real control plane, or refused by one without the feature."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from diffugen_generator.models.resolve import resolve
from tests.cluster.conftest import reported, worlds_of
from tests.cluster.world import World

pytestmark = pytest.mark.cluster

DIGEST = f"sha256:{'5' * 64}"
REFERENCE = f"registry.example/models/shapes@{DIGEST}"
SHAPES = resolve("builtin://shapes").path


def stages_of(uri: str) -> list[dict[str, Any]]:
    return [{"name": "base", "txt2img": {"model": uri, "steps": 2, "guidanceScale": 3}}]


def test_a_dataset_is_drawn_with_a_model_in_an_image(running: World) -> None:
    running.cluster.add_image(REFERENCE, SHAPES.parent)

    running.apply(
        stages=stages_of(f"oci://{REFERENCE}#/shapes"),
        labeling={"detector": {"type": "transformers", "model": f"oci://{REFERENCE}#/shapes-segmenter"}},
    )
    dataset = running.wait_ready()

    assert dataset["status"]["dataset"]["samples"] == 8
    volumes = {
        job["metadata"]["labels"]["diffugen.dev/step"]: [
            each["image"]["reference"] for each in job["spec"]["template"]["spec"]["volumes"] if "image" in each
        ]
        for job in running.jobs()
    }
    assert volumes == {"plan": [REFERENCE], "stage": [REFERENCE], "publish": []}


def test_an_image_that_cannot_be_pulled_is_named(running: World) -> None:
    missing = f"registry.example/models/none@sha256:{'6' * 64}"

    running.apply(stages=stages_of(f"oci://{missing}"))

    dataset = running.wait(
        "ImagePullFailed", lambda found: running.condition("Reconciling", found)["reason"] == "ImagePullFailed"
    )
    message = running.condition("Reconciling", dataset)["message"]
    assert f"The image '{missing}' of a model cannot be pulled" in message


def test_an_address_without_a_digest_is_refused_by_the_api_server(world: World) -> None:
    refusal = world.refusal(world.manifest(stages=stages_of("oci://registry.example/models/shapes:v1")))

    assert "the model in an image is oci://REGISTRY/REPOSITORY@sha256:DIGEST" in refusal


@pytest.fixture
def older(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A namespace, with its operator running, of an API server without image volumes."""
    with reported(request.config, nodes=0, emulated_version="1.34") as cluster:
        world = worlds_of(cluster, tmp_path_factory)("older")
        world.operator.start()
        yield world
        world.operator.end()


def test_an_api_server_without_image_volumes_stalls_the_run_with_a_sentence(older: World) -> None:
    assert '"emulationMinor": "34"' in older.kubectl("get", "--raw=/version")

    older.apply(stages=stages_of(f"oci://{REFERENCE}#/shapes"))

    message = older.wait_stalled("ImageVolumesNotSupported")
    words = "the API server has no image volumes, by which pods read"
    assert message.startswith(f"spec.stages[0].txt2img.model: {words} {REFERENCE}: use Kubernetes 1.35 or later")
    assert older.jobs() == []
