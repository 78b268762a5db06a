"""Recognizes checkpoints in single files by their tensors, and makes the settings that such a file does not have.

A file in the layout of latent diffusion (LDM) has the UNet, the autoencoder and the text encoders in one table. Its
tensors tell nearly all settings: channels, blocks, attention layers, text widths. The rest is the same for all models
of a generation: the schedule of the noise, the heads of the attention, the scale of the latents. They are the settings
with which Stable Diffusion 1.5, 2.1 and XL 1.0 were published. The digest of a single file covers only the file, so the
settings made here must not change for files that were read before.

No torch: the plan reads only the header.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from diffugen_generator.families.checkpoint import CheckpointFolder, CheckpointHeader, Prediction
from diffugen_generator.families.folder import INDEX
from diffugen_generator.families.foreign_files import foreign_kind
from diffugen_generator.families.unet.clip_tokenizer import END_ID, START_ID, VOCABULARY, tokenizer_files
from diffugen_generator.families.unet.ldm_names import (
    UNET,
    VAE,
    alternatives,
    open_clip_tensor,
    unet_name,
    vae_name,
)
from diffugen_generator.families.unet.tensors import Shape, Tensors, expected_of

Generation = Literal["1", "2", "XL"]

_CLIP_1: Final = "cond_stage_model.transformer."
_OPEN_CLIP_2: Final = "cond_stage_model.model."
_CLIP_XL: Final = "conditioner.embedders.0.transformer."
_OPEN_CLIP_XL: Final = "conditioner.embedders.1.model."
TEXT_PREFIXES: Final[Mapping[str, Mapping[str, str]]] = {
    "1": {"text_encoder": _CLIP_1},
    "2": {"text_encoder": _OPEN_CLIP_2},
    "XL": {"text_encoder": _CLIP_XL, "text_encoder_2": _OPEN_CLIP_XL},
}
"""Where the text encoders of each generation are in a file."""
_OPEN_CLIP: Final = frozenset({_OPEN_CLIP_2, _OPEN_CLIP_XL})
WITHOUT_TEXT_MODEL: Final = (f"{_CLIP_1}embeddings.", f"{_CLIP_1}encoder.", f"{_CLIP_1}final_layer_norm.")
"""Names of the text encoder in some older files, which lack the part `text_model.`."""

_HEAD: Final = 64
"""The width of an attention head in the text encoders, and in the UNets of Stable Diffusion 2.x and XL."""
_HEADS_1: Final = 8
"""The heads of each attention layer in the UNet of Stable Diffusion 1.x."""
_LAYERS_2: Final = 23
"""The layers that Stable Diffusion 2.x reads of its text encoder, which has 24."""
_SIZES: Final = 6
"""The sizes and corners that the UNet of Stable Diffusion XL reads beside the text."""
_LATENTS: Final = 4
_MASKED: Final = 2 * _LATENTS + 1
"""The input channels of a UNet for inpainting: noisy latents, mask and masked image."""


class _MissingError(Exception):
    """A tensor that the file lacks; its argument is the name."""


@dataclass(frozen=True, slots=True)
class _Component:
    """A network of the folder: its settings, and the tensors that a file must have for it."""

    settings: Mapping[str, Any]
    tensors: Mapping[str, Shape]


def read_checkpoint(header: CheckpointHeader, predicts: Prediction | None) -> CheckpointFolder | None:
    """Return the folder that a file stands for; None if it is of no layout of this family.

    Args:
        header: the file's tensors.
        predicts: what the UNet predicts, as the user says; if None, what the file says.

    Raises `ValueError` if the file is of this family and cannot be drawn with; the text ends a sentence about it.
    """
    shapes = {present_name(name): shape for name, shape in header.shapes.items()}
    generation = None if foreign_kind(shapes) else generation_of(shapes)
    if generation is None:
        return None
    try:
        components = _components(shapes, generation)
    except _MissingError as error:
        raise ValueError(f"lacks the tensor {error}: copy it again, or name another checkpoint.") from None
    for component in components.values():
        _check(component.tensors, shapes)
    channels = components["unet"].settings["in_channels"]
    prediction = predicts or _stated(header) or _usual(generation, channels)
    settings = {name: dict(component.settings) for name, component in components.items()}
    settings["unet"]["sample_size"] = _side(generation, channels, prediction)
    return _folder(settings, generation, prediction, zero_snr="ztsnr" in shapes)


def present_name(name: str) -> str:
    """Return the name of a tensor with the part `text_model.`, which some older files leave out."""
    return name.replace(_CLIP_1, f"{_CLIP_1}text_model.", 1) if name.startswith(WITHOUT_TEXT_MODEL) else name


def generation_of(names: Iterable[str]) -> Generation | None:
    """Return the generation of a checkpoint by its text encoder; None if it has none of them, or no UNet."""
    found, has_unet = set[str](), False
    for name in names:
        has_unet = has_unet or name.startswith(UNET)
        found |= {prefix for prefix in (_CLIP_1, _OPEN_CLIP_2, _OPEN_CLIP_XL) if name.startswith(prefix)}
    generations: Mapping[str, Generation] = {_CLIP_1: "1", _OPEN_CLIP_2: "2", _OPEN_CLIP_XL: "XL"}
    return generations[found.pop()] if has_unet and len(found) == 1 else None


def _components(shapes: Tensors, generation: Generation) -> dict[str, _Component]:
    """Return the networks of a checkpoint; raise `_MissingError` or `ValueError` if the file does not tell them."""
    texts = {
        component: _text_encoder(shapes, prefix, generation) for component, prefix in TEXT_PREFIXES[generation].items()
    }
    pooled = int(texts["text_encoder_2"].settings["projection_dim"]) if generation == "XL" else 0
    return {**texts, "unet": _unet(shapes, generation, pooled), "vae": _vae(shapes, generation)}


def _check(expected: Mapping[str, Shape], shapes: Tensors) -> None:
    missing = [name for name in expected if name not in shapes]
    if missing:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise ValueError(f"lacks the tensor {missing[0]}{more}: copy it again, or name another checkpoint.")
    for name, shape in expected.items():
        if shapes[name] not in alternatives(name, shape):
            raise ValueError(
                f"has {name} of shape {list(shapes[name])} where the rest of it asks for {list(shape)}: it is of an "
                "unknown layout; name another checkpoint."
            )


def _shape(shapes: Tensors, name: str, sides: int) -> Shape:
    """Return the shape of a tensor; raise `_MissingError` if there is none, or `ValueError` with other dimensions."""
    if name not in shapes:
        raise _MissingError(name)
    if len(shapes[name]) != sides:
        raise ValueError(f"has {name} of shape {list(shapes[name])}: it is of an unknown layout; name another.")
    return shapes[name]


def _count(shapes: Tensors, prefix: str) -> int:
    """Return the number of blocks `PREFIX0.`, `PREFIX1.` and so on, up to the last of which there is a tensor."""
    numbers = {name[len(prefix) :].partition(".")[0] for name in shapes if name.startswith(prefix)}
    return max((int(number) + 1 for number in numbers if number.isdecimal()), default=0)


def _has(shapes: Tensors, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in shapes)


@dataclass(slots=True)
class _Level:
    """A level of the UNet, between two changes of the resolution."""

    width: int
    layers: int = 0
    attends: int = 0
    """The layers with attention."""
    depth: int = 0
    """The transformer blocks of one layer."""


def _levels(shapes: Tensors) -> list[_Level]:
    """Return the levels of the UNet, the finest first."""
    levels = [_Level(0)]
    for at in range(1, _count(shapes, f"{UNET}input_blocks.")):
        block = f"{UNET}input_blocks.{at}."
        if _has(shapes, f"{block}0.op."):
            levels.append(_Level(0))
            continue
        level = levels[-1]
        level.width = _shape(shapes, f"{block}0.in_layers.2.weight", 4)[0]
        level.layers += 1
        if depth := _count(shapes, f"{block}1.transformer_blocks."):
            level.attends += 1
            level.depth = max(level.depth, depth)
    return levels


def _unet(shapes: Tensors, generation: Generation, pooled: int) -> _Component:
    channels = _shape(shapes, f"{UNET}input_blocks.0.0.weight", 4)[1]
    small = {name: shape for name, shape in shapes.items() if name.startswith(UNET)}
    levels = _levels(small)
    attending = [level for level in levels if level.attends]
    if not attending or any(
        level.layers != levels[0].layers or level.attends not in {0, level.layers} for level in levels
    ):
        raise ValueError("has a UNet of unknown blocks; name a checkpoint of Stable Diffusion 1.x, 2.x or XL.")
    if any(level.width % (_HEADS_1 if generation == "1" else _HEAD) for level in levels):
        raise ValueError(f"has a UNet of widths {[level.width for level in levels]}, whose heads are not known.")
    keys = sorted(name for name in small if name.endswith("attn2.to_k.weight"))
    if not keys:
        raise _MissingError(f"{UNET}middle_block.1.transformer_blocks.0.attn2.to_k.weight")
    projection = _shape(small, f"{UNET}out.2.weight", 4)
    down = ["CrossAttnDownBlock2D" if level.attends else "DownBlock2D" for level in levels]
    up = ["CrossAttnUpBlock2D" if level.attends else "UpBlock2D" for level in reversed(levels)]
    settings: dict[str, Any] = {
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        "attention_head_dim": _HEADS_1 if generation == "1" else [level.width // _HEAD for level in levels],
        "block_out_channels": [level.width for level in levels],
        "center_input_sample": False,
        "cross_attention_dim": _shape(small, keys[0], 2)[1],
        "down_block_types": down,
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": channels,
        "layers_per_block": levels[0].layers,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-05,
        "norm_num_groups": 32,
        "out_channels": projection[0],
        "transformer_layers_per_block": [max(level.depth, 1) for level in levels],
        "up_block_types": up,
        "use_linear_projection": generation != "1",
    }
    if generation == "XL":
        added = _shape(small, f"{UNET}label_emb.0.0.weight", 2)[1]
        settings |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": max((added - pooled) // _SIZES, 1),
            "projection_class_embeddings_input_dim": added,
        }
    elif _has(small, f"{UNET}label_emb."):
        raise ValueError(
            "has a UNet that takes more conditions than a text, such as that of an upscaler, which is not supported; "
            "name a model that draws from text."
        )
    elif channels not in {_LATENTS, _MASKED}:
        raise ValueError(
            f"has a UNet that takes {channels} channels where its latents have {_LATENTS}: it is made for another "
            "task; name a model that draws from text."
        )
    return _Component(settings, {unet_name(name, settings): shape for name, shape in _expected("unet", settings)})


def _vae(shapes: Tensors, generation: Generation) -> _Component:
    small = {name: shape for name, shape in shapes.items() if name.startswith(VAE)}
    if not small:
        raise ValueError("has no autoencoder (VAE); name a checkpoint that has one.")
    levels = _count(small, f"{VAE}encoder.down.")
    widths = [_shape(small, f"{VAE}encoder.down.{level}.block.0.conv1.weight", 4)[0] for level in range(levels)]
    settings: dict[str, Any] = {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "in_channels": _shape(small, f"{VAE}encoder.conv_in.weight", 4)[1],
        "latent_channels": _shape(small, f"{VAE}decoder.conv_in.weight", 4)[1],
        "layers_per_block": _count(small, f"{VAE}encoder.down.0.block."),
        "norm_num_groups": 32,
        "out_channels": _shape(small, f"{VAE}decoder.conv_out.weight", 4)[0],
        "sample_size": 1024 if generation == "XL" else 512,
        "scaling_factor": 0.13025 if generation == "XL" else 0.18215,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }
    if generation == "XL":
        settings["force_upcast"] = True
    return _Component(settings, {vae_name(name, settings): shape for name, shape in _expected("vae", settings)})


def _text_encoder(shapes: Tensors, prefix: str, generation: Generation) -> _Component:
    small = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
    try:
        settings = _open_clip(small, generation) if prefix in _OPEN_CLIP else _clip(small)
    except _MissingError as error:
        raise _MissingError(f"{prefix}{error}") from None
    if settings["vocab_size"] != VOCABULARY:
        raise ValueError(
            f"has a text encoder of {settings['vocab_size']:,} words, and CLIP's vocabulary has {VOCABULARY:,}: give "
            "it as a folder of diffusers, which has its own tokenizer."
        )
    tensors = dict[str, Shape]()
    for name, shape in _expected("text_encoder", settings):
        if prefix not in _OPEN_CLIP:
            tensors[f"{prefix}{name}"] = shape
        elif (found := open_clip_tensor(name.removeprefix("text_model."), shape)) is not None:
            tensors[f"{prefix}{found[0]}"] = found[1]
    return _Component(settings, tensors)


def _clip(shapes: Tensors) -> dict[str, Any]:
    """Return the settings of a text encoder of OpenAI's CLIP."""
    words, width = _shape(shapes, "text_model.embeddings.token_embedding.weight", 2)
    return _text_settings(
        words,
        width,
        positions=_shape(shapes, "text_model.embeddings.position_embedding.weight", 2)[0],
        inner=_shape(shapes, "text_model.encoder.layers.0.mlp.fc1.weight", 2)[0],
        layers=_count(shapes, "text_model.encoder.layers."),
        act="quick_gelu",
        projection=width,
        pad=END_ID,
    )


