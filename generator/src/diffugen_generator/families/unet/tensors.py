"""The tensors that a network's weights must have, by its settings: their names and shapes. No torch.

The plan compares them with the headers of the weights files, so that a model with missing or foreign tensors is refused
before a GPU is requested. A network with settings that are not known here is not compared; loading it still fails if
tensors are missing.

Names and shapes are those of diffusers' `UNet2DConditionModel` and `AutoencoderKL`, and of transformers'
`CLIPTextModel`; a test compares them with these classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

Shape = tuple[int, ...]
Tensors = Mapping[str, Shape]
"""The shape of each tensor, by name."""

MOST_TENSORS: Final = 100_000
"""The most tensors of a network that are compared; the UNet of Stable Diffusion XL has 1,680."""
_CROSS: Final = "CrossAttn"
_DOWN_BLOCKS: Final = frozenset({"DownBlock2D", "CrossAttnDownBlock2D"})
_UP_BLOCKS: Final = frozenset({"UpBlock2D", "CrossAttnUpBlock2D"})
_MIDDLE: Final = "UNetMidBlock2DCrossAttn"
_PLAIN_UNET: Final[Mapping[str, Any]] = {
    "addition_embed_type_num_heads": 64,
    "attention_type": "default",
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_norm": None,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "mid_block_only_cross_attention": None,
    "mid_block_type": _MIDDLE,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "reverse_transformer_layers_per_block": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
}
"""Settings of a UNet that add tensors if they have another value."""
_PLAIN_VAE: Final[Mapping[str, Any]] = {
    "mid_block_add_attention": True, "use_post_quant_conv": True, "use_quant_conv": True
}  # fmt: skip
_FORMER: Final[Mapping[str, str]] = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names in the attention of autoencoders before diffusers 0.17, and the names of today."""
_TEXT: Final = "text_model."


def lacking(component: str, settings: Mapping[str, Any], tensors: Tensors) -> str:
    """Return what a network's weights lack or have in another shape; empty if they are complete, or not compared.

    Args:
        component: its folder: `unet`, `vae`, `text_encoder` or `text_encoder_2`.
        settings: its `config.json`.
        tensors: what its files have.
    """
    expected = expected_of(component, settings)
    if expected is None:
        return ""
    present = {_name_of(component, name): shape for name, shape in tensors.items()}
    if missing := [name for name in expected if name not in present]:
        return f"lack {len(missing):,} of {len(expected):,} tensors, {', '.join(missing[:3])} among them"
    for name, shape in expected.items():
        if present[name] != shape:
            return f"have {name} of shape {list(present[name])}, and its config.json asks for {list(shape)}"
    return ""


def expected_of(component: str, settings: Mapping[str, Any]) -> dict[str, Shape] | None:
    """Return the tensors of a network; None if its settings are of a kind that is not known here."""
    of = {"unet": _unet, "vae": _autoencoder}.get(component, _text_encoder)
    try:
        return dict(islice(of(settings), MOST_TENSORS))  # beyond them, all that are there lack some
    except (_UnknownError, KeyError, TypeError, ValueError, IndexError, ArithmeticError):
        return None  # other checks name a broken setting


class _UnknownError(Exception):
    """Settings of a kind that is not known here."""


def _name_of(component: str, name: str) -> str:
    """Return the present name of a tensor."""
    if component.startswith("text_encoder"):
        return name if name.startswith(_TEXT) or name == "text_projection.weight" else f"{_TEXT}{name}"
    if component == "vae" and ".attentions." in name:
        head, _, rest = name.rpartition(".attentions.0.")
        part, _, end = rest.rpartition(".")
        return f"{head}.attentions.0.{_FORMER.get(part, part)}.{end}"
    return name


def _layer(name: str, *shape: int, bias: bool = True) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", shape
    if bias:
        yield f"{name}.bias", shape[:1]


def _resnet(name: str, before: int, after: int, time: int | None) -> Iterator[tuple[str, Shape]]:
    yield from _layer(f"{name}.norm1", before)
    yield from _layer(f"{name}.conv1", after, before, 3, 3)
    if time is not None:
        yield from _layer(f"{name}.time_emb_proj", after, time)
    yield from _layer(f"{name}.norm2", after)
    yield from _layer(f"{name}.conv2", after, after, 3, 3)
    if before != after:
        yield from _layer(f"{name}.conv_shortcut", after, before, 1, 1)


