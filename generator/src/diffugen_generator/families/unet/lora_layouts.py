"""Checks that a LoRA fits a UNet model, by the names and shapes in the header of its file. No torch.

Three layouts are read: that of diffusers (`unet.….to_q.lora.down.weight`), that of kohya's scripts
(`lora_unet_…_to_q.lora_down.weight`, with `….alpha`), and that of PEFT (`unet.….to_q.lora_A.weight`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from diffugen_generator.families.folder import settings_of
from diffugen_generator.families.lora import Shapes

_DOWN = r"(?:_lora\.down|\.lora\.down|\.lora_linear_layer\.down|\.lora_down|\.lora_A(?:\.default)?)\.weight$"
_UNET: Final = re.compile(r"^(?:unet\.|lora_unet_)?(?:down_|mid_|up_|input_|middle_|output_)blocks?[._].*" + _DOWN)
_CROSS: Final = re.compile(r"attn2[._](?:processor\.)?to_[kv]" + _DOWN)
_TEXT: Final = re.compile(r"^(?:text_encoder|lora_te1?_|lora_te_).*(?:[qkv]_proj|to_[qkv])" + _DOWN)
_SECOND: Final = re.compile(r"^(?:text_encoder_2|lora_te2_)")
_OTHER_FORMS: Final[Mapping[str, str]] = {
    "dora_scale": "DoRA",
    "magnitude_vector": "DoRA",
    "hada_": "LoHa",
    "lokr_": "LoKr",
}
_NAMES: Final[Mapping[int, str]] = {
    768: "Stable Diffusion 1.x",
    1024: "Stable Diffusion 2.x",
    2048: "Stable Diffusion XL",
}
_FIX: Final = "name one that was trained for this model"


def check_lora(folder: Path, encoders: int, shapes: Shapes) -> None:
    """Raise `ValueError` if a LoRA does not fit; the error's text continues a sentence about the file.

    Args:
        folder: the model's folder.
        encoders: the number of its text encoders.
        shapes: the tensors of the LoRA's file.
    """
    for sign, form in _OTHER_FORMS.items():
        if any(sign in name for name in shapes):
            raise ValueError(f"is a {form}, which is not supported; give a plain LoRA")
    unet = {name: shape for name, shape in shapes.items() if _UNET.search(name)}
    second = [name for name in shapes if _SECOND.match(name)]
    text = {name: shape for name, shape in shapes.items() if _TEXT.search(name) and name not in second}
    if not unet and not text and not second:
        some = ", ".join(sorted(shapes)[:2]) or "none at all"
        raise ValueError(f"has no tensor that is a LoRA of a UNet or of its text encoders (it has {some}); {_FIX}")
    reads = settings_of(folder / "unet" / "config.json").get("cross_attention_dim", 1280)
    _check_width({name: shape for name, shape in unet.items() if _CROSS.search(name)}, reads, "texts")
    width = int(settings_of(folder / "text_encoder" / "config.json").get("hidden_size", 512))
    _check_width(text, width, "vectors of its text encoder")
    if second and encoders == 1:
        raise ValueError(f"is for two text encoders, as in Stable Diffusion XL, and the model has one; {_FIX}")


def _check_width(shapes: Shapes, reads: object, what: str) -> None:
    widths = {shape[1] for shape in shapes.values() if len(shape) > 1}
    wanted = set(reads) if isinstance(reads, list) else {reads}
    if strange := widths - wanted:
        given = max(strange)
        known = f", as in {_NAMES[given]}" if given in _NAMES else ""
        raise ValueError(f"is for {what} of width {given}{known}, and the model has {max(wanted)}; {_FIX}")  # type: ignore[type-var]
