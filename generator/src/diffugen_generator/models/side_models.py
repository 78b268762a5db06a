"""Finds the models beside the diffusion model: detectors, CLIP, safety checkers. None of them is loaded.

A detector's classes are read from its configuration. So a class that it does not know is refused before drawing
starts. A plan needs only the digests of remote models, not their weights; a stage that labels has the weights in the
cache.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from diffugen_api.errors import SpecError
from diffugen_api.recipes import DETECTOR, MASKS
from diffugen_api.v1alpha1 import S3, DetectorLabeling, ObjectClass
from diffugen_generator.families.folder import PICKLED, settings_from, variant_of
from diffugen_generator.models.digests import FileDigest, digest_of, hashed
from diffugen_generator.models.files import SAFE, one_set
from diffugen_generator.models.headers import check_whole
from diffugen_generator.models.pickled_classes import yolo_classes
from diffugen_generator.models.remotes import held, remote_of
from diffugen_generator.models.small_files import open_file
from diffugen_generator.models.uris import BUCKET, BUILTIN_FOLDER, HUB, path_of

SEGMENTERS: Final = ("eomt", "mask2former", "maskformer", "rf_detr")
"""Values of `model_type` of the detectors that need no second model for masks."""
BOX_FINDERS: Final = ("grounding-dino", "mm-grounding-dino", "owlv2", "owlvit")
MASK_MAKERS: Final = ("sam2", "sam2_video")
CLIPS: Final = ("clip",)
CHECKERS: Final = ("stable-diffusion-safety-checker",)
"""Safety checkers. Their `model_type` is that of CLIP, so `architectures` tells them apart."""

M = TypeVar("M", bound=BaseModel)

_FIELD = "spec.labeling.detector"
_CHECKER = "StableDiffusionSafetyChecker"
_CONFIG, _PREPROCESSOR = "config.json", "preprocessor_config.json"
_SETTINGS = (".json", ".txt")
_CHAT_SETTINGS = (*_SETTINGS, ".jinja", ".model")
"""Language models also have a chat template, and tokenizers of sentencepiece."""
_OTHER_LAYOUT = "consolidated"
"""The begin of the names of a second copy of all weights in Mistral's own layout, which transformers does not read."""
_SHOWN = 12
"""How many classes of a detector an error lists."""


@dataclass(frozen=True, slots=True)
class SideModel:
    """A model that was found and can be loaded."""

    uri: str
    """The URI. For a repository it includes the commit of its branch."""
    field: str
    """The field of the manifest that names it."""
    path: Path
    """A folder, or the `.pt` file. For a remote model found without `weights`, the folder has only its settings."""
    digest: str
    """SHA-256 in hex: of the `.pt` file itself, or for a folder over names, sizes and SHA-256s of the files read."""
    family: str
    """`model_type` in its configuration, `yolo`, or one of `CHECKERS`."""
    classes: tuple[str, ...] = ()
    """The classes it can find, in the order of its ids. Empty for an open-vocabulary model or one that finds none."""
    processor: Path = Path()
    """The folder of its preprocessor_config.json."""
    variant: str = ""
    """The variant of its weights: `fp16`, or empty for the plain ones."""


def detectors_of(detector: DetectorLabeling, s3: S3 | None = None, *, weights: bool = True) -> dict[str, SideModel]:
    """Find the models of a detector, by `DETECTOR` and `MASKS`; raise `SpecError` naming the field.

    `s3` is the store that `s3://` means. Without `weights`, the weights of a remote model are not fetched, except a
    `.pt` file, because it holds the classes.
    """
    if detector.type == "yolo":
        return {DETECTOR: _pinned_file(detector.model, detector.sha256, s3)}
    if detector.type == "transformers" or detector.mask_model is None:
        return {DETECTOR: find_folder(detector.model, SEGMENTERS, f"{_FIELD}.model", s3, weights=weights)}
    return {
        DETECTOR: find_folder(detector.model, BOX_FINDERS, f"{_FIELD}.model", s3, weights=weights),
        MASKS: find_folder(detector.mask_model, MASK_MAKERS, f"{_FIELD}.maskModel", s3, weights=weights),
    }


