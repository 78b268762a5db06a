"""The models beside the one that draws: detectors, and CLIP. Found and checked without loading any of them.

A detector's classes are read from its configuration, so that a class that it does not know is refused before anything
is drawn. A `.pt` file keeps them in a pickle; that is read with every class in it replaced by an empty one, so nothing
in the file runs.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from diffugen_api.errors import SpecError
from diffugen_api.recipes import CLIP, DETECTOR, MASKS
from diffugen_api.v1alpha1 import S3, ClipScore, DetectorLabeling, LabeledDatasetSpec, ObjectClass
from diffugen_generator.models import BUCKET, BUILTIN, HUB, open_file, open_folder

SEGMENTERS: Final = ("eomt", "mask2former", "maskformer", "rf_detr")
"""Values of `model_type` that label by themselves."""
BOX_FINDERS: Final = ("grounding-dino", "mm-grounding-dino", "owlv2", "owlvit")
MASK_MAKERS: Final = ("sam2", "sam2_video")
CLIPS: Final = ("clip",)

_FIELD = "spec.labeling.detector"
_BUILTIN_FOLDER = Path(__file__).parent / "builtin"
_READ = (".json", ".safetensors", ".txt")
_PICKLED = (".bin", ".ckpt", ".pt", ".pth")
_SHOWN = 12
"""Classes of a detector that an error lists."""


@dataclass(frozen=True, slots=True)
class Judge:
    """A model that was found and can be loaded."""

    uri: str
    path: Path
    """A folder, or the `.pt` file."""
    digest: str
    """SHA-256: of a `.pt` file itself; of a folder over names and contents of what is read, in hex."""
    family: str
    """`model_type` in its configuration, or yolo."""
    classes: tuple[str, ...]
    """What it can find, in the order of its ids; empty where it is told what to find."""


def judges_of(spec: LabeledDatasetSpec) -> dict[str, Judge]:
    """Find the models that a spec asks for beside those that draw, by `DETECTOR`, `MASKS` and `CLIP`.

    Raises `SpecError` naming the field: `UnknownModel`, `UnsupportedModel`, or `UnknownDetectorClass` where the
    detector does not know a class.
    """
    clip, s3 = spec.quality.clip_score, spec.output.s3
    found = {} if spec.labeling.detector is None else detectors_of(spec.labeling.detector, s3)
    if found:
        _check_classes(spec.classes, found[DETECTOR])
    if clip is not None:
        found[CLIP] = clip_of(clip, s3)
    return found


def clip_of(clip: ClipScore, s3: S3 | None = None) -> Judge:
    """Find a CLIP model; raise `SpecError` naming the field. `s3` is the store that `s3://` means."""
    return _folder(clip.model, CLIPS, "spec.quality.clipScore.model", s3)


def detectors_of(detector: DetectorLabeling, s3: S3 | None = None) -> dict[str, Judge]:
    """Find the models of a detector, by `DETECTOR` and `MASKS`; raise `SpecError` naming the field.

    `s3` is the store that `s3://` means.
    """
    if detector.type == "yolo":
        return {DETECTOR: _pinned_file(detector.model, detector.sha256, s3)}
    if detector.type == "transformers" or detector.mask_model is None:
        return {DETECTOR: _folder(detector.model, SEGMENTERS, f"{_FIELD}.model", s3)}
    return {
        DETECTOR: _folder(detector.model, BOX_FINDERS, f"{_FIELD}.model", s3),
        MASKS: _folder(detector.mask_model, MASK_MAKERS, f"{_FIELD}.maskModel", s3),
    }


def builtin_detectors() -> list[str]:
    """Return the names of the detectors that ship with the generator."""
    return sorted(config.parent.name for config in _BUILTIN_FOLDER.glob("*/config.json"))


def _check_classes(classes: Sequence[ObjectClass], judge: Judge) -> None:
    if not judge.classes:
        return  # it is told what to find
    known = {name.casefold() for name in judge.classes}
    for number, each in enumerate(classes):
        if each.detected_as.casefold() in known:
            continue
        near = difflib.get_close_matches(each.detected_as, judge.classes, n=3)
        shown = list(dict.fromkeys([*near, *judge.classes]))[:_SHOWN]
        more = f" and {len(judge.classes) - len(shown)} more" if len(judge.classes) > len(shown) else ""
        raise SpecError(
            "UnknownDetectorClass",
            f"spec.classes[{number}].detectorClass: the detector {judge.uri} does not know {each.detected_as!r}; name "
            f"what it calls {each.name!r} (it knows: {', '.join(shown)}{more}).",
        )


def _folder(uri: str, families: Sequence[str], field: str, s3: S3 | None) -> Judge:
    remote = uri.startswith((HUB, BUCKET))
    path = open_folder(uri, field=field, endings=_READ, s3=s3) if remote else _path(uri, field)
    if not path.is_dir():
        raise SpecError("UnknownModel", f"{field}: there is no folder {uri!r}; mount the model's folder there.")
    try:
        config = _checked(path, families)
    except ValueError as error:
        raise SpecError("UnsupportedModel", f"{field}: {uri!r} {error}") from None
    files = sorted(file for file in path.glob("[!.]*") if file.is_file() and file.suffix in _READ)
    return Judge(
        uri, path, _digest(files), str(config["model_type"]), _classes(config) if families is SEGMENTERS else ()
    )


def _checked(path: Path, families: Sequence[str]) -> dict[str, Any]:
    """Return a folder's configuration; raise `ValueError` where it cannot be used, its text ending a sentence."""
    config = _config(path)
    if config.get("model_type") not in families:
        raise ValueError(f"is a {config.get('model_type')}; what can be used here is: {', '.join(families)}.")
    suffixes = {file.suffix for file in path.iterdir()}
    if ".safetensors" in suffixes:
        return config
    if suffixes & set(_PICKLED):
        raise ValueError("has only pickled weights, which may run code when loaded; save it as safetensors.")
    raise ValueError("has no weights; save them as safetensors.")


