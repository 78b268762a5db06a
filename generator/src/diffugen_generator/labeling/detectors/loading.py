"""Loads the parts of a transformers model: only safetensors, only from the folder, and never code from it."""

from __future__ import annotations

from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from diffugen_api.errors import SpecError
from diffugen_generator.models.side_models import SideModel


def load_model(  # transformers' classes are untyped
    auto: Any, side_model: SideModel, device: torch.device, *, dtype: torch.dtype = torch.float32
) -> Any:
    """Load a model by one of transformers' auto classes, ready for inference.

    Raises `SpecError` if the files are not a complete model; missing or unused weights are errors, too.
    """
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # untyped there
    try:
        model, report = auto.from_pretrained(
            side_model.path,
            variant=side_model.variant or None,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except ImportError as error:
        raise _needs_package(side_model, error) from error
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise unsupported(side_model, str(error)) from error
    if missing := sorted(report["missing_keys"]):
        raise unsupported(side_model, f"weights are missing: {', '.join(missing[:3])}")
    return model.to(device).eval()


def load_part(auto: Any, side_model: SideModel) -> Any:
    """Load a processor or tokenizer by one of transformers' auto classes."""
    try:
        return auto.from_pretrained(side_model.processor, local_files_only=True, trust_remote_code=False)
    except ImportError as error:
        raise _needs_package(side_model, error) from error
    except (OSError, ValueError, KeyError) as error:
        raise unsupported(side_model, str(error)) from error


def unsupported(side_model: SideModel, why: str, fix: str = "save it again, whole") -> SpecError:
    """Return the error for a model that cannot be loaded: why, and what to do."""
    line = " ".join(why.split())[:300]
    return SpecError(
        "UnsupportedModel",
        f"{side_model.field}: the model {side_model.uri} cannot be loaded as a {side_model.family}: {line}; {fix}.",
    )


def _needs_package(side_model: SideModel, error: ImportError) -> SpecError:
    """Return the error for a model that needs a package which is not installed, such as one for quantized weights."""
    return unsupported(side_model, str(error).rstrip("."), "install it, or name a model that does not need it")
