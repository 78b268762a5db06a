"""Detectors in manifests: what is found, and what is refused, before anything is drawn."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from diffugen_api.errors import SpecError
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_generator import judges, models
from diffugen_generator.judges import detectors_of, judges_of
from diffugen_generator.models.digests import FileDigest, hashed
from tests.generator.made import spec_data


def a_folder(folder: Path, family: str = "mask2former", weights: str = "model.safetensors", **config: Any) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    names = {str(number): name for number, name in enumerate(["ball", "square", "triangle", "star"])}
    (folder / "config.json").write_text(json.dumps({"model_type": family, "id2label": names, **config}))
    (folder / weights).write_text("weights")
    return str(folder)


def spec_of(detector: dict[str, Any], **changes: Any) -> LabeledDatasetSpec:
    return LabeledDatasetSpec.model_validate(spec_data("builtin://shapes", labeling={"detector": detector}, **changes))


def refusal(spec: LabeledDatasetSpec) -> SpecError:
    with pytest.raises(SpecError) as refused:
        judges_of(spec)
    return refused.value


def test_a_class_that_the_detector_does_not_know_is_told_with_some_that_it_does(tmp_path: Path) -> None:
    classes = [{"name": "ball"}, {"name": "box", "detectorClass": "squares"}]
    prompts = {"templates": ["a ball"]}
    spec = spec_of({"type": "transformers", "model": a_folder(tmp_path / "m")}, classes=classes, prompts=prompts)

    error = refusal(spec)

    assert error.reason == "UnknownDetectorClass"
    assert str(error) == (
        f"spec.classes[1].detectorClass: the detector {tmp_path / 'm'} does not know 'squares'; name what it calls "
        "'box' (it knows: square, ball, triangle, star)."
    )


def test_detector_class_is_the_name_where_it_is_absent(tmp_path: Path) -> None:
    assert set(judges_of(spec_of({"type": "transformers", "model": a_folder(tmp_path / "m")}))) == {"detector"}


def test_the_built_in_segmenter_is_found() -> None:
    (judge,) = judges_of(spec_of({"type": "transformers", "model": "builtin://shapes-segmenter"})).values()

    assert (judge.family, judge.classes) == ("mask2former", ("ball", "square", "triangle", "star"))


@pytest.mark.parametrize(
    ("model", "reason", "message"),
    [
        ("builtin://nothing", "UnknownModel", "no model is built in as 'builtin://nothing'; builtin are: shapes-seg"),
        ("/no/such/folder", "UnknownModel", "there is no folder '/no/such/folder'"),
        ("relative", "UnknownModel", "is neither builtin://NAME"),
    ],
)
def test_models_that_are_not_there(model: str, reason: str, message: str) -> None:
    error = refusal(spec_of({"type": "transformers", "model": model}))

    assert error.reason == reason
    assert str(error).startswith("spec.labeling.detector.model: ")
    assert message in str(error)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"family": "bert"}, "is a bert; what can be used here is: eomt, mask2former, maskformer, rf_detr."),
        ({"weights": "pytorch_model.bin"}, "has only pickled weights, which may run code when loaded"),
        ({"weights": "notes.md"}, "has no weights"),
    ],
)
def test_models_that_cannot_be_used(tmp_path: Path, made: dict[str, str], message: str) -> None:
    error = refusal(spec_of({"type": "transformers", "model": a_folder(tmp_path / "m", **made)}))

    assert error.reason == "UnsupportedModel"
    assert message in str(error)


def test_the_digest_is_of_what_is_read(tmp_path: Path) -> None:
    def digest() -> str:
        return judges_of(spec_of({"type": "transformers", "model": str(tmp_path / "m")}))["detector"].digest

    a_folder(tmp_path / "m")
    first = digest()
    (tmp_path / "m" / "README.md").write_text("words")
    assert digest() == first
    (tmp_path / "m" / "model.safetensors").write_text("other weights")
    assert digest() != first


def test_open_vocabulary_knows_every_class_and_needs_both_models(tmp_path: Path) -> None:
    finder, masker = a_folder(tmp_path / "f", "owlv2", id2label={}), a_folder(tmp_path / "s", "sam2_video")
    detector = {"type": "open-vocabulary", "model": finder, "maskModel": masker}

    assert set(judges_of(spec_of(detector))) == {"detector", "masks"}
    error = refusal(spec_of({**detector, "maskModel": finder}))
    assert str(error).startswith("spec.labeling.detector.maskModel: ")


class SegmentationModel:
    """Has classes, as a model of ultralytics has."""

    def __init__(self) -> None:
        self.names = {1: "star", 0: "ball"}


class DetectionModel(SegmentationModel):
    pass


class Bomb:
    """Runs code when it is unpickled by whoever lets it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path(__file__).parent / "exploded",))


