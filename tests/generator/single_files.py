"""Checkpoints in single files: tiny pipelines of random weights, written in the layout of latent diffusion (LDM).

The names here are made from those of diffusers by an own table, which is the inverse of diffusers' conversion.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

LAYOUTS = ("1", "1-inpaint", "2", "2-v", "2-inpaint", "XL", "XL-inpaint")
_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
_TOP = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip


def write_folder(folder: Path, layout: str) -> Path:
    """Write a tiny pipeline with the settings of a generation, as a folder of diffusers."""
    import torch
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        EulerDiscreteScheduler,
        PNDMScheduler,
        StableDiffusionInpaintPipeline,
        StableDiffusionPipeline,
        StableDiffusionXLInpaintPipeline,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )

    torch.manual_seed(5)
    generation, _, variant = layout.partition("-")
    xl, inpaints = generation == "XL", variant == "inpaint"
    widths = {"1": (32, 64), "2": (64, 64), "XL": (64, 64, 128)}[generation]
    attends = [True, False] if generation != "XL" else [False, True, True]
    blocks = ["CrossAttnDownBlock2D" if each else "DownBlock2D" for each in attends]
    unet: dict[str, Any] = {"cross_attention_dim": 64, "attention_head_dim": 8}
    if generation != "1":
        unet |= {"attention_head_dim": [width // 64 for width in widths], "use_linear_projection": True}
    if xl:
        unet |= {
            "cross_attention_dim": 64 + 128,
            "transformer_layers_per_block": [1, 1, 2],
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 6 * 8 + 96,
        }
    parts: dict[str, Any] = {
        "unet": UNet2DConditionModel(
            sample_size=128 if xl else 96 if variant == "v" else 64,
            in_channels=9 if inpaints else 4,
            block_out_channels=widths,
            layers_per_block=1,
            down_block_types=blocks,
            up_block_types=[each.replace("Down", "Up") for each in reversed(blocks)],
            **unet,
        ),
        "vae": AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(32, 32, 64),
            layers_per_block=1,
            sample_size=1024 if xl else 512,
            scaling_factor=0.13025 if xl else 0.18215,
            force_upcast=xl,
        ),
        "text_encoder": _encoder(
            64, act="gelu" if generation == "2" else "quick_gelu", layers=23 if generation == "2" else 2
        ),
        "tokenizer": _tokenizer("!" if generation == "2" else "<|endoftext|>"),
    }
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    unchecked = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    if xl:
        parts |= {"text_encoder_2": _encoder(128, act="gelu", layers=3, pooled=96), "tokenizer_2": _tokenizer("!")}
        parts["scheduler"] = EulerDiscreteScheduler(**betas, timestep_spacing="leading")
        kind: Any = StableDiffusionXLInpaintPipeline if inpaints else StableDiffusionXLPipeline
        kind(**parts, add_watermarker=False).save_pretrained(folder)
        return folder
    if generation == "1":
        parts["scheduler"] = PNDMScheduler(**betas, skip_prk_steps=True, set_alpha_to_one=False)
    else:
        prediction = "v_prediction" if variant == "v" else "epsilon"
        parts["scheduler"] = DDIMScheduler(
            **betas, clip_sample=False, set_alpha_to_one=False, prediction_type=prediction
        )
    kind = StableDiffusionInpaintPipeline if inpaints else StableDiffusionPipeline
    kind(**parts, **unchecked).save_pretrained(folder)
    return folder


@cache
def _tokenizer(pad: str) -> Any:
    """Return CLIP's tokenizer; that it is CLIP's is tested apart."""
    import json
    import tempfile

    from transformers import CLIPTokenizer

    from diffugen_generator.families.unet.clip_tokenizer import tokenizer_files

    with tempfile.TemporaryDirectory() as folder:
        for name, content in tokenizer_files(pads_with_end=pad != "!").items():
            (Path(folder) / name).write_bytes(content)
        settings = json.loads((Path(folder) / "tokenizer_config.json").read_bytes())
        assert settings["pad_token"] == pad
        return CLIPTokenizer.from_pretrained(folder)


def _encoder(width: int, *, act: str, layers: int, pooled: int | None = None) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=49_408,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        hidden_act=act,
        max_position_embeddings=77,
        projection_dim=pooled or width,
        bos_token_id=49_406,
        eos_token_id=49_407,
        pad_token_id=0 if act == "gelu" else 49_407,
    )
    return (CLIPTextModelWithProjection if pooled else CLIPTextModel)(config)


def ldm_tensors(folder: Path, layout: str) -> dict[str, Any]:
    """Return the weights of a folder by their names in a single file."""
    import torch
    from safetensors.torch import load_file

    generation = layout.partition("-")[0]

    def weights(component: str) -> dict[str, Any]:
        [file] = (folder / component).glob("*.safetensors")
        return load_file(file)

    found: dict[str, Any] = {}
    unet = weights("unet")
    for name, tensor in unet.items():
        found[f"model.diffusion_model.{_unet_name(name, unet)}"] = tensor
    for name, tensor in weights("vae").items():
        new = _vae_name(name)
        found[f"first_stage_model.{new}"] = (
            tensor[:, :, None, None] if ".attn_1." in new and tensor.ndim == 2 else tensor
        )
    if generation == "1":
        found |= {f"cond_stage_model.transformer.{_whole(n)}": each for n, each in weights("text_encoder").items()}
        found["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    elif generation == "2":
        texts = _open_clip(weights("text_encoder"))
        last = {name: each for name, each in texts.items() if ".resblocks.22." in name}
        texts |= {name.replace(".22.", ".23."): torch.randn_like(each) for name, each in last.items()}
        texts |= {"text_projection": torch.randn(64, 64), "logit_scale": torch.tensor(100.0)}
        found |= {f"cond_stage_model.model.{name}": each for name, each in texts.items()}
    else:
        first = {_whole(name): each for name, each in weights("text_encoder").items()}
        found |= {f"conditioner.embedders.0.transformer.{name}": each for name, each in first.items()}
        second = _open_clip(weights("text_encoder_2"))
        found |= {f"conditioner.embedders.1.model.{name}": each for name, each in second.items()}
    found["alphas_cumprod"] = torch.linspace(1, 0, 1000)
    return {name: each.contiguous() for name, each in found.items()}


def write_file(file: Path, folder: Path, layout: str, metadata: Mapping[str, str] | None = None) -> Path:
    """Write the pipeline of a folder as a single file: safetensors or, by its name, a pickle of torch."""
    import torch
    from safetensors.torch import save_file

    tensors = ldm_tensors(folder, layout)
    if file.suffix == ".ckpt":
        torch.save({"state_dict": tensors, "global_step": 5, "epoch": 1}, file)
    else:
        save_file(tensors, file, metadata=dict(metadata or {}) or None)
    return file


def _whole(name: str) -> str:
    return name if name.startswith("text_model.") else f"text_model.{name}"


def _end(name: str) -> tuple[str, str]:
    module, _, end = name.rpartition(".")
    return module, end


def _unet_name(name: str, names: Any) -> str:
    """Return the name in LDM of a tensor of the UNet, whose levels have one layer each."""
    module, end = _end(name)
    if module in _TOP:
        return f"{_TOP[module]}.{end}"
    side, *rest = name.split(".")
    if side == "mid_block":
        kind, number, *inner = rest
        at = {"resnets0": 0, "attentions0": 1, "resnets1": 2}[kind + number]
        return f"middle_block.{at}.{_inner(kind, inner)}"
    block, kind, layer, *inner = rest
    first = int(block) * 2 + int(layer)  # one layer and one resampling downwards, two layers upwards
    if kind == "downsamplers":
        return f"input_blocks.{int(block) * 2 + 2}.0.op.{inner[-1]}"
    if kind == "upsamplers":
        attends = any(each.startswith(f"up_blocks.{block}.attentions.") for each in names)
        return f"output_blocks.{int(block) * 2 + 1}.{2 if attends else 1}.conv.{inner[-1]}"
    within = f"{0 if kind == 'resnets' else 1}.{_inner(kind, inner)}"
    return f"input_blocks.{first + 1}.{within}" if side == "down_blocks" else f"output_blocks.{first}.{within}"


def _inner(kind: str, parts: list[str]) -> str:
    return f"{_RESNET[parts[0]]}.{parts[1]}" if kind == "resnets" else ".".join(parts)


def _vae_name(name: str) -> str:
    changes: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
        (r"mid_block\.attentions\.0\.to_out\.0\.", "mid.attn_1.proj_out."),
        (r"mid_block\.attentions\.0\.group_norm\.", "mid.attn_1.norm."),
        (r"mid_block\.attentions\.0\.to_", "mid.attn_1."),
        (r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}"),
        (r"down_blocks\.(\d)\.resnets", r"down.\1.block"),
        (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
        (r"up_blocks\.(\d)\.resnets", lambda m: f"up.{2 - int(m[1])}.block"),
        (r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{2 - int(m[1])}.upsample"),
        ("conv_shortcut", "nin_shortcut"),
        ("conv_norm_out", "norm_out"),
    ]
    for pattern, new in changes:
        name = re.sub(pattern, new, name)
    return name


def _open_clip(weights: Mapping[str, Any]) -> dict[str, Any]:
    import torch

    found: dict[str, Any] = {}
    changes = {
        "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
        "self_attn.out_proj": "attn.out_proj", "embeddings.token_embedding": "token_embedding",
        "embeddings.position_embedding.weight": "positional_embedding", "final_layer_norm": "ln_final",
        "encoder.layers": "transformer.resblocks",
    }  # fmt: skip
    for name, tensor in weights.items():
        if name == "text_projection.weight":
            found["text_projection"] = tensor.T
            continue
        if ".k_proj." in name or ".v_proj." in name:
            continue
        new = name.removeprefix("text_model.")
        for old, present in changes.items():
            new = new.replace(old, present)
        if ".q_proj." in name:
            parts = [weights[name.replace(".q_proj.", f".{each}_proj.")] for each in "qkv"]
            new = new.replace("self_attn.q_proj.", "attn.in_proj_")
            found[new] = torch.cat(parts)
            continue
        found[new] = tensor
    return found
