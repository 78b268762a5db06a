"""A pipeline's components, loaded for inference from one folder, with the networks on their device.

Each component is loaded by a fixed class, never by a class that `model_index.json` names. So a folder cannot make this
program import code.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import CLIPTextModel, CLIPTextModelWithProjection
from transformers.utils import logging as transformers_logging

from diffugen_api.plan import SpecError
from diffugen_api.prompt_weights import Prompt
from diffugen_generator.failures import first_line
from diffugen_generator.families.embedding import Embedding
from diffugen_generator.families.folder import INDEX, PICKLED, ModelFolder, settings_of, variant_of
from diffugen_generator.families.lora import Lora
from diffugen_generator.families.model import Conditioning, EncodedText, Predictor
from diffugen_generator.families.placement import dtype_for, move, unet_layout
from diffugen_generator.families.prompts import TokenizedPrompt
from diffugen_generator.families.unet.architecture import SDXL_PIPELINES
from diffugen_generator.families.unet.attention import UNetAttention
from diffugen_generator.families.unet.latents import decode, encode_images
from diffugen_generator.families.unet.lora_fusion import fuse
from diffugen_generator.families.unet.prediction import GRAY, UNetPredictor
from diffugen_generator.families.unet.schedulers import (
    DiffusersSampler,
    forward_process,
    open_scheduler,
    prediction_target,
)
from diffugen_generator.families.unet.single_file import SingleFile
from diffugen_generator.families.unet.text_encoding import TextEncoder, TextEncoding
from diffugen_generator.families.unet.text_projections import compute_text_projections, keep_text_projections
from diffugen_generator.families.unet.tokens import PromptTokenizer

_OF_TRANSFORMERS = (CLIPTextModel, CLIPTextModelWithProjection)


@dataclass(frozen=True)
class Components:
    """A Stable Diffusion pipeline, ready to draw."""

    model: ModelFolder
    encoders: tuple[TextEncoder, ...]
    """One encoder; two for Stable Diffusion XL, whose states are concatenated."""
    unet: Any
    """A diffusers `UNet2DConditionModel`. Its type is `Any`, because diffusers has no types for mypy."""
    vae: Any
    """A diffusers `AutoencoderKL`."""
    scheduler: Any
    """A diffusers scheduler; its state belongs to one batch at a time."""
    device: torch.device
    dtype: torch.dtype
    zero_negative_embeds: bool = False
    """Whether a missing negative text is encoded as zeros, and not as the states of the empty text."""

    @property
    def tokenizer(self) -> PromptTokenizer:
        """The first encoder's tokenizer; the other tokenizers divide texts in the same way."""
        return self.encoders[0].tokenizer

    @property
    def is_sdxl(self) -> bool:
        """Whether the UNet also reads the pooled text and the image's size, as in Stable Diffusion XL."""
        return bool(self.unet.config.addition_embed_type == "text_time")

    @property
    def parameters(self) -> int:
        """The number of the UNet's parameters: 860 million for Stable Diffusion 1."""
        return sum(int(weights.numel()) for weights in self.unet.parameters())

    @property
    def inpaints(self) -> bool:
        """Whether the UNet was made for inpainting: it takes a mask and the masked image as extra input."""
        return int(self.unet.config.in_channels) != int(self.vae.config.latent_channels)

    @property
    def cell(self) -> int:
        """The side of one latent cell in pixels: 8 for Stable Diffusion."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def trained_side(self) -> int:
        """The side in pixels of the square images that the UNet was trained on."""
        side = self.unet.config.sample_size
        return int(side if isinstance(side, int) else min(side)) * self.cell

    @property
    def reads_negative(self) -> bool:
        """Whether guidance takes a second pass; a distilled UNet reads the scale as an input."""
        return bool(self.unet.config.time_cond_proj_dim is None)

    @cached_property
    def sampler(self) -> DiffusersSampler:
        """The scheduler, with the interface that drawing uses."""
        return DiffusersSampler(self.scheduler, self.device)

    @property
    def attention(self) -> UNetAttention:
        """Reads cross-attention and self-attention of the UNet."""
        return UNetAttention(self.unet, self.model.uri)

    def compile_blocks(self) -> None:
        """Compile the UNet's transformer blocks, which take most of its time; its images are the same to rounding.

        Regional compilation, as diffusers' `compile_repeated_blocks` has it: one block is compiled for each shape.
        """
        compute_text_projections(self.unet)
        self.unet.compile_repeated_blocks(dynamic=False)

    def with_own_sampler(self) -> Components:
        """Return components with the same networks and their own scheduler."""
        return replace(self, scheduler=copy.deepcopy(self.scheduler))

    def read(self, prompt: Prompt) -> TokenizedPrompt:
        """Return a prompt's tokens."""
        return self.tokenizer.read(prompt)

    def encode(self, texts: Sequence[Prompt]) -> list[EncodedText]:
        """Return each text's states [windows * limit, width] with its weights applied, and its pooled state [width]."""
        return self._text_encoding.encode(texts)

    @cached_property
    def _text_encoding(self) -> TextEncoding:
        return TextEncoding(self.encoders, self.device)

    def _times(self, latents: torch.Tensor, step: int) -> torch.Tensor:
        return torch.full((len(latents),), step, device=latents.device)

    @cached_property
    def _forward(self) -> Any:
        return forward_process(self.scheduler)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Return (c, h, w) of the latents of images of `height` x `width` pixels."""
        return int(self.vae.config.latent_channels), height // self.cell, width // self.cell

    def encode_images(self, images: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """Encode images [height, width, 3] of one size as scaled latents [b, c, h, w]."""
        return encode_images(self.vae, self.device, images)

    def decode(self, latents: Sequence[torch.Tensor]) -> list[NDArray[np.uint8]]:
        """Decode latents [c, h, w] of one size to images [height, width, 3], sRGB."""
        return decode(self.vae, latents)

    def surroundings(
        self, images: Sequence[NDArray[np.uint8]], masks: Sequence[NDArray[np.bool_]], cells: torch.Tensor
    ) -> torch.Tensor:
        """Return mask and masked image [b, 1 + c, h, w]; the redrawn part is gray (Rombach et al. 2022)."""
        around = [np.where(mask[:, :, None], np.uint8(GRAY), image) for image, mask in zip(images, masks, strict=True)]
        latents = self.encode_images(around)
        return torch.cat([cells.to(latents.dtype), latents], dim=1)

    def predictor(
        self, conditioning: Conditioning, *, guidance: float | None = None, surroundings: torch.Tensor | None = None
    ) -> Predictor:
        """Return the function that predicts with the UNet under `conditioning`."""
        return UNetPredictor(self, conditioning, guidance=guidance, surroundings=surroundings)

    def training_step(self, share: float) -> int:
        """Return the timestep at a share of the training steps: 100 of 1000 at 0.1."""
        steps: int = self._forward.config.num_train_timesteps
        return round(share * steps)

    def forward_noised(self, latents: torch.Tensor, noise: torch.Tensor, step: int) -> torch.Tensor:
        """Return latents [b, c, h, w] with the noise of a training step."""
        noised: torch.Tensor = self._forward.add_noise(latents, noise.to(latents.device), self._times(latents, step))
        return noised

    def prediction_error(
        self, predicted: torch.Tensor, latents: torch.Tensor, noise: torch.Tensor, step: int
    ) -> torch.Tensor:
        """Return each row's mean squared error [b]; raise `SpecError` if the target is unknown."""
        times = self._times(latents, step)
        target = prediction_target(self._forward, latents, noise.to(latents.device), times)
        error: torch.Tensor = (predicted - target).square().mean(dim=(1, 2, 3))
        return error


