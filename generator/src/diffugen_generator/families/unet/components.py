"""A pipeline's parts, loaded for inference: networks on their device, everything from the one folder.

Each part is loaded by its own class, never by what `model_index.json` names, so no folder can make us import
code.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
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
from diffugen_generator.families.model import Conditioning, EncodedText, Predictor
from diffugen_generator.families.placement import dtype_for, move
from diffugen_generator.families.prompts import TokenizedPrompt
from diffugen_generator.families.unet.architecture import SDXL_PIPELINE
from diffugen_generator.families.unet.attention import UNetAttention
from diffugen_generator.families.unet.latents import decode, encode_images
from diffugen_generator.families.unet.prediction import GRAY, UNetPredictor
from diffugen_generator.families.unet.schedulers import (
    DiffusersSampler,
    forward_process,
    open_scheduler,
    prediction_target,
)
from diffugen_generator.families.unet.text_encoding import TextEncoder, TextEncoding
from diffugen_generator.families.unet.tokens import PromptTokenizer

_OF_TRANSFORMERS = (CLIPTextModel, CLIPTextModelWithProjection)


@dataclass(frozen=True)
class Components:
    """A Stable Diffusion pipeline, ready to draw."""

    model: ModelFolder
    encoders: tuple[TextEncoder, ...]
    """One; two for Stable Diffusion XL, whose states stand side by side."""
    unet: Any
    """A diffusers `UNet2DConditionModel`; diffusers ships no types, so to mypy its classes are nothing."""
    vae: Any
    """A diffusers `AutoencoderKL`."""
    scheduler: Any
    """A diffusers scheduler; its state belongs to one batch at a time."""
    device: torch.device
    dtype: torch.dtype
    zero_negative_embeds: bool = False
    """Whether the absence of a negative text is zeros, and not the states of the empty text."""

    @property
    def tokenizer(self) -> PromptTokenizer:
        """The first encoder's tokenizer; the others' split texts in the same way."""
        return self.encoders[0].tokenizer

    @property
    def is_sdxl(self) -> bool:
        """Whether the UNet reads the pooled text and the image's size, too, as Stable Diffusion XL's does."""
        return bool(self.unet.config.addition_embed_type == "text_time")

    @property
    def parameters(self) -> int:
        """How many numbers the UNet has learned: 860 million for Stable Diffusion 1."""
        return sum(int(weights.numel()) for weights in self.unet.parameters())

    @property
    def inpaints(self) -> bool:
        """Whether the UNet was made for inpainting: it gets a mask and the surroundings as input."""
        return int(self.unet.config.in_channels) != int(self.vae.config.latent_channels)

    @property
    def cell(self) -> int:
        """Pixels on a side of one latent cell: 8 for Stable Diffusion."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def trained_side(self) -> int:
        """The side in pixels of the square images that the UNet was trained on."""
        side = self.unet.config.sample_size
        return int(side if isinstance(side, int) else min(side)) * self.cell

    @property
    def reads_negative(self) -> bool:
        """Whether guidance takes a second pass; a UNet that was distilled reads its scale as an input."""
        return bool(self.unet.config.time_cond_proj_dim is None)

    @cached_property
    def sampler(self) -> DiffusersSampler:
        """The scheduler as drawing uses it."""
        return DiffusersSampler(self.scheduler, self.device)

    @property
    def attention(self) -> UNetAttention:
        """Reads cross-attention and self-attention of the UNet."""
        return UNetAttention(self.unet, self.model.uri)

    def with_own_sampler(self) -> Components:
        """Return components with the same networks and a scheduler of their own."""
        return replace(self, scheduler=copy.deepcopy(self.scheduler))

    def read(self, prompt: Prompt) -> TokenizedPrompt:
        """Return a prompt's tokens."""
        return self.tokenizer.read(prompt)

    def encode(self, texts: Sequence[Prompt]) -> list[EncodedText]:
        """Return each text's states [windows * limit, width], weighted, and its pooled state [width]."""
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
        """Return (c, h, w) of the latents of images of a size in pixels."""
        return int(self.vae.config.latent_channels), height // self.cell, width // self.cell

    def encode_images(self, images: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """Turn images [height, width, 3] of one size into scaled latents [b, c, h, w]."""
        return encode_images(self.vae, self.device, images)

    def decode(self, latents: Sequence[torch.Tensor]) -> list[NDArray[np.uint8]]:
        """Turn latents [c, h, w] of one size into images [height, width, 3], sRGB."""
        return decode(self.vae, latents)

    def surroundings(
        self, images: Sequence[NDArray[np.uint8]], masks: Sequence[NDArray[np.bool_]], cells: torch.Tensor
    ) -> torch.Tensor:
        """Return mask and surroundings [b, 1 + c, h, w], what is drawn anew gray (Rombach et al. 2022)."""
        around = [np.where(mask[:, :, None], np.uint8(GRAY), image) for image, mask in zip(images, masks, strict=True)]
        latents = self.encode_images(around)
        return torch.cat([cells.to(latents.dtype), latents], dim=1)

    def predictor(
        self, conditioning: Conditioning, *, guidance: float | None = None, surroundings: torch.Tensor | None = None
    ) -> Predictor:
        """Return the UNet's prediction under `conditioning`."""
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
        """Return each row's mean squared error [b]; raise `SpecError` where the target is unknown."""
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
) -> Components:
    """Load `model` for inference. Raises `SpecError` where it cannot work, `DeviceFailed` where the device cannot.

    Args:
        model: a model with its weights.
        device: where the networks go.
        scheduler: a name of `txt2img.scheduler`; the folder's own where absent.
        dtype: a name of `DTYPES`; `auto` is bf16 on CUDA and fp32 on the CPU.
        embeddings: words that the text encoders learn besides their own.
    """
    kind = dtype_for(dtype, device)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # untyped there
    is_sdxl = model.pipeline == SDXL_PIPELINE
    # Stable Diffusion XL's decoder overflows in fp16, which its settings say (diffusers does the same)
    try:
        networks = [_network(CLIPTextModel, model, "text_encoder", kind)]
        if is_sdxl:
            networks.append(_network(CLIPTextModelWithProjection, model, "text_encoder_2", kind))
        unet = _network(UNet2DConditionModel, model, "unet", kind)
        vae = _network(AutoencoderKL, model, "vae", kind)
        if is_sdxl and kind is torch.float16 and vae.config.force_upcast:
            vae = vae.to(torch.float32)
        steps = open_scheduler(model.path / "scheduler", scheduler)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, UnpicklingError, SafetensorError) as error:
        raise SpecError(
            "UnsupportedModel",
            f"the model {model.uri} cannot be loaded: {first_line(error)}; save it anew with save_pretrained(), or "
            "name another in the stage's field model.",
        ) from error
    tokenizers = [PromptTokenizer(model, name, embeddings) for name in ("tokenizer", "tokenizer_2")[: len(networks)]]
    for number, (tokenizer, network) in enumerate(zip(tokenizers, networks, strict=True)):
        _teach(network, tokenizer, [each.vectors[number] for each in embeddings])
    encoders = tuple(
        TextEncoder(tokenizer, move(network, device), last=not is_sdxl)
        for tokenizer, network in zip(tokenizers, networks, strict=True)
    )
    unet, vae = (move(network, device, memory_format=torch.channels_last) for network in (unet, vae))
    zero = is_sdxl and bool(settings_of(model.path / INDEX).get("force_zeros_for_empty_prompt", True))
    return Components(model, encoders, unet, vae, steps, device, kind, zero)