def a_pickle(file: Path, content: object) -> str:
    import hashlib

    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(content))
    return hashlib.sha256(file.read_bytes()).hexdigest()


def yolo(file: Path, sha256: str) -> LabeledDatasetSpec:
    classes, prompts = [{"name": "ball"}, {"name": "star"}], {"templates": ["a ball"]}
    detector = {"type": "yolo", "model": str(file), "sha256": sha256}
    return spec_of(detector, classes=classes, prompts=prompts)


def test_a_yolo_file_tells_its_classes_and_nothing_in_it_runs(tmp_path: Path) -> None:
    digest = a_pickle(tmp_path / "m.pt", {"model": SegmentationModel(), "extra": Bomb()})

    judge = judges_of(yolo(tmp_path / "m.pt", digest))["detector"]

    assert (judge.classes, judge.digest) == (("ball", "star"), digest)
    assert not (Path(__file__).parent / "exploded").exists()


def test_a_yolo_file_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    digest = a_pickle(tmp_path / "m.pt", {"model": SegmentationModel()})

    error = refusal(yolo(tmp_path / "m.pt", "0" * 64))

    assert error.reason == "ModelChanged"
    assert str(error).startswith("spec.labeling.detector.sha256: ")
    assert digest in str(error)


def test_a_yolo_file_that_finds_no_masks_is_refused(tmp_path: Path) -> None:
    digest = a_pickle(tmp_path / "m.pt", {"model": DetectionModel()})

    assert "it finds no masks" in str(refusal(yolo(tmp_path / "m.pt", digest)))


def test_other_files_are_no_yolo_models(tmp_path: Path) -> None:
    import hashlib

    (tmp_path / "m.pt").write_bytes(b"weights")

    error = refusal(yolo(tmp_path / "m.pt", hashlib.sha256(b"weights").hexdigest()))

    assert error.reason == "UnsupportedModel"


def test_a_spec_without_judges_has_none() -> None:
    assert judges_of(LabeledDatasetSpec.model_validate(spec_data("builtin://shapes"))) == {}


def test_a_detector_is_found_without_the_spec_around_it(tmp_path: Path) -> None:
    spec = spec_of({"type": "transformers", "model": a_folder(tmp_path / "m")})

    assert spec.labeling.detector is not None
    assert detectors_of(spec.labeling.detector) == judges_of(spec)


class Elsewhere:
    """A repository that is a folder here, and counts what is fetched from it."""

    uri = "hf://org/name@0000"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fetched: list[str] = []
        self.identity = ["test", str(folder)]

    def names(self) -> list[str]:
        return [file.relative_to(self.folder).as_posix() for file in self.folder.rglob("*") if file.is_file()]

    def fetch(self, names: list[str], into: Path) -> dict[str, FileDigest]:
        self.fetched += names
        return {name: hashed(Path(shutil.copy(self.folder / name, into / name))) for name in names}


def test_a_model_of_a_hub_is_fetched_once_without_what_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "there"
    a_folder(here)
    (here / "pytorch_model.bin").write_text("pickle")
    (here / "onnx").mkdir()
    (here / "onnx" / "model.safetensors").write_text("another")
    elsewhere = Elsewhere(here)
    monkeypatch.setattr(models, "_remote", lambda *_: elsewhere)
    monkeypatch.setenv("DIFFUGEN_MODEL_CACHE", str(tmp_path / "cache"))

    spec = spec_of({"type": "transformers", "model": "hf://org/name@main"})
    first, again = judges_of(spec)["detector"], judges_of(spec)["detector"]

    assert sorted(elsewhere.fetched) == ["config.json", "model.safetensors"]
    assert first == again
    assert first.digest == judges_of(spec_of({"type": "transformers", "model": str(here)}))["detector"].digest


def test_a_yolo_file_of_a_hub_is_fetched_and_held_to_its_pin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "m.pt"
    digest = a_pickle(file, {"model": SegmentationModel()})
    asked: list[str] = []
    monkeypatch.setattr(judges, "open_file", lambda uri, **_: (asked.append(uri), file, digest))
    spec = yolo(file, digest).model_dump(by_alias=True, mode="json")
    spec["labeling"]["detector"]["model"] = "hf://org/name@main/m.pt"

    judge = judges_of(LabeledDatasetSpec.model_validate(spec))["detector"]

    assert asked == ["hf://org/name@main/m.pt"]
    assert (judge.path, judge.digest) == (file, digest)
