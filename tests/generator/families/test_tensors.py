"""The tensors that settings ask for are those of diffusers' and transformers' classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from diffugen_generator.families.unet.tensors import expected_of, lacking
from tests.generator.pipelines import SHAPES, write_shape

SD1: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
XL: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
UNETS = {
    "sd1": SD1,
    "sd2": {**SD1, "cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True},
    "inpainting": {**SD1, "in_channels": 9},
    "lcm": {**SD1, "time_cond_proj_dim": 256},
    "layers": {**SD1, "layers_per_block": (1, 2, 3, 1)},
    "xl": XL,
}


def shapes_of(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items() if "position_ids" not in name}


@pytest.mark.parametrize("name", UNETS)
def test_a_unets_tensors_follow_from_its_settings(name: str) -> None:
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(**UNETS[name])

    assert expected_of("unet", json.loads(unet.to_json_string())) == shapes_of(unet)


@pytest.mark.parametrize("layers", [1, 2])
def test_an_autoencoders_tensors_follow_from_its_settings(layers: int) -> None:
    with torch.device("meta"):
        vae: Any = AutoencoderKL(
            block_out_channels=(32, 64, 64),
            layers_per_block=layers,
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
        )

    assert expected_of("vae", json.loads(vae.to_json_string())) == shapes_of(vae)


@pytest.mark.parametrize("kind", [CLIPTextModel, CLIPTextModelWithProjection])
def test_a_text_encoders_tensors_follow_from_its_settings(kind: Any) -> None:
    settings: dict[str, Any] = {
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "projection_dim": 32,
    }
    with torch.device("meta"):
        network = kind(CLIPTextConfig(**settings))

    expected = expected_of("text_encoder", {**settings, "architectures": [kind.__name__]})
    there = shapes_of(network)

    assert expected is not None
    assert lacking("text_encoder", {**settings, "architectures": [kind.__name__]}, there) == ""
    assert len(expected) == len(there)


@pytest.mark.parametrize("shape", SHAPES)
def test_saved_pipelines_lack_nothing(tmp_path: Path, shape: str) -> None:
    folder = write_shape(tmp_path, shape)

    for file in folder.glob("*/*.safetensors"):
        settings = json.loads((file.parent / "config.json").read_bytes())
        there = {name: tuple(tensor.shape) for name, tensor in load_file(file).items()}
        assert expected_of(file.parent.name, settings) is not None
        assert lacking(file.parent.name, settings, there) == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"class_embed_type": "timestep"},
        {"encoder_hid_dim": 8},
        {"down_block_types": ("AttnDownBlock2D",) * 4},
        {"addition_embed_type": "image"},
        {"cross_attention_dim": None},
        {"layers_per_block": "many"},
        {"block_out_channels": []},
    ],
)
def test_settings_that_are_not_known_are_not_compared(changes: dict[str, Any]) -> None:
    assert expected_of("unet", {**SD1, **changes}) is None
    assert lacking("unet", {**SD1, **changes}, {}) == ""


def test_what_is_missing_or_of_another_shape_is_named() -> None:
    settings = {"block_out_channels": [8], "cross_attention_dim": 4, "attention_head_dim": 2, "layers_per_block": 1}
    settings |= {"down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}
    whole = expected_of("unet", settings)
    assert whole is not None
    less = {name: shape for name, shape in whole.items() if not name.startswith("mid_block.resnets")}

    assert "tensors, mid_block.resnets.0.norm1.weight, " in lacking("unet", settings, less)
    assert lacking("unet", settings, {**whole, "conv_in.weight": (8, 9, 3, 3)}) == (
        "have conv_in.weight of shape [8, 9, 3, 3], and its config.json asks for [8, 4, 3, 3]"
    )
    assert lacking("unet", settings, {**whole, "more": (1,)}) == ""


def test_former_names_are_known() -> None:
    vae = expected_of("vae", {"block_out_channels": [8]})
    assert vae is not None
    former = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def renamed(name: str) -> str:
        for today, before in former.items():
            name = name.replace(f".{today}.", f".{before}.")
        return name

    assert lacking("vae", {"block_out_channels": [8]}, {renamed(name): shape for name, shape in vae.items()}) == ""