def _pinned_file(uri: str, sha256: str | None, s3: S3 | None) -> Judge:
    field = f"{_FIELD}.model"
    remote = uri.startswith((HUB, BUCKET)) and uri.endswith(".pt")
    path = open_file(uri, field=field, s3=s3)[1] if remote else _path(uri, field)
    if path.suffix != ".pt" or not path.is_file():
        raise SpecError("UnknownModel", f"{field}: there is no .pt file {uri!r}; mount the model there.")
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != sha256:
        raise SpecError(
            "ModelChanged",
            f"{_FIELD}.sha256: the file {uri} has the SHA-256 {digest}; state that if it is the file you trust.",
        )
    try:
        classes = yolo_classes(path)
    except ValueError as error:
        raise SpecError("UnsupportedModel", f"{field}: {uri!r} {error}") from None
    return Judge(uri, path, digest, "yolo", classes)


def _path(uri: str, field: str) -> Path:
    names = ", ".join(builtin_detectors())
    if uri.startswith(BUILTIN):
        if uri.removeprefix(BUILTIN) not in builtin_detectors():
            raise SpecError("UnknownModel", f"{field}: no model is built in as {uri!r}; builtin are: {names}.")
        return _BUILTIN_FOLDER / uri.removeprefix(BUILTIN)
    path = Path(uri)
    if "://" in uri or not path.is_absolute():
        raise SpecError(
            "UnknownModel",
            f"{field}: {uri!r} is neither {BUILTIN}NAME (there are: {names}), {HUB}ORG/NAME@REVISION, "
            f"{BUCKET}BUCKET/FOLDER nor an absolute path.",
        )
    return path


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads((path / "config.json").read_bytes())
    except OSError:
        raise ValueError("has no config.json.") from None
    except ValueError:
        raise ValueError("has a config.json that is not JSON.") from None
    if not isinstance(config, dict):
        raise ValueError("has a config.json that is no JSON object.")  # noqa: TRY004
    return config


def _classes(config: Mapping[str, Any]) -> tuple[str, ...]:
    names = config.get("id2label") or {}
    return tuple(str(names[key]) for key in sorted(names, key=int))


def _digest(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        name = file.name.encode()
        digest.update(len(name).to_bytes(8, "big") + name + file.stat().st_size.to_bytes(8, "big"))
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def yolo_classes(file: Path) -> tuple[str, ...]:
    """Return the classes of an Ultralytics segmentation model; raise `ValueError` where `file` is none.

    Nothing in the file is run.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            inside = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            with archive.open(inside) as stream:
                reader = _Inert(stream)
                content = reader.load()
        model = content["model"] if content["model"] is not None else content["ema"]
        names = model.__dict__["names"]
        found = tuple(str(names[key]) for key in sorted(names))
    except (zipfile.BadZipFile, StopIteration, pickle.UnpicklingError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"is no Ultralytics model ({type(error).__name__}).") from None
    if "SegmentationModel" not in type(model).__name__:
        raise ValueError(f"is a {type(model).__name__}: it finds no masks; give a segmentation model (…-seg.pt).")
    return found


class _Inert(pickle.Unpickler):
    """Reads a pickle's structure. Every class and function in it is an empty class of that name."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream)
        self._made: dict[str, type] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return an empty class; dictionaries stay dictionaries."""
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        return self._made.setdefault(f"{module}.{name}", type(name, (_Empty,), {}))

    def persistent_load(self, pid: object) -> None:
        """Return nothing: the tensors are in other files."""


class _Empty(dict[Any, Any]):
    """Takes whatever a pickle builds it from."""

    def __new__(cls, *_: object, **__: object) -> _Empty:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.__dict__.update({str(key): value for key, value in state.items()})

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)

    def append(self, _: object) -> None:
        """Take an item of a list."""

    def extend(self, _: object) -> None:
        """Take items of a list."""

    def add(self, _: object) -> None:
        """Take an item of a set."""