def find_folder(uri: str, families: Sequence[str], field: str, s3: S3 | None, *, weights: bool) -> SideModel:
    """Find the folder of a model whose `model_type` is one of `families`.

    `field` is the manifest's field, for errors; `s3` is the store that `s3://` means. Without `weights`, those of a
    remote model are not fetched. Raises `SpecError`: `UnknownModel` or `UnsupportedModel`.
    """
    return _side_model(_found(uri, field, s3, checker=families is CHECKERS, weights=weights), field, families)


def find_chat_model(uri: str, field: str) -> SideModel:
    """Find the folder of a language model, of any `model_type`, with its weights; raise as `find_folder` does."""
    return _side_model(_found(uri, field, None, settings=_CHAT_SETTINGS), field, ())


def _side_model(
    found: tuple[str, Path, _Parts, Mapping[str, FileDigest]], field: str, families: Sequence[str]
) -> SideModel:
    """Return the model of what `_found` returned; without `families`, any `model_type` is taken."""
    uri, path, parts, files = found
    try:
        config = settings_from((path / parts.folder / _CONFIG).read_bytes(), _CONFIG)
    except ValueError as error:
        raise _unsupported(uri, field, str(error)) from None
    if (family := _family(config)) not in families and families:
        raise _unsupported(uri, field, f"is a {family}; what can be used here is: {', '.join(families)}.")
    if parts.lacks:
        raise _unsupported(uri, field, parts.lacks)
    try:
        check_whole(path, parts.weights)
    except ValueError as error:
        raise _unsupported(uri, field, str(error)) from None
    return SideModel(
        uri,
        field,
        path / parts.folder,
        digest_of({PurePosixPath(name).name: digest for name, digest in files.items()}),
        family,
        _classes(config) if families is SEGMENTERS else (),
        path / parts.processor,
        variant_of(min(parts.weights, key=len)),
    )


def pin_model_uris(settings: M, side_models: Mapping[str, SideModel], **kinds: str) -> M:
    """Return `settings` with the URIs that were found. The URI of a repository includes the commit of its branch.

    `kinds` maps each field of `settings` that names a model to the key of that model in `side_models`.
    """
    found = {field: side_models[kind].uri for field, kind in kinds.items() if kind in side_models}
    return settings.model_copy(update=found)


def builtin_detectors() -> list[str]:
    """Return the names of the detectors that ship with the generator."""
    return sorted(config.parent.name for config in BUILTIN_FOLDER.glob(f"*/{_CONFIG}"))


def check_classes(classes: Sequence[ObjectClass], side_model: SideModel) -> None:
    """Raise `SpecError` with reason `UnknownDetectorClass` if the detector does not know one of `classes`."""
    if not side_model.classes:
        return  # an open-vocabulary detector finds any word
    known = {name.casefold() for name in side_model.classes}
    for number, each in enumerate(classes):
        if each.detected_as.casefold() in known:
            continue
        near = difflib.get_close_matches(each.detected_as, side_model.classes, n=3)
        shown = list(dict.fromkeys([*near, *side_model.classes]))[:_SHOWN]
        more = f" and {len(side_model.classes) - len(shown)} more" if len(side_model.classes) > len(shown) else ""
        raise SpecError(
            "UnknownDetectorClass",
            f"spec.classes[{number}].detectorClass: the detector {side_model.uri} does not know {each.detected_as!r}; "
            f"name what it calls {each.name!r} (it knows: {', '.join(shown)}{more}).",
        )


@dataclass(frozen=True, slots=True)
class _Parts:
    """The files of a model's folder that are read."""

    names: tuple[str, ...]
    """Sorted; relative to the folder."""
    weights: frozenset[str]
    folder: str = ""
    """The subfolder with the network."""
    processor: str = ""
    """The subfolder with the preprocessor."""
    lacks: str = ""
    """Why the model cannot be loaded, as the end of a sentence about it; empty if nothing is missing."""


