"""Loads the parts of a transformers model: safetensors only, from the folder only, and never code from it."""

from __future__ import annotations

from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from diffugen_api.errors import SpecError
from diffugen_generator.models.side_models import Judge


def load_model(auto: Any, judge: Judge, device: torch.device) -> Any:  # transformers' classes are untyped
    """Load a model by one of transformers' auto classes, in float32, ready for inference.

    Raises `SpecError` where the files do not make one, weights that are missing or left over included.
    """
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # untyped there
    try:
        model, told = auto.from_pretrained(
            judge.path,
            variant=judge.variant or None,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise unsupported(judge, str(error)) from error
    if missing := sorted(told["missing_keys"]):
        raise unsupported(judge, f"weights are missing: {', '.join(missing[:3])}")
    return model.to(device).eval()


def load_part(auto: Any, judge: Judge) -> Any:
    """Load a processor or tokenizer by one of transformers' auto classes."""
    try:
        return auto.from_pretrained(judge.processor, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise unsupported(judge, str(error)) from error


def unsupported(judge: Judge, why: str) -> SpecError:
    """Return what is told of a model that cannot be loaded."""
    line = " ".join(why.split())[:300]
    return SpecError(
        "UnsupportedModel",
        f"{judge.field}: the model {judge.uri} cannot be loaded as a {judge.family}: {line}; save it anew, whole.",
    )
