"""Loads networks from a checkpoint in a single file, converted by diffusers. No code of the file is run.

The settings are those of the model's folder, which `checkpoint.read_checkpoint` made from the file; nothing is fetched.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from diffugen_generator.families.folder import PICKLED, ModelFolder
from diffugen_generator.families.unet.checkpoint import TEXT_PREFIXES, generation_of, present_name
from diffugen_generator.families.unet.ldm_names import UNET, VAE

_OF_TRANSFORMERS = (CLIPTextModel, CLIPTextModelWithProjection)


class SingleFile:
    """The weights of a checkpoint, from which one network after the other is loaded."""

    def __init__(self, model: ModelFolder, file: Path) -> None:
        """Open the file; raise `ValueError` if it has no layout that is known here."""
        self._folder = model.path
        self._weights = _tensors_of(file)
        generation = generation_of(self._weights)
        if generation is None:
            raise ValueError(f"{file.name} is no checkpoint of Stable Diffusion")
        self._prefixes = {**TEXT_PREFIXES[generation], "unet": UNET, "vae": VAE}

    def network(self, kind: Any, component: str, dtype: torch.dtype) -> Any:
        """Load a network of class `kind`; raise `ValueError` if one of its weights is missing."""
        own = {name: each for name, each in self._weights.items() if name.startswith(self._prefixes[component])}
        options = {"config": str(self._folder), "subfolder": component, "local_files_only": True, "torch_dtype": dtype}
        if kind in _OF_TRANSFORMERS:
            network = create_diffusers_clip_model_from_ldm(kind, own, **options)  # type: ignore[no-untyped-call]
        else:
            network = kind.from_single_file(own, **options)
        if missing := sorted(name for name, each in network.named_parameters() if each.is_meta):
            raise ValueError(f"{component}/ lacks {len(missing)} of its weights, {', '.join(missing[:3])} among them")
        return network.eval().requires_grad_(False)


def _tensors_of(file: Path) -> dict[str, torch.Tensor]:
    """Return the tensors by the names that they have today; a pickle is read by torch's `weights_only` loader."""
    if file.suffix in PICKLED:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        content = content.get("state_dict", content)
    else:
        content = load_file(file)
    return {present_name(name): each for name, each in content.items() if isinstance(each, torch.Tensor)}
