"""Adds LoRAs to the weights of networks: W + weight * alpha / rank * up @ down (Hu et al. 2021).

The result is that of diffusers' `load_lora_weights` and `set_adapters`, up to rounding. The layers themselves stay as
they are, so drawing costs no more than without. Only the loaded weights change; the next session loads the files again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any, Final

import regex
import torch
from diffusers.loaders.lora_pipeline import StableDiffusionXLLoraLoaderMixin
from safetensors import safe_open
from safetensors.torch import load_file

from diffugen_api.errors import SpecError
from diffugen_generator.bounded_json import json_of
from diffugen_generator.failures import first_line
from diffugen_generator.families.lora import Lora

_MATRIX: Final = re.compile(
    r"(?P<layer>.+?)(?:_lora\.|\.lora\.|\.lora_linear_layer\.|\.lora_)(?P<which>down|up|A|B)(?:\.default)?\.weight$"
)
_BLOCKS: Final = ("down_blocks.", "mid_block.", "up_blocks.")
_OF_TEXT: Final = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
"""Names of layers of text encoders in older files."""
_SETTINGS: Final = "lora_adapter_metadata"
"""The entry of a file's header with the settings of PEFT."""
_PATTERN_SECONDS: Final = 0.1
"""The longest time in which a pattern of these settings is compared with a layer: the file may come from anybody."""


@dataclass(frozen=True)
class _Part:
    """The matrices of one layer in one file."""

    down: torch.Tensor
    """[rank, inputs, ...]."""
    up: torch.Tensor
    """[outputs, rank, ...]."""
    scale: float


def fuse(networks: Mapping[str, Any], loras: Sequence[Lora]) -> None:
    """Add LoRAs to the weights of `networks`: `unet`, `text_encoder`, `text_encoder_2`.

    Raises `SpecError` with reason `UnsupportedLora` if one of them does not fit; then nothing is changed.
    """
    parts: dict[tuple[str, str], list[_Part]] = {}
    for lora in loras:
        try:
            for place, part in _parts_of(lora, networks):
                parts.setdefault(place, []).append(part)
        except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError, regex.error) as error:
            raise SpecError(
                "UnsupportedLora",
                f"the LoRA {lora.uri} does not fit the model: {first_line(error)}; name one that was trained for it.",
            ) from error
    for (network, layer), some in parts.items():
        weights = networks[network].get_submodule(layer).weight
        total = sum((_product(each, weights.shape) for each in some), torch.zeros(()))
        weights.data.copy_(weights.data.float() + total)


def _parts_of(lora: Lora, networks: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], _Part]]:
    """Yield the matrices of a file, each with its network and layer; raise `ValueError` if one does not fit."""
    tensors = {
        f"unet.{name}" if name.startswith(_BLOCKS) else name: each for name, each in load_file(lora.path).items()
    }
    tensors, alphas = StableDiffusionXLLoraLoaderMixin.lora_state_dict(tensors, unet_config=networks["unet"].config)
    settings = _settings_of(lora.path)
    found: dict[tuple[str, str], dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if (match := _MATRIX.fullmatch(name)) is None:
            raise ValueError(f"its tensor {name} is neither the upper nor the lower matrix of a LoRA")
        which = "down" if match["which"] in {"down", "A"} else "up"
        found.setdefault(_place(match["layer"], networks), {})[which] = tensor.float()
    given = {_place(_layer_of(name), networks): float(alpha) for name, alpha in (alphas or {}).items()}
    for place, pair in found.items():
        if len(pair) < 2:
            raise ValueError(f"layer {place[1]} of {place[0]} has only one of its two matrices")
        scale = lora.weight * _scale(place, len(pair["down"]), given, settings)
        part = _Part(pair["down"], pair["up"], scale)
        _check_shape(place, part, networks)
        yield place, part


def _layer_of(alpha: str) -> str:
    """Return the layer of an alpha, whose name may contain that of the lower matrix."""
    name = alpha.removesuffix(".alpha")
    match = _MATRIX.fullmatch(name)
    return match["layer"] if match else name


def _place(name: str, networks: Mapping[str, Any]) -> tuple[str, str]:
    """Return the network and the layer that `name` means; raise `ValueError` if there is none."""
    network, _, layer = name.partition(".")
    layer = layer.replace(".processor.", ".")
    stem, dot, last = layer.rpartition(".")
    if network == "unet":
        candidates = [f"{layer}.0" if last == "to_out" else layer]
    else:
        layer = f"{stem}{dot}{_OF_TEXT.get(last, last)}"
        candidates = [layer, layer.removeprefix("text_model."), f"text_model.{layer}"]
    modules = dict(networks[network].named_modules()) if network in networks else {}
    for each in candidates:
        if isinstance(modules.get(each), torch.nn.Linear | torch.nn.Conv2d):
            return network, each
    raise ValueError(f"the model has no layer {name}")


def _scale(place: tuple[str, str], rank: int, alphas: Mapping[tuple[str, str], float], settings: Any) -> float:
    """Return alpha / rank; alpha is the rank if the file does not have it."""
    if place in alphas:
        return alphas[place] / rank
    own = {name.removeprefix(f"{place[0]}."): value for name, value in settings.items() if name.startswith(place[0])}
    alpha = own.get("lora_alpha", rank)
    for pattern, value in (own.get("alpha_pattern") or {}).items():
        if _means(pattern, place[1]):
            alpha = value
    return float(alpha) / (sqrt(rank) if own.get("use_rslora") else rank)


def _means(pattern: str, layer: str) -> bool:
    """Return whether a pattern of PEFT means a layer; raise `ValueError` if it is none, or takes too long."""
    try:
        return regex.fullmatch(rf"(.*\.)?({pattern})", layer, timeout=_PATTERN_SECONDS) is not None
    except TimeoutError:
        raise ValueError(f"its alpha_pattern {pattern[:60]!r} takes too long to be compared with a layer") from None


def _settings_of(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        stored = (file.metadata() or {}).get(_SETTINGS)
    settings = json_of(stored.encode(), infinite=True) if stored else {}
    if not isinstance(settings, dict):
        raise ValueError(f"its {_SETTINGS} is no JSON object")  # noqa: TRY004 - the file's fault
    return settings


def _check_shape(place: tuple[str, str], part: _Part, networks: Mapping[str, Any]) -> None:
    weights = networks[place[0]].get_submodule(place[1]).weight
    inputs = part.down[0].numel()
    if len(part.up) != len(weights) or inputs != weights[0].numel() or part.up[0].numel() != len(part.down):
        shape = f"{list(part.up.shape)} and {list(part.down.shape)}"
        raise ValueError(
            f"layer {place[1]} of {place[0]} has weights of {list(weights.shape)}, and its matrices {shape}"
        )


def _product(part: _Part, shape: torch.Size) -> torch.Tensor:
    return part.scale * (part.up.flatten(1) @ part.down.flatten(1)).reshape(shape)