def _transformer(name: str, width: int, layers: int, text: int, *, linear: bool) -> Iterator[tuple[str, Shape]]:
    outer = (width, width) if linear else (width, width, 1, 1)
    yield from _layer(f"{name}.norm", width)
    yield from _layer(f"{name}.proj_in", *outer)
    for number in range(layers):
        block = f"{name}.transformer_blocks.{number}"
        for norm in ("norm1", "norm2", "norm3"):
            yield from _layer(f"{block}.{norm}", width)
        for attention, keys in (("attn1", width), ("attn2", text)):
            yield from _layer(f"{block}.{attention}.to_q", width, width, bias=False)
            yield from _layer(f"{block}.{attention}.to_k", width, keys, bias=False)
            yield from _layer(f"{block}.{attention}.to_v", width, keys, bias=False)
            yield from _layer(f"{block}.{attention}.to_out.0", width, width)
        yield from _layer(f"{block}.ff.net.0.proj", 8 * width, width)
        yield from _layer(f"{block}.ff.net.2", width, 4 * width)
    yield from _layer(f"{name}.proj_out", *outer)


def _each(value: Any, count: int) -> list[int]:
    """Return a setting that is one number for all blocks, or one for each."""
    values = list(value) if isinstance(value, list) else [value] * count
    if len(values) != count or any(type(each) is not int for each in values):
        raise _UnknownError
    return values


def _known(settings: Mapping[str, Any], plain: Mapping[str, Any]) -> None:
    for name, value in plain.items():
        if settings.get(name, value) != value:
            raise _UnknownError


