"""Checks that numbers of a network are finite: fp16 overflows at 65,504, and NaN would become a black image."""

from __future__ import annotations

import torch

from diffugen_api.errors import SpecError

_FIXES = {
    torch.float16: "set it to bfloat16 or float32",
    torch.bfloat16: "set it to float32",
}
_ELSE = "a lower guidanceScale may help; else the model's weights are damaged, and another model is needed"


def check_finite(values: torch.Tensor, what: str, dtype: torch.dtype) -> None:
    """Raise `SpecError` naming `run.dtype` if any of `values` is NaN or infinite.

    Args:
        values: numbers of a network, of any shape.
        what: names them in the message, in the plural.
        dtype: the type in which the network computed them.
    """
    if not bool(torch.isfinite(values).all()):
        name = str(dtype).removeprefix("torch.")
        raise SpecError(
            "NotFinite",
            f"run.dtype: {what} are not finite (NaN or infinity) with {name}, so nothing of this batch is stored; "
            f"{_FIXES.get(dtype, _ELSE)}.",
        )
