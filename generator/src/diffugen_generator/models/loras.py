"""Finds LoRAs and checks by the headers of their files that they fit the model; none of them is loaded.

Only safetensors files are read, because a pickled file can run code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from diffugen_api import v1alpha1 as api
from diffugen_api.plan import SpecError
from diffugen_api.v1alpha1 import S3
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.lora import Lora, Shapes
from diffugen_generator.families.registry import family_of
from diffugen_generator.models.files import SAFE
from diffugen_generator.models.headers import check_whole, shapes_at
from diffugen_generator.models.small_files import open_file
from diffugen_generator.samples.shards import LoraFile

_DEFAULT: Final = "pytorch_lora_weights.safetensors"


def find_loras(named: Mapping[str, api.Lora], model: ModelFolder, s3: S3 | None) -> tuple[LoraFile, ...]:
    """Find and check the LoRAs that a manifest names. The keys of `named` are the manifest's fields.

    Raises `SpecError`: reason `UnknownLora` if there is no such file, `UnsupportedLora` if it does not fit.
    """
    found = []
    for field, each in named.items():
        uri, path, digest = _opened(each.uri, field, s3)
        _check(path, uri, model, field)
        found.append(LoraFile(uri, digest, each.weight))
    return tuple(found)


def open_loras(files: Sequence[LoraFile], s3: S3 | None, *, stage: str) -> list[Lora]:
    """Open the LoRAs that the plan used; raise `SpecError` if a file has changed since then."""
    opened = []
    for number, each in enumerate(files):
        field = f"loras[{number}] of stage {stage}"
        _, path, digest = _opened(each.uri, field, s3)
        if digest != each.digest:
            raise SpecError(
                "ModelChanged",
                f"{field}: {each.uri} has the digest {digest[:12]} here, and had {each.digest[:12]} in the plan; "
                "give plan and stages the same file, or plan again.",
            )
        opened.append(Lora(each.uri, path, each.weight))
    return opened


def _opened(uri: str, field: str, s3: S3 | None) -> tuple[str, Path, str]:
    return open_file(uri, field=f"{field}.uri", default=_DEFAULT, s3=s3, reason="UnknownLora")


def _check(path: Path, uri: str, model: ModelFolder, field: str) -> None:
    try:
        family_of(model.pipeline).check_lora(model, _shapes_in(path))
    except ValueError as error:
        raise SpecError("UnsupportedLora", f"{field}.uri: {uri!r} {str(error).rstrip('.')}.") from None


def _shapes_in(path: Path) -> Shapes:
    """Return the shapes of the tensors in a safetensors file; raise `ValueError` if it is none, or not complete."""
    if path.suffix != SAFE:
        raise ValueError("is not a safetensors file, and others may run code when loaded; save it as safetensors")
    check_whole(path.parent, [path.name])
    return shapes_at(path)
