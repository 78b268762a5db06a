"""Checks that the networks of a folder fit together, only by their settings: no weights are loaded. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from diffugen_generator.families.folder import settings_from, whole_number

MARKS: Final = 2
"""The start and end marks that CLIP puts around a prompt."""
END_OF_WORD: Final = "</w>"
"""The suffix of a token in CLIP's vocabulary that ends a word."""

SDXL_PIPELINES: Final = (
    "StableDiffusionXLPipeline",
    "StableDiffusionXLImg2ImgPipeline",
    "StableDiffusionXLInpaintPipeline",
)
"""Pipelines with two text encoders."""

_VAE_CHANNELS = 4
"""diffusers' default of `latent_channels` and of a UNet's `in_channels`."""

_WORDS: Final = ("tokenizer.json", "vocab.json", "added_tokens.json", "special_tokens_map.json")
"""The JSON files of a tokenizer's folder, besides its settings; all of them are optional."""


def check_architecture(path: Path, pipeline: str) -> None:
    """Raise `ValueError` if the pipeline cannot draw; the error's text ends a sentence about the model."""
    unet, vae, text = (_settings(path, component) for component in ("unet", "vae", "text_encoder"))
    _settings(path, "scheduler", "scheduler_config.json")
    channels = whole_number(unet, "in_channels", "unet/config.json", _VAE_CHANNELS)
    latents = whole_number(vae, "latent_channels", "vae/config.json", _VAE_CHANNELS)
    if channels not in {latents, 2 * latents + 1}:  # the latter takes a mask and the masked image
        raise ValueError(
            f"has a UNet that takes {channels} channels where its latents have {latents}: it is made for another task; "
            "name a model that draws from text."
        )
    widths = [whole_number(text, "hidden_size", "text_encoder/config.json", 512)]
    _check_side(unet)
    _check_tokenizer(path, "tokenizer")
    if pipeline in SDXL_PIPELINES:
        second = _settings(path, "text_encoder_2")
        widths.append(whole_number(second, "hidden_size", "text_encoder_2/config.json", 512))
        _check_sdxl(unet, whole_number(second, "projection_dim", "text_encoder_2/config.json", 512))
        _check_tokenizer(path, "tokenizer_2")
    elif unet.get("addition_embed_type") is not None:
        raise ValueError("has a UNet that takes more conditions than a text, which is not supported.")
    if unet.get("class_embed_type") is not None:
        raise ValueError("has a UNet that takes more conditions than a text, which is not supported.")
    reads = unet.get("cross_attention_dim", 1280)
    if reads not in (sum(widths), [sum(widths)] * len(reads) if isinstance(reads, list) else None):
        raise ValueError(
            f"has a UNet that reads texts of width {reads} where its text encoders write {sum(widths)}: its folders "
            "are of several models; save it again."
        )


def takes_a_mask(path: Path) -> bool:
    """Return whether a model's UNet takes a mask and the masked image: two sets of latents and one channel."""
    unet, vae = (_settings(path, component) for component in ("unet", "vae"))
    latents = whole_number(vae, "latent_channels", "vae/config.json", _VAE_CHANNELS)
    return whole_number(unet, "in_channels", "unet/config.json", _VAE_CHANNELS) == 2 * latents + 1


def tokens_at_once(path: Path, tokenizer: str) -> int:
    """Return how many tokens the text encoder of `tokenizer` reads at once; raise `ValueError` if no word fits."""
    encoder = encoder_of(tokenizer)
    positions = whole_number(_settings(path, encoder), "max_position_embeddings", f"{encoder}/config.json")
    settings = _settings(path, tokenizer, "tokenizer_config.json")
    limit = min(positions, whole_number(settings, "model_max_length", f"{tokenizer}/tokenizer_config.json", positions))
    if limit <= MARKS:
        raise ValueError(
            f"reads texts of {limit} tokens, marks included, so no word fits: fix model_max_length in "
            f"{tokenizer}/tokenizer_config.json or max_position_embeddings in {encoder}/config.json."
        )
    return limit


def encoder_of(tokenizer: str) -> str:
    """Return the text encoder that belongs to `tokenizer`: `text_encoder_2` for `tokenizer_2`."""
    return tokenizer.replace("tokenizer", "text_encoder")


def _check_side(unet: Mapping[str, Any]) -> None:
    """Raise `ValueError` if a UNet's settings lack the side of the latents of its training: labels depend on it."""
    side = unet.get("sample_size")
    sides = side if isinstance(side, list) and len(side) == 2 else [side]  # height and width
    if any(isinstance(each, bool) or not isinstance(each, int) or each < 1 for each in sides):
        raise ValueError(
            f"has {'no sample_size' if side is None else f'sample_size {side!r}'} in unet/config.json, the side of the "
            "latents that it was trained on, by which attention is read: write it there, such as 64 for images of "
            "512 pixels."
        )


def _check_tokenizer(path: Path, tokenizer: str) -> None:
    """Raise `ValueError` if a tokenizer's files are broken or missing: without words it would read nothing."""
    found = {name: _settings(path, tokenizer, name) for name in _WORDS if (path / tokenizer / name).is_file()}
    if "tokenizer.json" not in found and not ("vocab.json" in found and (path / tokenizer / "merges.txt").is_file()):
        raise ValueError(f"has neither tokenizer.json nor vocab.json and merges.txt in {tokenizer}/; save it again.")
    whole = found.get("tokenizer.json", {"model": {"vocab": {}}}).get("model")
    if not isinstance(whole, dict) or not isinstance(whole.get("vocab"), dict):
        raise ValueError(f"has a tokenizer.json in {tokenizer}/ without a vocabulary; save it again.")  # noqa: TRY004 - its file's
    encoder = encoder_of(tokenizer)
    settings = _settings(path, encoder)
    if "vocab_size" in settings:
        whole_number(settings, "vocab_size", f"{encoder}/config.json")
    tokens_at_once(path, tokenizer)


def _check_sdxl(unet: Mapping[str, Any], pooled: int) -> None:
    if unet.get("addition_embed_type") != "text_time":
        raise ValueError("has a UNet that takes other conditions than Stable Diffusion XL's, which is not supported.")
    wanted = unet.get("projection_class_embeddings_input_dim")
    given = 6 * whole_number(unet, "addition_time_embed_dim", "unet/config.json") + pooled  # six: sizes and crop
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
        raise ValueError(f"has no {name} in {component}/; save it again.") from None
    return settings_from(content, f"{name} in {component}/")