def _open_clip(shapes: Tensors, generation: Generation) -> dict[str, Any]:
    """Return the settings of a text encoder of OpenCLIP."""
    words, width = _shape(shapes, "token_embedding.weight", 2)
    layers = _count(shapes, "transformer.resblocks.")
    settings = _text_settings(
        words,
        width,
        positions=_shape(shapes, "positional_embedding", 2)[0],
        inner=_shape(shapes, "transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
        layers=min(layers, _LAYERS_2) if generation == "2" else layers,
        act="gelu",
        projection=_shape(shapes, "text_projection", 2)[1] if generation == "XL" else width,
        pad=0,
    )
    if generation == "XL":
        settings["architectures"] = ["CLIPTextModelWithProjection"]
    return settings


def _text_settings(
    words: int, width: int, *, positions: int, inner: int, layers: int, act: str, projection: int, pad: int
) -> dict[str, Any]:
    if width % _HEAD:
        raise ValueError(f"has a text encoder of width {width}, whose heads are not known; name another checkpoint.")
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "attention_dropout": 0.0,
        "bos_token_id": START_ID,
        "eos_token_id": END_ID,
        "pad_token_id": pad,
        "hidden_act": act,
        "hidden_size": width,
        "intermediate_size": inner,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": positions,
        "num_attention_heads": width // _HEAD,
        "num_hidden_layers": layers,
        "projection_dim": projection,
        "vocab_size": words,
    }


