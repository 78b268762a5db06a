"""Detectors in manifests: which are found and which are refused, before anything is drawn."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from diffugen_api.errors import SpecError
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_generator.labeling.side_model_registry import side_models_of
from diffugen_generator.models import side_models
from diffugen_generator.models.side_models import detectors_of
from diffugen_generator.planning.plan import plan
from diffugen_generator.store.folder import FolderStore
from tests.generator.hubs import Hub, a_hub
from tests.generator.made import a_model, an_order, planned_shards, spec_data, weights_of


def a_folder(folder: Path, family: str = "mask2former", weights: str = "model.safetensors", **config: Any) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    names = {str(number): name for number, name in enumerate(["ball", "square", "triangle", "star"])}
    (folder / "config.json").write_text(json.dumps({"model_type": family, "id2label": names, **config}))
    (folder / weights).write_bytes(weights_of("weights"))
    return str(folder)


def spec_of(detector: dict[str, Any], **changes: Any) -> LabeledDatasetSpec:
    return LabeledDatasetSpec.model_validate(spec_data("builtin://shapes", labeling={"detector": detector}, **changes))


def refusal(spec: LabeledDatasetSpec) -> SpecError:
    with pytest.raises(SpecError) as refused:
        side_models_of(spec)
    return refused.value


def test_an_unknown_class_of_a_detector_is_named_with_some_known_ones(tmp_path: Path) -> None:
    classes = [{"name": "ball"}, {"name": "box", "detectorClass": "squares"}]
    prompts = {"templates": ["a ball"]}
    spec = spec_of({"type": "transformers", "model": a_folder(tmp_path / "m")}, classes=classes, prompts=prompts)

    error = refusal(spec)

    assert error.reason == "UnknownDetectorClass"
    assert str(error) == (
        f"spec.classes[1].detectorClass: the detector {tmp_path / 'm'} does not know 'squares'; name what it calls "
        "'box' (it knows: square, ball, triangle, star)."
    )


def test_detector_class_defaults_to_the_name(tmp_path: Path) -> None:
    assert set(side_models_of(spec_of({"type": "transformers", "model": a_folder(tmp_path / "m")}))) == {"detector"}


def test_the_built_in_segmenter_is_found() -> None:
    (side_model,) = side_models_of(spec_of({"type": "transformers", "model": "builtin://shapes-segmenter"})).values()

    assert (side_model.family, side_model.classes) == ("mask2former", ("ball", "square", "triangle", "star"))


@pytest.mark.parametrize(
    ("model", "reason", "message"),
    [
        ("builtin://nothing", "UnknownModel", "no model is built in as 'nothing'; builtin are: shapes-seg"),
        ("/no/such/folder", "UnknownModel", "there is no folder '/no/such/folder'"),
        ("relative", "UnknownModel", "is neither builtin://NAME"),
    ],
)
def test_missing_models_are_refused(model: str, reason: str, message: str) -> None:
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
def test_unusable_models_are_refused(tmp_path: Path, made: dict[str, str], message: str) -> None:
    error = refusal(spec_of({"type": "transformers", "model": a_folder(tmp_path / "m", **made)}))

    assert error.reason == "UnsupportedModel"
    assert message in str(error)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            weights_of("weights")[:-1],
            "has a file model.safetensors of .* bytes whose header tells of .*; copy it again.",
        ),
        (b"weights", "has a file model.safetensors whose header cannot be read: it is broken; copy it again."),
    ],
)
def test_incomplete_weights_are_found_without_loading_them(tmp_path: Path, weights: bytes, message: str) -> None:
    model = a_folder(tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").write_bytes(weights)

    error = refusal(spec_of({"type": "transformers", "model": model}))

    assert re.fullmatch(f"spec.labeling.detector.model: '{model}' {message}", str(error))


def test_the_digest_covers_the_files_that_are_read(tmp_path: Path) -> None:
    def digest() -> str:
        return side_models_of(spec_of({"type": "transformers", "model": str(tmp_path / "m")}))["detector"].digest

    a_folder(tmp_path / "m")
    first = digest()
    (tmp_path / "m" / "README.md").write_text("words")
    assert digest() == first
    (tmp_path / "m" / "model.safetensors").write_bytes(weights_of("other weights"))
    assert digest() != first


def test_open_vocabulary_knows_every_class_and_needs_both_models(tmp_path: Path) -> None:
    finder, masker = a_folder(tmp_path / "f", "owlv2", id2label={}), a_folder(tmp_path / "s", "sam2_video")
    detector = {"type": "open-vocabulary", "model": finder, "maskModel": masker}

    assert set(side_models_of(spec_of(detector))) == {"detector", "masks"}
    error = refusal(spec_of({**detector, "maskModel": finder}))
    assert str(error).startswith("spec.labeling.detector.maskModel: ")


class SegmentationModel:
    """Has classes, like a model of ultralytics."""

    def __init__(self) -> None:
        self.names = {1: "star", 0: "ball"}


class DetectionModel(SegmentationModel):
    pass


class Bomb:
    """Runs code if it is unpickled without restrictions."""

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


def test_the_classes_of_a_yolo_file_are_read_and_no_code_in_it_runs(tmp_path: Path) -> None:
    digest = a_pickle(tmp_path / "m.pt", {"model": SegmentationModel(), "extra": Bomb()})

    side_model = side_models_of(yolo(tmp_path / "m.pt", digest))["detector"]

    assert (side_model.classes, side_model.digest) == (("ball", "star"), digest)
    assert not (Path(__file__).parent / "exploded").exists()


def test_a_yolo_file_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    digest = a_pickle(tmp_path / "m.pt", {"model": SegmentationModel()})

    error = refusal(yolo(tmp_path / "m.pt", "0" * 64))

    assert error.reason == "ModelChanged"
    assert str(error).startswith("spec.labeling.detector.sha256: ")
    assert digest in str(error)


def test_a_yolo_file_without_masks_is_refused(tmp_path: Path) -> None:
    digest = a_pickle(tmp_path / "m.pt", {"model": DetectionModel()})

    assert "it finds no masks" in str(refusal(yolo(tmp_path / "m.pt", digest)))


def test_other_files_are_refused(tmp_path: Path) -> None:
    import hashlib

    (tmp_path / "m.pt").write_bytes(b"weights")

    error = refusal(yolo(tmp_path / "m.pt", hashlib.sha256(b"weights").hexdigest()))

    assert error.reason == "UnsupportedModel"


def test_a_spec_without_side_models_gives_none() -> None:
    assert side_models_of(LabeledDatasetSpec.model_validate(spec_data("builtin://shapes"))) == {}


def test_a_detector_is_found_without_a_whole_spec(tmp_path: Path) -> None:
    spec = spec_of({"type": "transformers", "model": a_folder(tmp_path / "m")})

    assert spec.labeling.detector is not None
    assert detectors_of(spec.labeling.detector) == side_models_of(spec)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DIFFUGEN_MODEL_CACHE", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with a_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def test_a_plan_fetches_configurations_of_a_hub_and_a_worker_fetches_the_weights(hub: Hub, tmp_path: Path) -> None:
    a_folder(tmp_path / "there")
    (tmp_path / "there" / "pytorch_model.bin").write_text("pickle")
    (tmp_path / "there" / "model.fp16.safetensors").write_text("a second copy")
    (tmp_path / "there" / "onnx").mkdir()
    (tmp_path / "there" / "onnx" / "model.safetensors").write_text("another")
    hub.publish("org/name", tmp_path / "there")
    spec = spec_of({"type": "transformers", "model": "hf://org/name@main"})
    assert spec.labeling.detector is not None

    planned = side_models_of(spec)["detector"]
    assert hub.fetched() == ["config.json"]
    again = side_models_of(spec)["detector"]
    assert hub.fetched() == ["config.json"]
    found = detectors_of(spec.labeling.detector)["detector"]

    assert planned == again
    assert sorted({*hub.fetched()}) == ["config.json", "model.safetensors"]
    assert (found.path / "model.safetensors").read_bytes() == weights_of("weights")
    here = side_models_of(spec_of({"type": "transformers", "model": str(tmp_path / "there")}))["detector"]
    assert {planned.digest, found.digest} == {here.digest}
    assert side_models_of(spec)["detector"].path == found.path


def a_checker(folder: Path, processor: Path | None = None, weights: str = "model.safetensors") -> Path:
    """Write a folder that is accepted as a safety checker until it is loaded."""
    a_folder(folder, "clip", weights, architectures=["StableDiffusionSafetyChecker"])
    (processor or folder).mkdir(exist_ok=True)
    ((processor or folder) / "preprocessor_config.json").write_text("{}")
    return folder


def safety(model: str | Path) -> LabeledDatasetSpec:
    quality = {"safety": {"model": str(model)}}
    return LabeledDatasetSpec.model_validate(spec_data("builtin://shapes", quality=quality))


def test_a_safety_checker_is_the_same_in_its_own_folder_in_a_pipeline_and_on_a_hub(hub: Hub, tmp_path: Path) -> None:
    alone = a_checker(tmp_path / "alone")
    (alone / "README.md").write_text("words")
    within = a_checker(tmp_path / "pipeline" / "safety_checker", tmp_path / "pipeline" / "feature_extractor")
    (tmp_path / "pipeline" / "model_index.json").write_text("{}")
    hub.publish("org/pipeline", tmp_path / "pipeline")

    one, other, remote = (
        side_models_of(safety(m))["safety"] for m in (alone, tmp_path / "pipeline", "hf://org/pipeline")
    )

    assert one.family == "stable-diffusion-safety-checker"
    assert one.digest == other.digest == remote.digest
    assert (one.path, one.processor) == (alone, alone)
    assert (other.path, other.processor) == (within, tmp_path / "pipeline" / "feature_extractor")
    assert sorted(hub.fetched()) == ["feature_extractor/preprocessor_config.json", "safety_checker/config.json"]


def test_the_planned_commit_is_used_even_if_the_branch_has_moved(hub: Hub, tmp_path: Path) -> None:
    commit = hub.publish("org/name", Path(a_folder(tmp_path / "there")))
    detector = {"type": "transformers", "model": "hf://org/name"}
    order = an_order(a_model(tmp_path / "model"), labeling={"detector": detector})
    store = FolderStore(tmp_path / "store")
    plan(order, store)
    hub.publish("org/name", Path(a_folder(tmp_path / "later", weights="other.safetensors")))

    [(header, _)] = planned_shards(order, store)

    assert header.detector is not None
    assert header.detector.model == f"hf://org/name@{commit}"
    assert detectors_of(header.detector)["detector"].digest == header.side_models["detector"]


def lacking(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (a_checker(folder) / name).unlink()
        return folder

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: f / "none", "there is no folder "),
        (lacking("config.json"), "has no config.json."),
        (lacking("model.safetensors"), "has no weights; save them as safetensors."),
        (lacking("preprocessor_config.json"), "has no preprocessor_config.json; put the one that came with the check"),
        (lambda f: a_folder(f, "clip"), "is a clip; what can be used here is: stable-diffusion-safety-checker."),
        (lambda f: a_checker(f, weights="pytorch_model.bin"), "has only pickled weights, which may run code"),
    ],
)
def test_a_model_that_is_not_a_safety_checker_is_refused(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    error = refusal(safety(str(make(tmp_path / "m"))))

    assert str(error).startswith("spec.quality.safety.model: ")
    assert message in str(error)


def test_a_safety_checker_is_refused_as_a_clip_model(tmp_path: Path) -> None:
    quality = {"clipScore": {"model": str(a_checker(tmp_path / "m"))}}

    error = refusal(LabeledDatasetSpec.model_validate(spec_data("builtin://shapes", quality=quality)))

    assert "is a stable-diffusion-safety-checker; what can be used here is: clip." in str(error)


def test_a_yolo_file_of_a_hub_is_fetched_and_compared_with_its_pin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "m.pt"
    digest = a_pickle(file, {"model": SegmentationModel()})
    asked: list[str] = []
    monkeypatch.setattr(side_models, "open_file", lambda uri, **_: (asked.append(uri), file, digest))
    spec = yolo(file, digest).model_dump(by_alias=True, mode="json")
    spec["labeling"]["detector"]["model"] = "hf://org/name@main/m.pt"

    side_model = side_models_of(LabeledDatasetSpec.model_validate(spec))["detector"]

    assert asked == ["hf://org/name@main/m.pt"]
    assert (side_model.path, side_model.digest) == (file, digest)