def _unet(settings: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
    _known(settings, _PLAIN_UNET)
    channels: Sequence[int] = settings.get("block_out_channels", (320, 640, 1280, 1280))
    count, first = len(channels), channels[0]
    down = settings.get("down_block_types", ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",))
    up = settings.get("up_block_types", ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3)
    if not (set(down) <= _DOWN_BLOCKS and set(up) <= _UP_BLOCKS and len(down) == len(up) == count):
        raise _UnknownError
    layers = _each(settings.get("layers_per_block", 2), count)
    texts = _each(settings.get("cross_attention_dim", 1280), count)
    depths = _each(settings.get("transformer_layers_per_block", 1), count)
    heads = _each(settings.get("num_attention_heads") or settings.get("attention_head_dim", 8), count)
    linear, time = bool(settings.get("use_linear_projection", False)), 4 * first

    def attention(name: str, block: int) -> Iterator[tuple[str, Shape]]:
        if channels[block] % heads[block]:
            raise _UnknownError
        return _transformer(name, channels[block], depths[block], texts[block], linear=linear)

    yield from _layer("conv_in", first, settings.get("in_channels", 4), 3, 3)
    yield from _layer("time_embedding.linear_1", time, first)
    yield from _layer("time_embedding.linear_2", time, time)
    if (guidance := settings.get("time_cond_proj_dim")) is not None:
        yield from _layer("time_embedding.cond_proj", first, guidance, bias=False)
    if (added := settings.get("addition_embed_type")) is not None:
        if added != "text_time":
            raise _UnknownError
        yield from _layer("add_embedding.linear_1", time, settings["projection_class_embeddings_input_dim"])
        yield from _layer("add_embedding.linear_2", time, time)
    before = first
    for number, kind in enumerate(down):
        block, width = f"down_blocks.{number}", channels[number]
        for layer in range(layers[number]):
            yield from _resnet(f"{block}.resnets.{layer}", width if layer else before, width, time)
            if kind.startswith(_CROSS):
                yield from attention(f"{block}.attentions.{layer}", number)
        if number + 1 < count:
            yield from _layer(f"{block}.downsamplers.0.conv", width, width, 3, 3)
        before = width
    last = channels[-1]
    yield from _resnet("mid_block.resnets.0", last, last, time)
    yield from attention("mid_block.attentions.0", count - 1)
    yield from _resnet("mid_block.resnets.1", last, last, time)
    for number, kind in enumerate(up):
        block, at = f"up_blocks.{number}", count - 1 - number
        width, skipped = channels[at], channels[max(at - 1, 0)]
        for layer in range(layers[at] + 1):
            beside = skipped if layer == layers[at] else width
            yield from _resnet(f"{block}.resnets.{layer}", (width if layer else before) + beside, width, time)
            if kind.startswith(_CROSS):
                yield from attention(f"{block}.attentions.{layer}", at)
        if at:
            yield from _layer(f"{block}.upsamplers.0.conv", width, width, 3, 3)
        before = width
    yield from _layer("conv_norm_out", first)
    yield from _layer("conv_out", settings.get("out_channels", 4), first, 3, 3)


def _autoencoder(settings: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
    _known(settings, _PLAIN_VAE)
    channels: Sequence[int] = settings.get("block_out_channels", (64,))
    count, layers, latents = len(channels), settings.get("layers_per_block", 1), settings.get("latent_channels", 4)
    down = settings.get("down_block_types", ("DownEncoderBlock2D",))
    up = settings.get("up_block_types", ("UpDecoderBlock2D",))
    if {*down, *up} != {"DownEncoderBlock2D", "UpDecoderBlock2D"} or not len(down) == len(up) == count:
        raise _UnknownError

    def middle(name: str) -> Iterator[tuple[str, Shape]]:
        width = channels[-1]
        yield from _layer(f"{name}.attentions.0.group_norm", width)
        for each in ("to_q", "to_k", "to_v", "to_out.0"):
            yield from _layer(f"{name}.attentions.0.{each}", width, width)
        yield from _resnet(f"{name}.resnets.0", width, width, None)
        yield from _resnet(f"{name}.resnets.1", width, width, None)

    yield from _layer("encoder.conv_in", channels[0], settings.get("in_channels", 3), 3, 3)
    before = channels[0]
    for number, width in enumerate(channels):
        block = f"encoder.down_blocks.{number}"
        for layer in range(layers):
            yield from _resnet(f"{block}.resnets.{layer}", width if layer else before, width, None)
        if number + 1 < count:
            yield from _layer(f"{block}.downsamplers.0.conv", width, width, 3, 3)
        before = width
    yield from middle("encoder.mid_block")
    yield from _layer("encoder.conv_norm_out", channels[-1])
    yield from _layer("encoder.conv_out", 2 * latents, channels[-1], 3, 3)
    yield from _layer("quant_conv", 2 * latents, 2 * latents, 1, 1)
    yield from _layer("post_quant_conv", latents, latents, 1, 1)
    yield from _layer("decoder.conv_in", channels[-1], latents, 3, 3)
    yield from middle("decoder.mid_block")
    before = channels[-1]
    for number, width in enumerate(reversed(channels)):
        block = f"decoder.up_blocks.{number}"
        for layer in range(layers + 1):
            yield from _resnet(f"{block}.resnets.{layer}", width if layer else before, width, None)
        if number + 1 < count:
            yield from _layer(f"{block}.upsamplers.0.conv", width, width, 3, 3)
        before = width
    yield from _layer("decoder.conv_norm_out", channels[0])
    yield from _layer("decoder.conv_out", settings.get("out_channels", 3), channels[0], 3, 3)


def _text_encoder(settings: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
    width, inner = settings.get("hidden_size", 512), settings.get("intermediate_size", 2048)
    if settings.get("model_type", "clip_text_model") != "clip_text_model":
        raise _UnknownError
    yield f"{_TEXT}embeddings.token_embedding.weight", (settings.get("vocab_size", 49408), width)
    yield f"{_TEXT}embeddings.position_embedding.weight", (settings.get("max_position_embeddings", 77), width)
    for number in range(settings.get("num_hidden_layers", 12)):
        layer = f"{_TEXT}encoder.layers.{number}"
        for each in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _layer(f"{layer}.self_attn.{each}", width, width)
        yield from _layer(f"{layer}.layer_norm1", width)
        yield from _layer(f"{layer}.mlp.fc1", inner, width)
        yield from _layer(f"{layer}.mlp.fc2", width, inner)
        yield from _layer(f"{layer}.layer_norm2", width)
    yield from _layer(f"{_TEXT}final_layer_norm", width)
    if "CLIPTextModelWithProjection" in settings.get("architectures", ()):
        yield "text_projection.weight", (settings.get("projection_dim", 512), width)
