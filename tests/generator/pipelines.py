"""Tiny pipelines of random weights with the layouts of real ones: they differ as those do, but are small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.generator.conftest import MAX_TOKENS, _tokenizer

SHAPES = ("sd1", "sd2", "xl", "turbo", "lcm")


def write_shape(folder: Path, shape: str, *, channels: int = 4) -> Path:
    """Write a pipeline with the layout of Stable Diffusion 1, 2 (768-v), XL, SD-Turbo or LCM Dreamshaper.

    With 9 input channels the UNet is an inpainting UNet, and the pipeline is that of the model's inpainting version;
    those of SD-Turbo and LCM have none.
    """
    import torch
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        EulerDiscreteScheduler,
        LatentConsistencyModelPipeline,
        LCMScheduler,
        StableDiffusionInpaintPipeline,
        StableDiffusionPipeline,
        StableDiffusionXLInpaintPipeline,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )

    torch.manual_seed(7)
    wide = shape in {"sd2", "turbo"}
    first = _encoder(48 if wide else 32, act="gelu" if wide else "quick_gelu", layers=2)
    unet: dict[str, Any] = {"cross_attention_dim": 48 if wide else 32, "attention_head_dim": 2}
    if wide:
        unet |= {"attention_head_dim": [2, 4], "use_linear_projection": True}
    if shape == "xl":
        unet |= {
            "cross_attention_dim": 32 + 40,
            "attention_head_dim": [2, 4],
            "use_linear_projection": True,
            "transformer_layers_per_block": [1, 2],
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 6 * 8 + 24,
        }
    if shape == "lcm":
        unet |= {"time_cond_proj_dim": 16}
    parts: dict[str, Any] = {
        "unet": UNet2DConditionModel(
            sample_size=32 if shape == "xl" else 16,
            in_channels=channels,
            block_out_channels=(16, 32),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            norm_num_groups=4,
            **unet,
        ),
        "vae": AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(8, 8, 8),
            norm_num_groups=1,
            sample_size=64,
            scaling_factor=0.13025 if shape == "xl" else 0.18215,
        ),
        "text_encoder": first,
        "tokenizer": _tokenizer(),
    }
    if wide:
        parts["tokenizer"].pad_token = "!"
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    if shape == "xl":
        parts |= {"text_encoder_2": _encoder(40, act="gelu", layers=2, pooled=24), "tokenizer_2": _tokenizer()}
        parts["tokenizer_2"].pad_token = "!"
        scheduler = EulerDiscreteScheduler(**betas, timestep_spacing="leading", steps_offset=1)
        drawer: Any = StableDiffusionXLPipeline if channels == 4 else StableDiffusionXLInpaintPipeline
        _write(drawer(**parts, scheduler=scheduler, add_watermarker=False), folder)
        return folder
    unchecked = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    if shape == "lcm":
        parts["scheduler"] = LCMScheduler(**betas)
        _write(LatentConsistencyModelPipeline(**parts, **unchecked), folder)
        return folder
    if shape == "turbo":
        parts["scheduler"] = EulerDiscreteScheduler(**betas, timestep_spacing="trailing")
    else:
        prediction = "v_prediction" if shape == "sd2" else "epsilon"
        parts["scheduler"] = DDIMScheduler(**betas, clip_sample=False, prediction_type=prediction, steps_offset=1)
    drawer = StableDiffusionPipeline if channels == 4 else StableDiffusionInpaintPipeline
    _write(drawer(**parts, **unchecked), folder)
    return folder


def _write(pipeline: Any, folder: Path) -> None:
    pipeline.save_pretrained(folder)


def _encoder(width: int, *, act: str, layers: int, pooled: int | None = None) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    tokenizer = _tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        hidden_act=act,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=pooled or width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (CLIPTextModelWithProjection if pooled else CLIPTextModel)(config)