def _expected(component: str, settings: Mapping[str, Any]) -> Sequence[tuple[str, Shape]]:
    expected = expected_of(component, settings)
    if expected is None:
        raise ValueError("has networks of an unknown layout; name a checkpoint of Stable Diffusion 1.x, 2.x or XL.")
    return list(expected.items())


def _stated(header: CheckpointHeader) -> Prediction | None:
    """Return what the UNet predicts if the file says so: by a tensor `v_pred`, or as ModelSpec does.

    ModelSpec (https://github.com/Stability-AI/ModelSpec) has `modelspec.prediction_type`, `epsilon` or `v`.
    """
    if "v_pred" in header.shapes:
        return "v_prediction"
    stated = header.metadata.get("modelspec.prediction_type", "").lower()
    if stated in {"v", "v_prediction"}:
        return "v_prediction"
    return "epsilon" if stated == "epsilon" else None


def _usual(generation: Generation, channels: int) -> Prediction:
    """Return what models of a generation predict; raise `ValueError` if there are models of both kinds."""
    if generation == "2" and channels == _LATENTS:
        raise ValueError(
            "is of Stable Diffusion 2.x and does not say what it predicts: append #v_prediction to it if its images "
            "have 768 pixels, or #epsilon if they have 512."
        )
    return "epsilon"


