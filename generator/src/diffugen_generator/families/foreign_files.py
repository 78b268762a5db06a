"""What a file of weights is that no family can draw with, by the names of its tensors. No torch."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

_UNSUPPORTED: Final = "which is not supported; name a checkpoint of Stable Diffusion 1.x, 2.x or XL"
_KINDS: Final[tuple[tuple[str, str], ...]] = (
    (r"(^|[._])lora[._]", "a LoRA; name it in the stage's field loras, beside its model"),
    (r"(^|\.)(hada|lokr)_", f"a LoHa or LoKr, {_UNSUPPORTED}"),
    (r"^(emb_params$|string_to_param|clip_[lg]$|<)", "an embedding; name it in the stage's field embeddings"),
    (r"(^|\.)joint_blocks\.", f"a transformer of Stable Diffusion 3, {_UNSUPPORTED}"),
    (r"(^|\.)double_blocks\.", f"a transformer of Flux, {_UNSUPPORTED}"),
    (r"^(control_model|input_hint_block|controlnet_cond_embedding)\.", f"a ControlNet, {_UNSUPPORTED}"),
    (r"motion_modules\.", f"a motion module, {_UNSUPPORTED}"),
    (r"^(edm_mean$|edm_vpred\.)", f"a checkpoint with a noise schedule of its own (EDM), {_UNSUPPORTED}"),
    (r"^conditioner\.embedders\.0\.model\.", "a refiner of Stable Diffusion XL; name a base model"),
)
"""Kinds of files by the name of one tensor, each with what to do instead."""
_PARTS: Final[tuple[tuple[str, str], ...]] = (
    (r"^(first_stage_model|encoder|decoder|quant_conv|post_quant_conv)\.", "an autoencoder (VAE)"),
    (r"^(model\.diffusion_model|down_blocks|up_blocks|mid_block|conv_|time_embedding|add_embedding)", "a UNet"),
    (r"^(cond_stage_model|conditioner|text_model|text_projection)\b", "a text encoder"),
)
"""Parts of a model by the names of all of their tensors."""


def foreign_kind(names: Collection[str]) -> str:
    """Return what a file is and what to do instead, by the names of its tensors; empty if it is none of those."""
    for pattern, kind in _KINDS:
        if any(re.search(pattern, name) for name in names):
            return kind
    return ""


def described(names: Collection[str]) -> str:
    """Return what a file is that no family reads, by the names of its tensors: the end of a sentence about it."""
    if kind := foreign_kind(names):
        return f"is {kind}."
    for pattern, kind in _PARTS:
        if names and all(re.search(pattern, name) for name in names):
            return f"is only {kind}; name a checkpoint with UNet, autoencoder and text encoder."
    found = f"has {len(names):,} tensors, such as {', '.join(sorted(names)[:2])}" if names else "has no tensors"
    return f"{found}: it is no checkpoint of Stable Diffusion 1.x, 2.x or XL; name one, or a folder of diffusers."
