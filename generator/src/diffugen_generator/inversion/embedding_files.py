"""The files of a trained word, as diffusers writes and reads them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from safetensors.torch import save

from diffugen_generator.inversion.result_names import BOTH, FIRST, SECOND
from diffugen_generator.models.embeddings import PLACES


def embedding_files(token: str, vectors: Sequence[torch.Tensor]) -> dict[str, bytes]:
    """Return the files of a word, by name, from its vectors [n, width] for each text encoder.

    One encoder: one file, `{token: vectors}`, which `load_textual_inversion` of diffusers reads. Two (Stable Diffusion
    XL): one such file for each encoder, as diffusers' own script names them, and one with both, `{clip_l, clip_g}`.
    """
    plain = [each.detach().float().cpu().contiguous() for each in vectors]
    about = {"format": "pt"}
    files = {name: save({token: each}, about) for name, each in zip((FIRST, SECOND), plain, strict=False)}
    if len(plain) > 1:
        files[BOTH] = save(dict(zip(PLACES, plain, strict=True)), about)
    return files
