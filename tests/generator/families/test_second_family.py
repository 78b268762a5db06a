"""A family that is not a UNet draws and labels through `diffugen run`; it needs only its folder and the registry."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from diffugen_generator.cli import app
from diffugen_generator.families import registry
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.store.folder import FolderStore
from tests.generator.families.joint.config import PIPELINE, JointConfig
from tests.generator.made import manifest_lines

WORDS = ("a", "ball", "star", "on", "snow", "sand", "and")


@pytest.fixture
def joint_model(tmp_path: Path) -> Path:
    from tests.generator.families.joint.model import write_weights

    folder = tmp_path / "joint"
    for component in ("transformer", "words"):
        (folder / component).mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": PIPELINE}))
    (folder / "transformer" / "config.json").write_text(json.dumps({"width": 16}))
    (folder / "words" / "words.json").write_text(json.dumps({word: i for i, word in enumerate(WORDS, start=2)}))
    write_weights(folder / "transformer", 16, len(WORDS))
    return folder


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "FAMILIES", [*registry.FAMILIES, JointConfig()])


def manifest_of(folder: Path, model: Path, **attention: Any) -> Path:
    settings = {"steps": 3, "guidanceScale": 2}
    from_base = {"from": "base", "strength": 0.5, "variables": {"place": ["sand"]}}
    spec = {
        "classes": [{"name": "ball"}, {"name": "star"}],
        "image": {"width": 64, "height": 96},
        "prompts": {
            "templates": ["a {object} on {place}"],
            "variables": {"object": ["ball", "star"], "place": ["snow"]},
            "samplesPerPrompt": 2,
        },
        "stages": [
            {"name": "base", "txt2img": {"model": str(model), **settings}},
            {
                "name": "sandy",
                "img2img": {**from_base, **settings},
            },
        ],
        "labeling": {"attention": attention},
        "quality": {"minInstances": 0, "minAreaFraction": 0},
    }
    document = {
        "apiVersion": "diffugen.dev/v1alpha1",
        "kind": "LabeledDataset",
        "metadata": {"name": "joint", "namespace": "vision"},
        "spec": spec,
    }
    (file := folder / "manifest.yaml").write_text(yaml.safe_dump(document))
    return file


@pytest.mark.parametrize("attention", [{"refine": True}, {"capture": "inline"}, {"minPresence": 0.01}], ids=str)
@pytest.mark.usefixtures("registered")
def test_a_second_family_draws_and_labels(tmp_path: Path, joint_model: Path, attention: dict[str, Any]) -> None:
    manifest = manifest_of(tmp_path, joint_model, **attention)

    ended = CliRunner().invoke(app, ["run", str(manifest), "--store", str(tmp_path / "out"), "--device", "cpu"])

    assert ended.exit_code == 0, ended.output
    store = FolderStore(tmp_path / "out" / "vision" / "joint")
    revision = json.loads(store.read("current.json"))["revision"]
    lines = manifest_lines(store, revision)
    assert [line["stage"] for line in lines].count("base") == [line["stage"] for line in lines].count("sandy") == 4
    images = {line["id"]: np.asarray(Image.open(store.root / line["image"])) for line in lines}
    assert {image.shape for image in images.values()} == {(96, 64, 3)}
    for line in lines:
        if line["stage"] == "sandy":
            before, after = images[line["source"]].astype(int), images[line["id"]].astype(int)
            assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.3, "half of the way is the source's"
            assert (before != after).any()
    evidence = [AttentionMaps.loads(file.read_bytes()) for file in store.root.glob("evidence/*/*/*/*.npz")]
    assert len(evidence) == 8
    for each in evidence:
        assert len(each.classes) == 1
        assert each.maps.shape == (1, 24, 16)
        assert (each.maps.min(), each.maps.max()) == (0, 255)
        assert len(each.presence) == ("minPresence" in attention)
    assert len(list(store.root.glob("labels/*/*/*/*.json"))) == 8


def test_the_error_names_an_unregistered_family_and_the_registered_ones(tmp_path: Path, joint_model: Path) -> None:
    manifest = manifest_of(tmp_path, joint_model)

    ended = CliRunner().invoke(app, ["run", str(manifest), "--store", str(tmp_path / "out"), "--device", "cpu"])

    assert ended.exit_code != 0
    assert f"is a {PIPELINE}; what can be drawn with is: StableDiffusionPipeline" in " ".join(ended.output.split())
