"""Models by name: what is found, what is refused and in which words, and what the digest covers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffugen_api.plan import SpecError
from diffugen_generator.models import builtin_names, resolve


def test_a_folder_is_found_by_its_absolute_path(tiny_folder: Path) -> None:
    model = resolve(str(tiny_folder))

    assert (model.uri, model.path, len(model.digest)) == (str(tiny_folder), tiny_folder, 64)


@pytest.mark.parametrize(
    "uri", ["builtin://unicorns", "shapes", "https://example.com/model", "./folder", "/nowhere/at-all"]
)
def test_an_unknown_model_is_refused_with_the_field_and_the_mend(uri: str) -> None:
    with pytest.raises(SpecError, match=r"^spec\.stages\[2\]\.txt2img\.model: ") as caught:
        resolve(uri, field="spec.stages[2].txt2img.model")

    assert caught.value.reason == "UnknownModel"
    assert "builtin are" in str(caught.value) or "mount" in str(caught.value)


def test_the_digest_covers_what_is_read_and_nothing_else(own_model: Path) -> None:
    before = resolve(str(own_model)).digest

    (own_model / "README.md").write_text("a model")
    (own_model / "unet" / "copy.bin").write_bytes(b"pickle")
    assert resolve(str(own_model)).digest == before

    weights = own_model / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    assert resolve(str(own_model)).digest != before


def test_the_digest_does_not_depend_on_where_the_folder_is(tiny_folder: Path, own_model: Path) -> None:
    assert resolve(str(tiny_folder)).digest == resolve(str(own_model)).digest


def test_pickled_weights_are_refused(own_model: Path) -> None:
    weights = own_model / "vae" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))

    with pytest.raises(SpecError, match=r"only pickled weights in vae/.*safe_serialization=True") as caught:
        resolve(str(own_model))

    assert caught.value.reason == "UnsupportedModel"


def test_another_pipeline_is_refused(own_model: Path) -> None:
    index = own_model / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": "FluxPipeline"}))

    with pytest.raises(SpecError, match="is a FluxPipeline; what can be drawn with is: StableDiffusionPipeline"):
        resolve(str(own_model))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda m: (m / "model_index.json").unlink(), "it has no model_index.json"),
        (lambda m: (m / "model_index.json").write_text("{"), "that is not JSON"),
        (lambda m: (m / "scheduler").rename(m / "elsewhere"), "lacks its folder scheduler/"),
        (lambda m: (m / "unet" / "diffusion_pytorch_model.safetensors").unlink(), "has no weights in unet/"),
    ],
)
def test_a_broken_folder_is_refused(own_model: Path, spoil, words: str) -> None:
    spoil(own_model)

    with pytest.raises(SpecError, match=words):
        resolve(str(own_model))


def test_what_is_built_in_resolves() -> None:
    for name in builtin_names():
        assert resolve(f"builtin://{name}").path.name == name