def _teach(network: Any, tokenizer: PromptTokenizer, learnt: Sequence[NDArray[np.float32]]) -> None:
    """Append vectors [n, width] to what `network` knows; their ids are the tokenizer's."""
    if not learnt:
        return
    known = network.get_input_embeddings().weight.data
    rows = [torch.from_numpy(vectors).to(known) for vectors in learnt]
    table = torch.cat([known[: tokenizer.first_learnt], *rows])
    count, width = table.shape
    network.set_input_embeddings(torch.nn.Embedding(count, width, _weight=table).requires_grad_(False))


def _network(kind: Any, model: ModelFolder, component: str, dtype: torch.dtype) -> Any:
    """Load a network from the weights of the model that were chosen: of its one variant, pickled where pinned.

    Raises `ValueError` where one of its weights is not among them: the libraries put random numbers in its place.
    """
    names = [name for name in model.weights if name.startswith(f"{component}/")]
    variant = variant_of(min(names)) if names else ""
    safe = not any(name.endswith(PICKLED) for name in names)
    # without accelerate diffusers would fall back to this by itself, with a warning for each network
    options = {} if kind in _OF_TRANSFORMERS else {"low_cpu_mem_usage": find_spec("accelerate") is not None}
    network, told = kind.from_pretrained(
        model.path / component,
        dtype=dtype,
        variant=variant or None,
        use_safetensors=safe,  # pickles are read by torch's weights_only loader: no code
        local_files_only=True,
        output_loading_info=True,
        **options,
    )
    if missing := sorted(told["missing_keys"]):  # what goes by an older name is found by then
        raise ValueError(f"{component}/ lacks {len(missing)} of its weights, {', '.join(missing[:3])} among them")
    return network.eval().requires_grad_(False)
