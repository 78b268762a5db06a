"""A pipeline's parts, loaded for inference: networks on their device, everything from the one folder.

Each part is loaded by its own class, never by what `model_index.json` names, so no folder can make us import
code.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel
from transformers.utils import logging as transformers_logging

from diffugen_api.plan import SpecError
from diffugen_generator.diffusion.devices import move
from diffugen_generator.diffusion.schedulers import open_scheduler
from diffugen_generator.diffusion.tokens import PromptTokenizer
from diffugen_generator.models import ModelFolder


@dataclass(frozen=True)
class Components:
    """A Stable Diffusion pipeline, ready to draw."""

    model: ModelFolder
    tokenizer: PromptTokenizer
    text_encoder: CLIPTextModel
    unet: Any
    """A diffusers `UNet2DConditionModel`; diffusers ships no types, so to mypy its classes are nothing."""
    vae: Any
    """A diffusers `AutoencoderKL`."""
    scheduler: Any
    """A diffusers scheduler; its state belongs to one batch at a time."""
    device: torch.device
    dtype: torch.dtype

    @property
    def parameters(self) -> int:
        """How many numbers the UNet has learnt: 860 million for Stable Diffusion 1."""
        return sum(int(weights.numel()) for weights in self.unet.parameters())

    @property
    def inpaints(self) -> bool:
        """Whether the UNet was made for inpainting: it is given a mask and what is around it, too."""
        return int(self.unet.config.in_channels) != int(self.vae.config.latent_channels)

    @property
    def reduction(self) -> int:
        """Pixels on a side of one latent cell: 8 for Stable Diffusion."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))


def load(model: ModelFolder, device: torch.device, scheduler: str | None = None) -> Components:
    """Load `model` for inference: bf16 on CUDA, fp32 on the CPU. Raises `SpecError` where it cannot work, and
    `DeviceFailed` where the device cannot.

    `scheduler` is a name of `txt2img.scheduler`; the folder's own where absent.
    """
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # untyped there
    try:
        text_encoder = _network(CLIPTextModel, model.path / "text_encoder", dtype)
        unet = _network(UNet2DConditionModel, model.path / "unet", dtype)
        vae = _network(AutoencoderKL, model.path / "vae", dtype)
        steps = open_scheduler(model.path / "scheduler", scheduler)
        _check(unet, vae, text_encoder)
    except (OSError, ValueError, RuntimeError) as error:
        raise SpecError("UnsupportedModel", f"the model {model.uri} cannot be loaded: {error}") from error
    text_encoder = move(text_encoder, device)
    unet, vae = (move(network, device, memory_format=torch.channels_last) for network in (unet, vae))
    return Components(model, PromptTokenizer(model), text_encoder, unet, vae, steps, device, dtype)


def _network(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    """Load a network from the safetensors of `folder`; half precision where that is all there is."""
    names = [file.name for file in folder.glob("*.safetensors")]
    variant = "fp16" if names and all(".fp16." in name for name in names) else None
    # without accelerate diffusers would fall back to this by itself, with a warning for each network
    options = {} if kind is CLIPTextModel else {"low_cpu_mem_usage": find_spec("accelerate") is not None}
    network = kind.from_pretrained(
        folder, dtype=dtype, variant=variant, use_safetensors=True, local_files_only=True, **options
    )
    return network.eval().requires_grad_(False)


def _check(unet: Any, vae: Any, text_encoder: CLIPTextModel) -> None:
    """Raise `ValueError` for pipelines of the right class that need inputs we do not give."""
    latents, text = int(vae.config.latent_channels), int(text_encoder.config.hidden_size)
    if unet.config.in_channels not in {latents, 2 * latents + 1}:
        raise ValueError(f"its UNet takes {unet.config.in_channels} channels where the latents have {latents}.")
    if unet.config.cross_attention_dim != text:
        raise ValueError(f"its UNet reads texts of width {unet.config.cross_attention_dim}, its encoder writes {text}.")
    if unet.config.time_cond_proj_dim is not None:
        raise ValueError("its UNet takes the guidance scale as an input (a distilled model), which is not supported.")
    if unet.config.class_embed_type is not None or unet.config.addition_embed_type is not None:
        raise ValueError("its UNet takes more conditions than a text, which is not supported.")
