"""Names and shapes of tensors in the files of latent diffusion (LDM, Rombach et al. 2022), by those of diffusers.

No torch. The weights are converted by diffusers; this module only tells which tensors a file must have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from diffugen_generator.families.unet.tensors import Shape

UNET: Final = "model.diffusion_model."
VAE: Final = "first_stage_model."

_UNET_ENDS: Final[Mapping[str, str]] = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_RESNET: Final[Mapping[str, str]] = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_ATTENTION: Final[Mapping[str, str]] = {
    "group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"
}  # fmt: skip
_OPEN_CLIP: Final[Mapping[str, str]] = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_OPEN_CLIP_LAYER: Final[Mapping[str, str]] = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_BLOCK = re.compile(r"(?P<side>down|up)_blocks\.(?P<block>\d+)\.(?P<kind>\w+)\.(?P<layer>\d+)\.(?P<rest>.+)")
_MIDDLE = re.compile(r"mid_block\.(?P<kind>resnets|attentions)\.(?P<layer>\d+)\.(?P<rest>.+)")
_LAYER = re.compile(r"encoder\.layers\.(?P<layer>\d+)\.(?P<rest>.+)\.(?P<end>weight|bias)")
_QUERY: Final = "self_attn.q_proj"
_IN_ONE: Final = (_QUERY, "self_attn.k_proj", "self_attn.v_proj")


def unet_name(name: str, settings: Mapping[str, Any]) -> str:
    """Return the name in a file of a tensor of the UNet with `settings`; `name` is that of diffusers."""
    if match := _MIDDLE.fullmatch(name):
        at = 1 if match["kind"] == "attentions" else 2 * int(match["layer"])
        return f"{UNET}middle_block.{at}.{_within(match['kind'], match['rest'])}"
    if match := _BLOCK.fullmatch(name):
        per_block, block, layer = settings["layers_per_block"] + 1, int(match["block"]), int(match["layer"])
        if match["kind"] == "downsamplers":
            return f"{UNET}input_blocks.{(block + 1) * per_block}.0.op.{match['rest'].removeprefix('conv.')}"
        if match["kind"] == "upsamplers":
            after = 2 if settings["up_block_types"][block].startswith("CrossAttn") else 1
            return f"{UNET}output_blocks.{(block + 1) * per_block - 1}.{after}.{match['rest']}"
        at = 0 if match["kind"] == "resnets" else 1
        within = _within(match["kind"], match["rest"])
        if match["side"] == "down":
            return f"{UNET}input_blocks.{1 + block * per_block + layer}.{at}.{within}"
        return f"{UNET}output_blocks.{block * per_block + layer}.{at}.{within}"
    module, _, end = name.rpartition(".")
    return f"{UNET}{_UNET_ENDS[module]}.{end}"


def _within(kind: str, rest: str) -> str:
    """Return the name of a tensor inside a block of the UNet."""
    module, _, end = rest.rpartition(".")
    return f"{_RESNET[module]}.{end}" if kind == "resnets" else rest


def vae_name(name: str, settings: Mapping[str, Any]) -> str:
    """Return the name in a file of a tensor of the autoencoder with `settings`; `name` is that of diffusers."""
    half, _, inner = name.partition(".")
    module, _, end = inner.rpartition(".")
    if half not in {"encoder", "decoder"}:
        return f"{VAE}{name}"
    if match := _MIDDLE.fullmatch(inner):
        part, _, end = match["rest"].rpartition(".")
        if match["kind"] == "attentions":
            return f"{VAE}{half}.mid.attn_1.{_VAE_ATTENTION[part]}.{end}"
        return f"{VAE}{half}.mid.block_{int(match['layer']) + 1}.{_vae_part(part)}.{end}"
    if match := _BLOCK.fullmatch(inner):
        side, block = match["side"], int(match["block"])
        if side == "up":
            block = len(settings["block_out_channels"]) - 1 - block
        if match["kind"].endswith("samplers"):
            return f"{VAE}{half}.{side}.{block}.{side}sample.{match['rest']}"
        part, _, end = match["rest"].rpartition(".")
        return f"{VAE}{half}.{side}.{block}.block.{match['layer']}.{_vae_part(part)}.{end}"
    return f"{VAE}{half}.{module.replace('conv_norm_out', 'norm_out')}.{end}"


def _vae_part(part: str) -> str:
    return part.replace("conv_shortcut", "nin_shortcut")


def open_clip_tensor(name: str, shape: Shape) -> tuple[str, Shape] | None:
    """Return name and shape in a file of OpenCLIP of a tensor of a text encoder; None if another one includes it.

    `name` is that of transformers without `text_model.`. Queries, keys and values are one tensor in a file.
    """
    if name == "text_projection.weight":
        return "text_projection", shape[::-1]
    if (plain := _OPEN_CLIP.get(name)) is not None:
        return plain, shape
    match = _LAYER.fullmatch(name)
    if match is None:
        raise KeyError(name)
    layer, end = f"transformer.resblocks.{match['layer']}", match["end"]
    if match["rest"] in _IN_ONE:
        return (f"{layer}.attn.in_proj_{end}", (3 * shape[0], *shape[1:])) if match["rest"] == _QUERY else None
    return f"{layer}.{_OPEN_CLIP_LAYER[match['rest']]}.{end}", shape


def alternatives(name: str, shape: Shape) -> Iterator[Shape]:
    """Yield the shapes that a tensor can have in a file: attention of the autoencoder may be a 1x1 convolution."""
    yield shape
    if ".attn_1." in name and len(shape) == 2:
        yield (*shape, 1)
        yield (*shape, 1, 1)