def load(
    model: ModelFolder,
    device: torch.device,
    scheduler: str | None = None,
    *,
    dtype: str = "auto",
    embeddings: Sequence[Embedding] = (),
    loras: Sequence[Lora] = (),
) -> Components:
    """Load `model` for inference. Raises `SpecError` if it does not work, `DeviceFailed` if the device does not work.

    Args:
        model: a model with its weights.
        device: the device of the networks.
        scheduler: a name of `txt2img.scheduler`; if absent, the folder's own scheduler.
        dtype: a name of `DTYPES`; `auto` is bf16 on CUDA and fp32 on the CPU.
        embeddings: new words for the text encoders.
        loras: LoRAs to add to the weights.
    """
    kind = dtype_for(dtype, device)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # untyped there
    is_sdxl = model.pipeline in SDXL_PIPELINES
    try:
        opened = _opened(model)
        networks = [opened(CLIPTextModel, "text_encoder", kind)]
        if is_sdxl:
            networks.append(opened(CLIPTextModelWithProjection, "text_encoder_2", kind))
        unet = opened(UNet2DConditionModel, "unet", kind)
        vae = opened(AutoencoderKL, "vae", kind)
        if kind is torch.float16 and _upcasts(model, is_sdxl):
            vae = vae.to(torch.float32)
        steps = open_scheduler(model.path / "scheduler", scheduler)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, UnpicklingError, SafetensorError) as error:
        raise SpecError(
            "UnsupportedModel",
            f"the model {model.uri} cannot be loaded: {first_line(error)}; save it again with save_pretrained(), or "
            "name another in the stage's field model.",
        ) from error
    fuse({"unet": unet, **dict(zip(("text_encoder", "text_encoder_2"), networks, strict=False))}, loras)
    tokenizers = [PromptTokenizer(model, name, embeddings) for name in ("tokenizer", "tokenizer_2")[: len(networks)]]
    for number, (tokenizer, network) in enumerate(zip(tokenizers, networks, strict=True)):
        _teach(network, tokenizer, [each.vectors[number] for each in embeddings])
    encoders = tuple(
        TextEncoder(tokenizer, move(network, device), last=not is_sdxl)
        for tokenizer, network in zip(tokenizers, networks, strict=True)
    )
    unet = move(unet, device, memory_format=unet_layout(device))
    vae = move(vae, device, memory_format=torch.channels_last)
    keep_text_projections(unet)
    zero = is_sdxl and bool(settings_of(model.path / INDEX).get("force_zeros_for_empty_prompt", True))
    return Components(model, encoders, unet, vae, steps, device, kind, zero)


