"""Checkpoints in single files are recognized by their headers, and their settings are those of the published models."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

from diffugen_generator.families.checkpoint import CheckpointFolder, CheckpointHeader, Prediction
from diffugen_generator.families.registry import read_checkpoint
from diffugen_generator.families.unet.architecture import check_architecture
from diffugen_generator.families.unet.ldm_names import open_clip_tensor, unet_name, vae_name
from diffugen_generator.families.unet.tensors import Shape, expected_of

ATTENDS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
# the settings of the published models, as far as they decide shapes
UNETS: dict[str, dict[str, Any]] = {
    "1": {
        "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": [ATTENDS, ATTENDS, ATTENDS, PLAIN],
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
        "layers_per_block": 2,
    },
    "2": {
        "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": [ATTENDS, ATTENDS, ATTENDS, PLAIN],
        "cross_attention_dim": 1024,
        "attention_head_dim": [5, 10, 20, 20],
        "layers_per_block": 2,
        "use_linear_projection": True,
    },
    "XL": {
        "block_out_channels": [320, 640, 1280],
        "down_block_types": [PLAIN, ATTENDS, ATTENDS],
        "cross_attention_dim": 2048,
        "attention_head_dim": [5, 10, 20],
        "layers_per_block": 2,
        "transformer_layers_per_block": [1, 2, 10],
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
OPEN_CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16}
OPEN_CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
POOLED = {"projection_dim": 1280, "architectures": ["CLIPTextModelWithProjection"]}


def unet_of(generation: str, channels: int = 4) -> dict[str, Any]:
    settings = {"in_channels": channels, **UNETS[generation]}
    return settings | {"up_block_types": [each.replace("Down", "Up") for each in settings["down_block_types"][::-1]]}


def shapes_of(generation: str, channels: int = 4) -> dict[str, Shape]:
    """Return the header of a published model: the names and shapes of its tensors."""
    unet = unet_of(generation, channels)
    shapes = {unet_name(name, unet): shape for name, shape in tensors("unet", unet).items()}
    shapes |= {vae_name(name, VAE): shape for name, shape in tensors("vae", VAE).items()}
    if generation == "2":
        shapes |= open_clip("cond_stage_model.model.", {**OPEN_CLIP_H, "num_hidden_layers": 24})
        return shapes
    clip = "cond_stage_model.transformer." if generation == "1" else "conditioner.embedders.0.transformer."
    shapes |= {f"{clip}{name}": shape for name, shape in tensors("text_encoder", CLIP_L).items()}
    if generation == "XL":
        shapes |= open_clip("conditioner.embedders.1.model.", {**OPEN_CLIP_G, **POOLED})
    return shapes


def tensors(component: str, settings: dict[str, Any]) -> dict[str, Shape]:
    expected = expected_of(component, settings)
    assert expected is not None
    return expected


def open_clip(prefix: str, settings: dict[str, Any]) -> dict[str, Shape]:
    named = [
        open_clip_tensor(name.removeprefix("text_model."), shape)
        for name, shape in tensors("text_encoder", settings).items()
    ]
    return {f"{prefix}{each[0]}": each[1] for each in named if each is not None}


def read(
    shapes: dict[str, Shape], predicts: Prediction | None = None, metadata: dict[str, str] | None = None
) -> CheckpointFolder:
    return read_checkpoint(CheckpointHeader(shapes, metadata or {}), predicts)


def settings_in(folder: CheckpointFolder, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(folder.files[name])
    return found


@pytest.mark.parametrize("channels", [4, 9])
@pytest.mark.parametrize("generation", ["1", "2", "XL"])
def test_the_settings_are_those_of_the_published_models(generation: str, channels: int) -> None:
    folder = read(shapes_of(generation, channels), "epsilon")

    inpaint, xl = "Inpaint" if channels == 9 else "", "XL" if generation == "XL" else ""
    assert folder.pipeline == f"StableDiffusion{xl}{inpaint}Pipeline"
    unet = settings_in(folder, "unet/config.json")
    assert {name: unet[name] for name in unet_of(generation)} == unet_of(generation, channels)
    assert unet["sample_size"] == (128 if xl else 64)
    vae = settings_in(folder, "vae/config.json")
    assert {name: vae[name] for name in VAE} == VAE
    assert vae["scaling_factor"] == (0.13025 if xl else 0.18215)
    first = {"1": CLIP_L, "2": OPEN_CLIP_H, "XL": CLIP_L}[generation]
    text = settings_in(folder, "text_encoder/config.json")
    assert {name: text[name] for name in first} == first
    assert text["hidden_act"] == ("gelu" if generation == "2" else "quick_gelu")
    if xl:
        second = settings_in(folder, "text_encoder_2/config.json")
        assert {name: second[name] for name in {**OPEN_CLIP_G, **POOLED}} == {**OPEN_CLIP_G, **POOLED}


@pytest.mark.parametrize("generation", ["1", "2", "XL"])
def test_the_settings_pass_the_checks_of_a_folder(generation: str, tmp_path: Any) -> None:
    folder = read(shapes_of(generation), "epsilon")
    for name, content in folder.files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)

    check_architecture(tmp_path, folder.pipeline)


@pytest.mark.parametrize("generation", ["1", "2", "XL"])
def test_the_names_are_those_that_diffusers_converts(generation: str) -> None:
    folder = read(shapes_of(generation), "epsilon")
    parts: list[tuple[str, Any, Callable[..., Any], str]] = [
        ("unet/config.json", UNet2DConditionModel, convert_ldm_unet_checkpoint, "model.diffusion_model."),
        ("vae/config.json", AutoencoderKL, convert_ldm_vae_checkpoint, "first_stage_model."),
    ]
    for name, kind, convert, prefix in parts:
        with torch.device("meta"):
            network = kind.from_config(settings_in(folder, name))
        given = {
            each: torch.empty(shape, device="meta")
            for each, shape in shapes_of(generation).items()
            if each.startswith(prefix)
        }

        converted = convert(checkpoint=given, config=settings_in(folder, name))

        wanted = {each: tensor.shape for each, tensor in network.state_dict().items()}
        assert {each: tensor.shape for each, tensor in converted.items()} == wanted


@pytest.mark.parametrize(
    ("generation", "more", "predicts", "metadata", "found", "side"),
    [
        ("1", {}, None, {}, "epsilon", 64),
        ("1", {}, "v_prediction", {}, "v_prediction", 64),
        ("2", {}, "epsilon", {}, "epsilon", 64),
        ("2", {}, "v_prediction", {}, "v_prediction", 96),
        ("2", {}, None, {"modelspec.prediction_type": "v"}, "v_prediction", 96),
        ("2", {}, None, {"modelspec.prediction_type": "epsilon"}, "epsilon", 64),
        ("XL", {}, None, {}, "epsilon", 128),
        ("XL", {"v_pred": ()}, None, {}, "v_prediction", 128),
        ("XL", {"v_pred": (), "ztsnr": ()}, None, {}, "v_prediction", 128),
    ],
)  # fmt: skip
def test_what_the_network_predicts(
    generation: str,
    more: dict[str, Shape],
    predicts: Prediction | None,
    metadata: dict[str, str],
    found: str,
    side: int,
) -> None:
    folder = read(shapes_of(generation) | more, predicts, metadata)

    scheduler = settings_in(folder, "scheduler/scheduler_config.json")
    assert (scheduler["prediction_type"], settings_in(folder, "unet/config.json")["sample_size"]) == (found, side)
    assert scheduler.get("rescale_betas_zero_snr", False) is ("ztsnr" in more)


def test_a_file_of_the_second_generation_that_does_not_say_what_it_predicts_is_refused() -> None:
    with pytest.raises(ValueError, match=r"does not say what it predicts: append #v_prediction .* or #epsilon"):
        read(shapes_of("2"))

    assert settings_in(read(shapes_of("2", 9)), "scheduler/scheduler_config.json")["prediction_type"] == "epsilon"


def without(prefix: str, generation: str = "1") -> dict[str, Shape]:
    return {name: shape for name, shape in shapes_of(generation).items() if not name.startswith(prefix)}


def only(prefix: str, generation: str = "1") -> dict[str, Shape]:
    return {name: shape for name, shape in shapes_of(generation).items() if name.startswith(prefix)}


IN = "model.diffusion_model.input_blocks"
FOREIGN: list[tuple[dict[str, Shape], str]] = [
    ({}, "has no tensors: it is no checkpoint"),
    ({"a": (1,), "b": (2,), "c": (3,)}, "has 3 tensors, such as a, b: it is no checkpoint of Stable Diffusion 1.x"),
    ({"lora_unet_down_blocks_0.lora_down.weight": (4, 320)}, "is a LoRA; name it in the stage's field loras"),
    ({"unet.down_blocks.0.to_q.lora_A.weight": (4, 320)}, "is a LoRA; name it in the stage's field loras"),
    ({"unet.mid_block.processor.to_k_lora.down.weight": (4, 320)}, "is a LoRA; name it"),
    ({"lora_unet_mid.hada_w1_a": (4, 4)}, "is a Lo"),
    ({"emb_params": (1, 768)}, "is an embedding; name it in the stage's field embeddings"),
    ({"clip_l": (1, 768), "clip_g": (1, 1280)}, "is an embedding"),
    ({"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": (1, 1)}, "transformer of Stable Diffusion 3"),
    ({"double_blocks.0.img_attn.qkv.weight": (1, 1)}, "is a transformer of Flux, which is not supported"),
    ({**shapes_of("1"), "control_model.time_embed.0.weight": (1, 1)}, "is a ControlNet, which is not supported"),
    ({**shapes_of("XL"), "edm_mean": (1, 4, 1, 1)}, "a noise schedule of its own"),
    ({"conditioner.embedders.0.model.ln_final.weight": (1,)}, "is a refiner of Stable Diffusion XL; name a base"),
    (only("first_stage_model."), r"is only an autoencoder \(VAE\); name a checkpoint"),
    ({"encoder.conv_in.weight": (128, 3, 3, 3), "decoder.conv_in.bias": (512,)}, r"is only an autoencoder \(VAE\)"),
    (only("model.diffusion_model."), "is only a UNet; name a checkpoint with UNet, autoencoder and text encoder"),
    ({"conv_in.weight": (320, 4, 3, 3), "down_blocks.0.resnets.0.conv1.bias": (320,)}, "is only a UNet; name a"),
    (only("cond_stage_model."), "is only a text encoder; name a checkpoint"),
    (without("first_stage_model."), r"has no autoencoder \(VAE\); name a checkpoint that has one"),
    (without(f"{IN}.0.0.bias"), rf"lacks the tensor {IN}\.0\.0\.bias: copy it again, or name"),
    (without(f"{IN}.0.0.weight"), rf"lacks the tensor {IN}\.0\.0\.weight: copy it again"),
    (without(f"{IN}.4.1.transformer_blocks.0.attn2"), rf"lacks the tensor {IN}\.4\.1\.\S+attn2.to_q.weight and 4 more"),
    (without("first_stage_model.decoder.mid.attn_1"), r"lacks the tensor first_stage\S+mid\.attn_1\S+ and 9"),
    (without("cond_stage_model.transformer.text_model.final"), r"lacks the tensor cond_\S+final_layer_norm"),
    (without("conditioner.embedders.1.model.text_projection", "XL"), r"lacks the tensor \S+1\.model\.text_projection:"),
    (without("conditioner.embedders.0", "XL"), r"lacks the tensor conditioner\.embedders\.0\.\S+token_embedding"),
    ({**shapes_of("1"), f"{IN}.0.0.bias": (7,)}, rf"has {IN}.0.0.bias of shape \[7\] where the rest .* \[320\]"),
    ({**shapes_of("1"), f"{IN}.0.0.weight": (320, 8, 3, 3)}, "takes 8 channels where its latents have 4: .* another"),
    ({**shapes_of("2"), "model.diffusion_model.label_emb.weight": (1000, 1280)}, "more conditions than a text"),
    (
        shapes_of("1") | {"cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": (49410, 768)},
        "has a text encoder of 49,410 words, and CLIP's vocabulary has 49,408: give it as a folder",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("shapes", "words"), FOREIGN)
def test_a_file_that_cannot_be_drawn_with_is_refused_with_what_it_is(shapes: dict[str, Shape], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        read(shapes, "epsilon")

    assert str(caught.value).count(".\n") == 0
    assert str(caught.value).endswith(".")


def test_an_older_file_without_the_part_text_model_is_read() -> None:
    older = {name.replace("transformer.text_model.", "transformer."): shape for name, shape in shapes_of("1").items()}

    assert older != shapes_of("1")
    assert read(older) == read(shapes_of("1"))
