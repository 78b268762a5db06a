"""Models by name: what a `model:` field means, checked without loading anything.

A model is a folder in diffusers' layout. Its digest covers what the pipeline reads, and nothing else, so a
README or a second copy of the weights changes no picture's address. Only safetensors are read: pickled
weights run code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from diffugen_api.plan import SpecError

BUILTIN: Final = "builtin://"
PIPELINES: Final = ("StableDiffusionPipeline", "StableDiffusionInpaintPipeline")
"""Values of `_class_name` in model_index.json that can be drawn with."""

WEIGHTS: Final = ("text_encoder", "unet", "vae")
"""Components with weights."""
COMPONENTS: Final = ("scheduler", "text_encoder", "tokenizer", "unet", "vae")
"""Every component that is read; a safety checker or a feature extractor is not."""

_PICKLED = (".bin", ".ckpt", ".pt", ".pth")
_READ = (".json", ".safetensors", ".txt")
_FIELD = "spec.stages[].txt2img.model"
_BUILTIN_FOLDER = Path(__file__).parent / "builtin"


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model that was found and can be loaded."""

    uri: str
    path: Path
    digest: str
    """SHA-256 over names and contents of the files that the pipeline reads, in hex."""


def builtin_names() -> list[str]:
    """Return the names of the models that ship with the generator."""
    return sorted(index.parent.name for index in _BUILTIN_FOLDER.glob("*/model_index.json"))


def resolve(uri: str, *, field: str = _FIELD) -> ModelFolder:
    """Find the model that `uri` names: `builtin://NAME`, or the absolute path of a folder.

    `field` is the manifest's field that is named in errors. Raises `SpecError` with reason `UnknownModel`
    where there is no such folder, and `UnsupportedModel` where it is no Stable Diffusion pipeline with
    safetensors weights.
    """
    path = _folder_of(uri, field)
    try:
        _check(path)
    except ValueError as error:
        raise SpecError("UnsupportedModel", f"{field}: {uri!r} {error}") from None
    return ModelFolder(uri, path, _digest(path))


def check_kind(model: ModelFolder, kind: str, field: str) -> None:
    """Raise `SpecError` where a stage of `kind` cannot draw with a model that was made for inpainting."""
    if kind != "inpaint" and made_for_inpainting(model):
        raise SpecError(
            "UnsupportedModel",
            f"{field}: {model.uri!r} is made for inpainting and cannot do {kind}; name one that is not, or use it in "
            "an inpaint stage.",
        )


def made_for_inpainting(model: ModelFolder) -> bool:
    """Return whether the model's UNet is given a mask and what is around it: two sets of latents and one channel."""
    try:
        taken = int(settings_of(model.path / "unet" / "config.json")["in_channels"])
        latents = int(settings_of(model.path / "vae" / "config.json")["latent_channels"])
    except (KeyError, TypeError, ValueError):
        return False  # whoever loads the model says what is wrong with it
    return taken == 2 * latents + 1


def settings_of(path: Path) -> dict[str, Any]:
    """Read a JSON file of the model; raise `ValueError` where it is missing or broken."""
    try:
        content = json.loads(path.read_bytes())
    except OSError:
        raise ValueError(f"has no {path.name} in {path.parent.name}/.") from None
    except ValueError:
        raise ValueError(f"has a {path.name} in {path.parent.name}/ that is not JSON.") from None
    if not isinstance(content, dict):
        raise ValueError(f"has a {path.name} in {path.parent.name}/ that is no JSON object.")  # noqa: TRY004
    return content


def _folder_of(uri: str, field: str) -> Path:
    if uri.startswith(BUILTIN):
        name = uri.removeprefix(BUILTIN)
        if name not in builtin_names():
            raise SpecError(
                "UnknownModel",
                f"{field}: no model is built in as {name!r}; builtin are: {', '.join(builtin_names())}.",
            )
        return _BUILTIN_FOLDER / name
    path = Path(uri)
    if "://" in uri or not path.is_absolute():
        raise SpecError(
            "UnknownModel",
            f"{field}: {uri!r} is neither {BUILTIN}NAME nor the absolute path of a diffusers folder; "
            f"builtin are: {', '.join(builtin_names())}.",
        )
    if not path.is_dir():
        raise SpecError(
            "UnknownModel", f"{field}: there is no folder {uri!r}; mount the model's diffusers folder there."
        )
    return path


def _check(path: Path) -> None:
    """Raise `ValueError` where `path` cannot be drawn with; its text ends a sentence about the model."""
    if not (path / "model_index.json").is_file():
        raise ValueError("is no diffusers folder: it has no model_index.json.")
    pipeline = settings_of(path / "model_index.json").get("_class_name")
    if pipeline not in PIPELINES:
        raise ValueError(f"is a {pipeline}; what can be drawn with is: {', '.join(PIPELINES)}.")
    for component in COMPONENTS:
        if not (path / component).is_dir():
            raise ValueError(f"lacks its folder {component}/.")
    for component in WEIGHTS:
        suffixes = {file.suffix for file in (path / component).iterdir()}
        if ".safetensors" in suffixes:
            continue
        if suffixes & set(_PICKLED):
            raise ValueError(
                f"has only pickled weights in {component}/, which may run code when loaded; "
                "save it anew with safe_serialization=True."
            )
        raise ValueError(f"has no weights in {component}/.")


def _digest(path: Path) -> str:
    files = []
    for file in _files(path):
        status = file.stat()
        files.append((file.relative_to(path).as_posix(), status.st_size, status.st_mtime_ns))
    return _hash(path, tuple(files))


@lru_cache(maxsize=16)
def _hash(path: Path, files: tuple[tuple[str, int, int], ...]) -> str:
    """Hash names, sizes and contents. Times are in the key, so that a changed model is hashed anew."""
    digest = hashlib.sha256()
    for name, size, _ in files:
        digest.update(len(name.encode()).to_bytes(8, "big") + name.encode() + size.to_bytes(8, "big"))
        with (path / name).open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def _files(path: Path) -> Iterator[Path]:
    yield path / "model_index.json"
    for component in COMPONENTS:
        yield from sorted(f for f in (path / component).iterdir() if f.is_file() and f.suffix in _READ)