def _upcasts(model: ModelFolder, is_sdxl: bool) -> bool:
    """Return whether the VAE is to run in fp32 instead of fp16, by `force_upcast` in its settings.

    The default is that of diffusers: only the decoder of Stable Diffusion XL is known to overflow.
    """
    return bool(settings_of(model.path / "vae" / "config.json").get("force_upcast", is_sdxl))


def _teach(network: Any, tokenizer: PromptTokenizer, learnt: Sequence[NDArray[np.float32]]) -> None:
    """Append vectors [n, width] to the embedding table of `network`; their ids are those of the tokenizer."""
    if not learnt:
        return
    known = network.get_input_embeddings().weight.data
    rows = [torch.from_numpy(vectors).to(known) for vectors in learnt]
    table = torch.cat([known[: tokenizer.first_learnt], *rows])
    count, width = table.shape
    network.set_input_embeddings(torch.nn.Embedding(count, width, _weight=table).requires_grad_(False))


def _opened(model: ModelFolder) -> Callable[[Any, str, torch.dtype], Any]:
    """Return the function that loads a network by its class, its component and its precision."""
    if model.checkpoint is not None:
        return SingleFile(model, model.checkpoint).network
    return lambda kind, component, dtype: _network(kind, model, component, dtype)


def _network(kind: Any, model: ModelFolder, component: str, dtype: torch.dtype) -> Any:
    """Load a network from the chosen weights of the model: one variant, pickled only if the digest is pinned.

    Raises `ValueError` if one of its weights is missing, because the libraries use random numbers instead.
    """
    names = [name for name in model.weights if name.startswith(f"{component}/")]
    variant = variant_of(min(names)) if names else ""
    safe = not any(name.endswith(PICKLED) for name in names)
    # Without accelerate, diffusers falls back to this value, but with a warning for each network.
    options = {} if kind in _OF_TRANSFORMERS else {"low_cpu_mem_usage": find_spec("accelerate") is not None}
    network, report = kind.from_pretrained(
        model.path / component,
        dtype=dtype,
        variant=variant or None,
        use_safetensors=safe,  # torch's weights_only loader reads pickles: no code runs
        local_files_only=True,
        output_loading_info=True,
        **options,
    )
    if missing := sorted(report["missing_keys"]):  # weights with older names are already renamed
        raise ValueError(f"{component}/ lacks {len(missing)} of its weights, {', '.join(missing[:3])} among them")
    return network.eval().requires_grad_(False)