def _side(generation: Generation, channels: int, prediction: Prediction) -> int:
    """Return the side in latent cells of the images of the training."""
    if generation == "XL":
        return 128
    return 96 if generation == "2" and prediction == "v_prediction" and channels == _LATENTS else 64


_BETAS: Final[Mapping[str, Any]] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "trained_betas": None,
}
"""The noise schedule of all generations."""
_SCHEDULERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "1": {"_class_name": "PNDMScheduler", "set_alpha_to_one": False, "skip_prk_steps": True, "clip_sample": False},
    "2": {"_class_name": "DDIMScheduler", "set_alpha_to_one": False, "skip_prk_steps": True, "clip_sample": False},
    "XL": {
        "_class_name": "EulerDiscreteScheduler",
        "interpolation_type": "linear",
        "sample_max_value": 1.0,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "clip_sample": False,
        "timestep_spacing": "leading",
        "use_karras_sigmas": False,
    },
}
"""The samplers of the published models."""


def _folder(
    settings: Mapping[str, Mapping[str, Any]], generation: Generation, prediction: Prediction, *, zero_snr: bool
) -> CheckpointFolder:
    scheduler = {**_SCHEDULERS[generation], **_BETAS, "prediction_type": prediction}
    if zero_snr:
        # Lin et al. 2023 (https://arxiv.org/abs/2305.08891): the last step is pure noise, so sampling begins there
        scheduler |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    inpaints = settings["unet"]["in_channels"] == _MASKED
    pipeline = f"StableDiffusion{'XL' if generation == 'XL' else ''}{'Inpaint' if inpaints else ''}Pipeline"
    index: dict[str, Any] = {"_class_name": pipeline}
    if generation == "XL":
        index["force_zeros_for_empty_prompt"] = True
    files = {INDEX: _json(index), "scheduler/scheduler_config.json": _json(scheduler)}
    for component, values in settings.items():
        files[f"{component}/config.json"] = _json(values)
        if component.startswith("text_encoder"):
            tokenizer = component.replace("text_encoder", "tokenizer")
            pads_with_end = values["pad_token_id"] == END_ID
            files |= {f"{tokenizer}/{n}": each for n, each in tokenizer_files(pads_with_end=pads_with_end).items()}
    return CheckpointFolder(pipeline, files)


def _json(settings: Mapping[str, Any]) -> bytes:
    return json.dumps(settings, indent=2, sort_keys=True).encode()
