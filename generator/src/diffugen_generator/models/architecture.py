"""Whether a model's networks fit each other and what we give them, told by its settings without loading anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffugen_generator.models.files import settings_from

_VAE_CHANNELS = 4
"""diffusers' default of `latent_channels` and of a UNet's `in_channels`."""


def check_architecture(path: Path, pipeline: str) -> None:
    """Raise `ValueError` where nothing can be drawn with the pipeline; its text ends a sentence about the model."""
    unet, vae, text = (_settings(path, component) for component in ("unet", "vae", "text_encoder"))
    _settings(path, "scheduler", "scheduler_config.json")
    channels, latents = int(unet.get("in_channels", _VAE_CHANNELS)), int(vae.get("latent_channels", _VAE_CHANNELS))
    if channels not in {latents, 2 * latents + 1}:  # the latter is told a mask and what is around it
        raise ValueError(
            f"has a UNet that takes {channels} channels where its latents have {latents}: it is made for another task; "
            "name a model that draws from text."
        )
    widths = [int(text.get("hidden_size", 512))]
    if pipeline == "StableDiffusionXLPipeline":
        second = _settings(path, "text_encoder_2")
        widths.append(int(second.get("hidden_size", 512)))
        _check_extended(unet, int(second.get("projection_dim", 512)))
    elif unet.get("addition_embed_type") is not None:
        raise ValueError("has a UNet that takes more conditions than a text, which is not supported.")
    if unet.get("class_embed_type") is not None:
        raise ValueError("has a UNet that takes more conditions than a text, which is not supported.")
    reads = unet.get("cross_attention_dim", 1280)
    if reads not in (sum(widths), [sum(widths)] * len(reads) if isinstance(reads, list) else None):
        raise ValueError(
            f"has a UNet that reads texts of width {reads} where its text encoders write {sum(widths)}: its folders "
            "are of several models; save it anew."
        )


def takes_a_mask(path: Path) -> bool:
    """Return whether a model's UNet is given a mask and what is around it: two sets of latents and one channel."""
    unet, vae = (_settings(path, component) for component in ("unet", "vae"))
    latents = int(vae.get("latent_channels", _VAE_CHANNELS))
    return int(unet.get("in_channels", _VAE_CHANNELS)) == 2 * latents + 1


def _check_extended(unet: Mapping[str, Any], pooled: int) -> None:
    if unet.get("addition_embed_type") != "text_time":
        raise ValueError("has a UNet that takes other conditions than Stable Diffusion XL's, which is not supported.")
    wanted = unet.get("projection_class_embeddings_input_dim")
    given = 6 * int(unet.get("addition_time_embed_dim") or 0) + pooled  # six numbers: sizes and crop
    if wanted != given:
        raise ValueError(
            f"has a UNet that takes {wanted} further inputs where there are {given}: it is a refiner, or its "
            "folders are of several models; name a base model."
        )


def _settings(path: Path, component: str, name: str = "config.json") -> dict[str, Any]:
    file = path / component / name
    try:
        content = file.read_bytes()
    except OSError:
        raise ValueError(f"has no {name} in {component}/.") from None
    return settings_from(content, f"{name} in {component}/")
