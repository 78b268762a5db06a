"""Models by name: which are found, which are refused and with which message, and what the digest covers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from diffugen_api.plan import SpecError
from diffugen_generator.families.unet.components import load
from diffugen_generator.models.resolve import builtin_names, resolve
from tests.generator.pipelines import write_shape


def test_a_folder_is_found_by_its_absolute_path(tiny_folder: Path) -> None:
    model = resolve(str(tiny_folder))

    assert (model.uri, model.path, len(model.digest)) == (str(tiny_folder), tiny_folder, 64)


@pytest.mark.parametrize(
    "uri", ["builtin://unicorns", "shapes", "https://example.com/model", "./folder", "/nowhere/at-all"]
)
def test_an_unknown_model_is_refused_with_the_field_and_the_fix(uri: str) -> None:
    with pytest.raises(SpecError, match=r"^spec\.stages\[2\]\.txt2img\.model: ") as caught:
        resolve(uri, field="spec.stages[2].txt2img.model")

    assert caught.value.reason == "UnknownModel"
    assert "builtin are" in str(caught.value) or "mount" in str(caught.value)


def test_the_digest_covers_the_files_that_are_read_and_no_others(own_model: Path) -> None:
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
def test_a_broken_folder_is_refused(own_model: Path, spoil: Callable[[Path], object], words: str) -> None:
    spoil(own_model)

    with pytest.raises(SpecError, match=words):
        resolve(str(own_model))


def test_a_built_in_model_resolves() -> None:
    for name in builtin_names():
        assert resolve(f"builtin://{name}").path.name == name


def test_the_digest_covers_the_chosen_set_of_weights_and_no_other(own_model: Path) -> None:
    before = resolve(str(own_model))
    weights = own_model / "unet" / "diffusion_pytorch_model.safetensors"

    for other in ("fp16.safetensors", "non_ema.safetensors"):
        more = {**load_file(weights), "other": np.zeros(3, np.float16)}
        save_file(more, weights.parent / f"diffusion_pytorch_model.{other}")
    assert resolve(str(own_model)).digest == before.digest

    weights.unlink()
    assert resolve(str(own_model)).weights - before.weights == {"unet/diffusion_pytorch_model.fp16.safetensors"}


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("unet/config.json", {"in_channels": 8}, "takes 8 channels where its latents have 4"),
        ("unet/config.json", {"cross_attention_dim": 768}, "reads texts of width 768 where its text encoders write 32"),
        ("unet/config.json", {"addition_embed_type": "image"}, "takes more conditions than a text"),
        ("unet/config.json", {"class_embed_type": "timestep"}, "takes more conditions than a text"),
    ],
)
def test_networks_that_do_not_fit_are_refused_without_loading_them(
    own_model: Path, part: str, change: dict[str, object], words: str
) -> None:
    config = own_model / part
    config.write_text(json.dumps(json.loads(config.read_text()) | change))

    with pytest.raises(SpecError, match=words) as caught:
        resolve(str(own_model))

    assert caught.value.reason == "UnsupportedModel"


def test_a_side_may_be_written_as_height_and_width(own_model: Path) -> None:
    config = own_model / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"sample_size": [16, 24]}))

    assert resolve(str(own_model)).path == own_model


def test_a_refiner_is_refused(tmp_path: Path) -> None:
    folder = write_shape(tmp_path / "xl", "xl")
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"projection_class_embeddings_input_dim": 64}))

    with pytest.raises(SpecError, match="takes 64 further inputs where there are 72: it is a refiner"):
        resolve(str(folder))


def test_a_model_with_another_digest_than_the_pinned_one_is_refused(own_model: Path) -> None:
    field = "spec.stages[0].txt2img.model"

    with pytest.raises(
        SpecError, match=r"^spec\.stages\[0\]\.txt2img\.modelSHA256: .* and not ffff.*leave the field out"
    ):
        resolve(str(own_model), field=field, pin="f" * 64)

    assert resolve(str(own_model), pin=resolve(str(own_model)).digest)


@pytest.mark.parametrize("kept", [["aaa", "bbb"], ["bbb"]])
def test_the_top_folder_of_a_model_in_the_hugging_face_cache_means_its_main_snapshot(
    tiny_folder: Path, tmp_path: Path, kept: list[str]
) -> None:
    top = tmp_path / "models--org--name"
    for revision in kept:
        shutil.copytree(tiny_folder, top / "snapshots" / revision)
    if len(kept) > 1:
        (top / "refs").mkdir()
        (top / "refs" / "main").write_text("bbb")

    model = resolve(str(top))

    assert (model.path, model.digest) == (top / "snapshots" / "bbb", resolve(str(tiny_folder)).digest)
    (top / "snapshots" / "ccc").mkdir()
    if len(kept) == 1:
        with pytest.raises(SpecError, match=r"with 2 snapshots and without .*; give \S+/snapshots/REVISION\."):
            resolve(str(top))


def test_a_path_may_begin_with_the_home_folder(own_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(own_model.parent))

    assert resolve(f"~/{own_model.name}").path == own_model


@pytest.mark.parametrize(
    ("shape", "name"),
    [
        ("sd1", "StableDiffusionImg2ImgPipeline"),
        ("xl", "StableDiffusionXLImg2ImgPipeline"),
        ("xl", "StableDiffusionXLInpaintPipeline"),
    ],
)
def test_a_model_saved_by_a_pipeline_of_another_task_loads(tmp_path: Path, shape: str, name: str) -> None:
    folder = write_shape(tmp_path / shape, shape)
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": name}))

    model = resolve(str(folder))

    assert len(load(model, torch.device("cpu")).encoders) == (2 if shape == "xl" else 1)
