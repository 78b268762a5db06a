"""A pipeline's parts, loaded for inference: networks on their device, everything from the one folder.

Each part is loaded by its own class, never by what `model_index.json` names, so no folder can make us import
code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from diffugen_generator.diffusion.devices import move
from diffugen_generator.diffusion.schedulers import open_scheduler
from diffugen_generator.diffusion.tokens import PromptTokenizer
from diffugen_generator.failures import first_line
from diffugen_generator.models.embeddings import Embedding
from diffugen_generator.models.files import INDEX, PICKLED, variant_of
from diffugen_generator.models.model_folder import ModelFolder, settings_of

_OF_TRANSFORMERS = (CLIPTextModel, CLIPTextModelWithProjection)


DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
"""By their names in `run.dtype`."""

SDXL_PIPELINE = "StableDiffusionXLPipeline"


@dataclass(frozen=True)
class TextEncoder:
    """One of a pipeline's text encoders, with the tokenizer that it was trained with."""

    tokenizer: PromptTokenizer
    network: Any
    """A transformers `CLIPTextModel`, or `CLIPTextModelWithProjection`."""
    last: bool = True
    """Whether the states behind the last layer are read; else those before it, as Stable Diffusion XL does."""


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
    def text_encoder(self) -> Any:
        """The first text encoder."""
        return self.encoders[0].network

    @property
    def is_sdxl(self) -> bool:
        """Whether the UNet is told the pooled text and the image's size, too, as Stable Diffusion XL's is."""
        return bool(self.unet.config.addition_embed_type == "text_time")

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
        embeddings: words that the text encoders are to know besides their own.
    """
    auto = torch.bfloat16 if device.type == "cuda" else torch.float32
    kind = DTYPES.get(dtype, auto)
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
