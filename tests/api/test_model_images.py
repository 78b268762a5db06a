"""Addresses of models in container images: what is read from them, and where a spec may have them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from diffugen_api.faults import faults_of
from diffugen_api.model_images import ModelImage, below, read_model_image
from diffugen_api.model_uris import images_of, model_uris
from diffugen_api.plan import revision_of
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from tests.api.specs import spec_data

DIGEST = "0123456789abcdef" * 4
IMAGE = f"oci://registry.example.com/org/sd15@sha256:{DIGEST}"


@pytest.mark.parametrize(
    ("uri", "repository", "path"),
    [
        (IMAGE, "registry.example.com/org/sd15", ""),
        (f"oci://registry:5000/x:v1@sha256:{DIGEST}", "registry:5000/x", ""),
        (f"oci://localhost/a/b_c/d@sha256:{DIGEST}#/", "localhost/a/b_c/d", ""),
        (f"oci://10.0.0.1:5000/m@sha256:{DIGEST}#/sd15/", "10.0.0.1:5000/m", "sd15"),
        (f"{IMAGE}#/a b/dream.safetensors", "registry.example.com/org/sd15", "a b/dream.safetensors"),
    ],
)
def test_an_address_has_image_digest_and_path(uri: str, repository: str, path: str) -> None:
    image = read_model_image(uri)

    assert image == ModelImage(repository, f"sha256:{DIGEST}", path)
    assert image.reference == f"{repository}@sha256:{DIGEST}"


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("oci://registry.example.com/org/sd15", "has no digest, and a tag can be moved"),
        ("oci://registry.example.com/org/sd15:v1", "has no digest, and a tag can be moved"),
        (f"{IMAGE[:-1]}", "is no address of an image"),
        (f"{IMAGE}0", "is no address of an image"),
        (
            f"oci://org/sd15@sha256:{DIGEST}",
            "is no address of an image",
        ),  # a registry has a dot, a port or is localhost
        (f"oci://ghcr.io/Org/sd15@sha256:{DIGEST}", "is no address of an image"),
        (f"oci://ghcr.io@sha256:{DIGEST}", "is no address of an image"),
        (f"{IMAGE}#sd15", "is no address of an image"),
        (f"{IMAGE}#/../etc", "has '..' after '#'"),
    ],
)
def test_another_address_is_refused_with_the_fix(uri: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_model_image(uri)


def test_the_address_of_a_file_in_a_folder() -> None:
    assert below(IMAGE, "x.safetensors") == f"{IMAGE}#/x.safetensors"
    assert below(f"{IMAGE}#/sd15/", "x.safetensors") == f"{IMAGE}#/sd15/x.safetensors"
    assert below(f"{IMAGE}#/", "x.safetensors") == f"{IMAGE}#/x.safetensors"


def a_spec(uri: str) -> dict[str, Any]:
    """Return a spec that names `uri` in every place where a model, or a file of one, can be named."""
    return spec_data(
        stages=[
            {
                "name": "base",
                "txt2img": {
                    "model": uri,
                    "embeddings": [{"uri": uri, "token": "<a>"}],
                    "loras": [{"uri": uri}],
                },
            },
            {"name": "redrawn", "img2img": {"from": "base", "model": uri, "variables": {"object": ["ball"]}}},
            {"name": "replaced", "inpaint": {"from": "base", "model": uri, "replacements": {"ball": ["ball"]}}},
            {
                "name": "word",
                "textualInversion": {"model": uri, "images": "/few", "token": "<b>", "initializer": "ball"},
            },
        ],
        labeling={"detector": {"type": "open-vocabulary", "model": uri, "maskModel": uri}},
        quality={"clipScore": {"model": uri}, "safety": {"model": uri}},
    )


FIELDS = [
    "spec.stages[0].txt2img.model",
    "spec.stages[0].txt2img.embeddings[0].uri",
    "spec.stages[0].txt2img.loras[0].uri",
    "spec.stages[1].img2img.model",
    "spec.stages[2].inpaint.model",
    "spec.stages[3].textualInversion.model",
    "spec.labeling.detector.model",
    "spec.labeling.detector.maskModel",
    "spec.quality.clipScore.model",
    "spec.quality.safety.model",
]


def test_every_field_that_names_a_model_takes_an_image_and_wants_its_digest() -> None:
    uris = model_uris(LabeledDatasetSpec.model_validate(a_spec(IMAGE)))
    assert uris == dict.fromkeys(FIELDS, IMAGE)
    assert images_of(uris.values()) == [ModelImage("registry.example.com/org/sd15", f"sha256:{DIGEST}", "")]

    data = a_spec("oci://registry.example.com/org/sd15:v1")
    with pytest.raises(ValidationError) as refused:
        LabeledDatasetSpec.model_validate(data)
    faults = faults_of(refused.value, LabeledDatasetSpec, data, path="spec")
    assert {fault.path for fault in faults} == set(FIELDS)
    assert all("'oci://registry.example.com/org/sd15:v1' has no digest" in fault.message for fault in faults)


def test_another_digest_is_another_revision() -> None:
    other = IMAGE.replace(DIGEST, "f" * 64)

    assert revision_of(LabeledDatasetSpec.model_validate(a_spec(IMAGE))) != revision_of(
        LabeledDatasetSpec.model_validate(a_spec(other))
    )


def test_a_stage_reads_what_it_draws_and_labels_with() -> None:
    spec = LabeledDatasetSpec.model_validate(a_spec(IMAGE))
    side = FIELDS[6:]

    assert set(model_uris(spec, spec.stages[0])) == {*FIELDS[:3], *side}
    assert set(model_uris(spec, spec.stages[1])) == {FIELDS[3], *side}
    assert set(model_uris(spec, spec.stages[3])) == {FIELDS[5]}