def _found(
    uri: str,
    field: str,
    s3: S3 | None,
    *,
    checker: bool = False,
    weights: bool = True,
    settings: tuple[str, ...] = _SETTINGS,
) -> tuple[str, Path, _Parts, Mapping[str, FileDigest]]:
    """Return the URI (of a repository with its commit), a local folder, the files read from it, and their digests."""
    if uri.startswith((HUB, BUCKET)):
        remote = remote_of(uri, field, s3)
        parts = _parts_of(uri, field, remote.names(), settings, checker=checker)
        identity = [remote.identity, list(parts.names)]
        path, files = held(remote, "folder", identity, lambda _: parts, weights=weights)
        return remote.uri, path, parts, files
    path = path_of(uri, field, builtin=builtin_detectors(), what="a folder")
    if not path.is_dir():
        raise SpecError("UnknownModel", f"{field}: there is no folder {uri!r}; mount the model's folder there.")
    names = [file.relative_to(path).as_posix() for file in (*path.glob("*"), *path.glob("*/*")) if file.is_file()]
    parts = _parts_of(uri, field, names, settings, checker=checker)
    return uri, path, parts, {name: hashed(path / name) for name in parts.names}


def _parts_of(uri: str, field: str, names: Collection[str], endings: tuple[str, ...], *, checker: bool) -> _Parts:
    seen = {name for name in names if not PurePosixPath(name).name.startswith(".")}
    in_pipeline = checker and _CONFIG not in seen and f"safety_checker/{_CONFIG}" in seen
    folder, processor = ("safety_checker/", "feature_extractor/") if in_pipeline else ("", "")
    own = {name for name in seen if name.startswith(folder) and "/" not in name.removeprefix(folder)}
    if (config := folder + _CONFIG) not in own:
        raise _unsupported(uri, field, f"has no {_CONFIG}.")
    safe = {name for name in own if name.endswith(SAFE) and not name.startswith(_OTHER_LAYOUT)}
    weights = one_set(safe, own) if safe else set[str]()
    lacks = "" if safe else "has no weights; save them as safetensors."
    if not safe and any(name.endswith(PICKLED) for name in own):
        lacks = "has only pickled weights, which may run code when loaded; save it as safetensors."
    settings = {name for name in own if name.endswith(endings)}
    if checker:
        preprocessor = processor + _PREPROCESSOR
        settings = {config, preprocessor} & seen
        if preprocessor not in seen:
            lacks = lacks or f"has no {preprocessor}; put the one that came with the checker there."
    return _Parts(tuple(sorted(settings | weights)), frozenset(weights & safe), folder, processor, lacks)


def _family(config: Mapping[str, Any]) -> str:
    return CHECKERS[0] if _CHECKER in (config.get("architectures") or ()) else str(config.get("model_type"))


def _classes(config: Mapping[str, Any]) -> tuple[str, ...]:
    names = config.get("id2label") or {}
    return tuple(str(names[key]) for key in sorted(names, key=int))


def _unsupported(uri: str, field: str, why: str) -> SpecError:
    return SpecError("UnsupportedModel", f"{field}: {uri!r} {why}")


def _pinned_file(uri: str, sha256: str | None, s3: S3 | None) -> SideModel:
    field = f"{_FIELD}.model"
    remote = uri.startswith((HUB, BUCKET)) and uri.endswith(".pt")
    if remote:
        uri, path, _ = open_file(uri, field=field, s3=s3)
    else:
        path = path_of(uri, field, builtin=builtin_detectors(), what="a .pt file")
    if path.suffix != ".pt" or not path.is_file():
        raise SpecError("UnknownModel", f"{field}: there is no .pt file {uri!r}; mount the model there.")
    if (digest := hashed(path).sha256) != sha256:
        raise SpecError(
            "ModelChanged",
            f"{_FIELD}.sha256: the file {uri} has the SHA-256 {digest}; state that if it is the file you trust.",
        )
    try:
        classes = yolo_classes(path)
    except ValueError as error:
        raise _unsupported(uri, field, str(error)) from None
    return SideModel(uri, field, path, digest, "yolo", classes)
