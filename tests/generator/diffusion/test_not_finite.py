"""Values that are not finite fail the batch, and an autoencoder that overflows in fp16 runs in fp32."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from diffugen_api.errors import SpecError
from diffugen_api.words import Vocabulary
from diffugen_generator.diffusion.drawing import DrawingSettings, DrawRequest
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.unet.components import load
from diffugen_generator.labeling.attention.presence import PresenceCheck
from diffugen_generator.models.resolve import resolve
from diffugen_generator.stages.run_shard import run_shard
from diffugen_generator.store.folder import FolderStore
from tests.generator.drawers import ImageDrawer
from tests.generator.stages.test_run_shard import shard_of, spec_of

SETTINGS = DrawingSettings(width=64, height=64, steps=2, guidance=3.0)
REQUESTS = [DrawRequest("a red ball on snow", 1)]
CPU = torch.device("cpu")

OF_UNET = "conv_out.bias"
OF_ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q.weight"
OF_DECODER = "decoder.conv_out.bias"
OF_ENCODER = "quant_conv.bias"


def changed(model: Path, component: str, tensor: str, value: float) -> ModelFolder:
    """Set a tensor of a component to `value` and return the model."""
    file = model / component / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors[tensor] = torch.full_like(tensors[tensor], value)
    save_file(tensors, file, metadata={"format": "pt"})
    return resolve(str(model))


@pytest.mark.parametrize(
    ("component", "tensor", "capture", "what"),
    [
        ("unet", OF_UNET, "posthoc", "the drawn latents"),
        ("vae", OF_DECODER, "posthoc", "the decoded images"),
        ("unet", OF_ATTENTION, "inline", "the attention maps"),
    ],
)
def test_a_batch_that_is_not_finite_stores_nothing(
    own_model: Path, tmp_path: Path, component: str, tensor: str, capture: str, what: str
) -> None:
    model = changed(own_model, component, tensor, float("nan"))
    spec = spec_of(model, labeling={"attention": {"capture": capture}})
    store = FolderStore(tmp_path / "store")

    with pytest.raises(SpecError, match=f"^run.dtype: {what} are not finite .* with float32, so nothing") as refused:
        run_shard(*shard_of(spec, model), store, batch_size=4, device="cpu")

    assert refused.value.reason == "NotFinite"
    assert list(store.list("")) == []


def test_presence_that_is_not_finite_is_an_error(tiny_model: ModelFolder) -> None:
    components = load(tiny_model, CPU)
    broken = torch.full((1, *components.latent_shape(64, 64)), float("inf"))
    check = PresenceCheck(components, TextStates(components), Vocabulary({"ball": ["ball"]}))

    with pytest.raises(SpecError, match="^run.dtype: the prediction errors of minPresence are not finite"):
        check.of(list(broken), ["a red ball"], [1])


@pytest.mark.parametrize(("dtype", "fix"), [("float16", "set it to bfloat16 or float32"), ("bfloat16", "to float32")])
def test_the_fix_is_a_type_that_does_not_overflow(own_model: Path, dtype: str, fix: str) -> None:
    components = load(changed(own_model, "unet", OF_UNET, float("inf")), CPU, dtype=dtype)

    with pytest.raises(SpecError, match=f"with {dtype}, .*{fix}"):
        ImageDrawer(components, TextStates(components)).draw(REQUESTS, SETTINGS)


def forced(model: Path, flag: bool | None) -> ModelFolder:
    """Set `force_upcast` in the settings of the autoencoder and return the model."""
    file = model / "vae" / "config.json"
    settings = {name: value for name, value in json.loads(file.read_text()).items() if name != "force_upcast"}
    file.write_text(json.dumps(settings if flag is None else {**settings, "force_upcast": flag}))
    return resolve(str(model))


def overflowing(vae: Any, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """Let `part` of an autoencoder in fp16 return what an overflow returns, as its weights are too small for one."""
    kind, true = type(vae), getattr(type(vae), part)

    def inflated(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = true(self, *args, **kwargs)
        if self.dtype == torch.float16:
            tensor = found[0] if isinstance(found, tuple) else found.latent_dist.mean
            tensor.mul_(1e5).mul_(1e5)
        return found

    monkeypatch.setattr(kind, part, inflated)


def test_the_autoencoder_runs_in_fp32_after_its_first_overflow(
    own_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = forced(own_model, False)
    components = load(model, CPU, dtype="float16")
    drawer = ImageDrawer(components, TextStates(components))
    latents = drawer.sample(REQUESTS, SETTINGS)
    exact = load(model, CPU).decode(latents)
    overflowing(components.vae, monkeypatch, "decode")

    with caplog.at_level(logging.WARNING):
        first, second = drawer.decode(latents), drawer.decode(latents)

    assert np.abs(first[0].astype(int) - exact[0]).max() <= 2
    assert np.array_equal(first[0], second[0])
    assert [record.message for record in caplog.records].count(
        "the autoencoder overflows in torch.float16; it runs in float32 from now on"
    ) == 1


def test_an_encoder_that_overflows_runs_in_fp32(own_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = forced(own_model, False)
    components = load(model, CPU, dtype="float16")
    image = np.full((64, 64, 3), 200, np.uint8)
    exact = load(model, CPU).encode_images([image])
    overflowing(components.vae, monkeypatch, "encode")

    assert torch.allclose(components.encode_images([image]), exact, atol=0.02)


@pytest.mark.parametrize(("flag", "wanted"), [(True, torch.float32), (False, torch.float16), (None, torch.float16)])
def test_force_upcast_decides_the_type_of_the_autoencoder(
    own_model: Path, flag: bool | None, wanted: torch.dtype
) -> None:
    assert load(forced(own_model, flag), CPU, dtype="float16").vae.dtype == wanted
