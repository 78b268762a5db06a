"""A broken configuration file: errors name the key and the fix; all faults are reported at once."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from diffugen_generator.commands.import_config import import_config
from diffugen_generator.commands.manifests import InvalidManifest
from diffugen_generator.importers.manifest_draft import Options
from tests.generator.importers.configs import SUPERVISED, TAUGHT, UNSUPERVISED, changed, imported

FAULTS: list[tuple[dict[str, Any], str, Any, str]] = [
    (SUPERVISED, "dataset_name", ..., "dataset_name: it is missing; give the dataset a name"),
    (SUPERVISED, "dataset_name", 7, "dataset_name: 7 is not a string; write a string"),
    (SUPERVISED, "steps", ..., "steps: it is missing; write the number of sampling steps"),
    (SUPERVISED, "steps", 0, "steps: 0 is not between 1 and 1,000; write a number in that range"),
    (SUPERVISED, "steps", True, "steps: True is not a whole number"),
    (SUPERVISED, "image_size", ..., "image_size: it is missing; write {"),
    (SUPERVISED, "image_size.width", ..., "image_size.width: it is missing; write the size in pixels"),
    (SUPERVISED, "image_size.height", 300, "image_size.height: 300 is not a multiple of 8, .*; write 296"),
    (SUPERVISED, "images_per_shard", 0, "images_per_shard: 0 is not between 1 and"),
    (SUPERVISED, "unsupervised", ..., "unsupervised: it is missing; write true for"),
    (SUPERVISED, "unsupervised", "yes", "unsupervised: 'yes' is not true or false"),
    (SUPERVISED, "dataset_classes", "boat", "dataset_classes: 'boat' is not a list of strings"),
    (SUPERVISED, "dataset_to_model_class_map.boat", ..., "dataset_to_model_class_map.boat: it is missing, and"),
    (SUPERVISED, "dataset_to_model_class_map.boat", 8, "dataset_to_model_class_map.boat: 8 is not a string; quote it"),
    (SUPERVISED, "dataset_to_model_class_map.boat", "barge", "dataset_to_model_class_map.boat: 'barge' is no class"),
    (SUPERVISED, "label_model", ..., "label_model: it is missing and unsupervised is false; .*--detector"),
    (SUPERVISED, "label_model.type", "Mask", "label_model.type: 'Mask' is not supported.*; write 'YOLOSeg'"),
    (SUPERVISED, "label_model.weights", "gone.pt", "label_model.weights: there is no file 'gone.pt' .*--root.*--det"),
    (SUPERVISED, "label_model.weights", "w" * 300, "label_model.weights: there is no file 'www"),
    (SUPERVISED, "label_model.weights", ".", "label_model.weights: there is no file '.'"),
    (SUPERVISED, "txt2img", ..., "txt2img: it is missing"),
    (SUPERVISED, "txt2img.stable_diffusion_model", ..., "txt2img.stable_diffusion_model: it is missing; .*--model"),
    (SUPERVISED, "txt2img.stable_diffusion_model", "a/b/c", "txt2img.stable_diffusion_model: 'a/b/c' is neither"),
    (SUPERVISED, "txt2img.prompts", ..., "txt2img.prompts: it is missing; give it one prompt or more"),
    (SUPERVISED, "txt2img.prompts", [], "txt2img.prompts: the list is empty"),
    (SUPERVISED, "txt2img.prompts", ["a {color} boat"], r"txt2img.prompts\[0\]: {color} is none of DiffuGen's fields"),
    (SUPERVISED, "txt2img.prompts", ["a {object_name"], r"txt2img.prompts\[0\]: .*; write {{ or }}"),
    (SUPERVISED, "txt2img.prompts", ["a {object_name:>9}"], r"txt2img.prompts\[0\]: {object_name} has a format"),
    (SUPERVISED, "txt2img.prompts", ["a (boat:9.5)"], r"txt2img.prompts\[0\]: .*the weight 9.5 .* is not between"),
    (SUPERVISED, "txt2img.times_of_day", ..., "txt2img.times_of_day: it is missing, and a prompt names {time_of_day}"),
    (SUPERVISED, "txt2img.times_of_day", "day", "txt2img.times_of_day: 'day' is not a list of strings"),
    (SUPERVISED, "txt2img.times_of_day", ["day", 4], r"txt2img.times_of_day\[1\]: 4 is not a string; quote it"),
    (SUPERVISED, "txt2img.times_of_day", ["x" * 501], r"txt2img.times_of_day\[0\]: "),
    (SUPERVISED, "txt2img.object_names", ["", "boat"], "txt2img.object_names: a name is empty"),
    (SUPERVISED, "txt2img.seed_range.min", ..., "txt2img.seed_range.min: it is missing"),
    (SUPERVISED, "txt2img.seed_range.min", 5000, "txt2img.seed_range: min 5000 is greater than max 999"),
    (SUPERVISED, "txt2img.seed_count_per_prompt", 0, "txt2img.seed_count_per_prompt: 0 is not between"),
    (SUPERVISED, "txt2img.negative_prompt", "x" * 4001, "txt2img.negative_prompt: "),
    (TAUGHT, "txt2img.textual_inversion.weights", ..., "txt2img.textual_inversion.weights: it is missing"),
    (TAUGHT, "txt2img.textual_inversion.keyword", "two words", "txt2img.textual_inversion.keyword: "),
    (UNSUPERVISED, "txt2img.textual_inversion", {"weights": "a.pt"}, "txt2img.textual_inversion.keyword: it is missin"),
    (SUPERVISED, "img2img.source_dataset", "x/y", "img2img.source_dataset: 'x/y' is no set of this file; write 'dr"),
    (SUPERVISED, "img2img.times_of_day", ..., "img2img.times_of_day: it is missing"),
    (SUPERVISED, "inpaint.source_dataset", ..., "inpaint.source_dataset: it is missing"),
    (SUPERVISED, "inpaint.boat", "raft", "inpaint.boat: 'raft' is not a list of strings"),
    (SUPERVISED, "inpaint.boat", [" raft"], r"inpaint.boat\[0\]: "),
]  # fmt: skip


@pytest.mark.parametrize(("config", "key", "value", "expected"), FAULTS, ids=[f"{k}={v}"[:45] for _, k, v, _ in FAULTS])
def test_a_fault_names_the_key_and_how_to_fix_it(
    tmp_path: Path, config: dict[str, Any], key: str, value: Any, expected: str
) -> None:
    with pytest.raises(InvalidManifest) as raised:
        imported(tmp_path, changed(config, {key: value}))

    assert [str(fault) for fault in raised.value.faults if re.match(expected, str(fault))], str(raised.value)


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidManifest) as raised:
        imported(tmp_path, changed(SUPERVISED, {"steps": ..., "txt2img.prompts": [], "inpaint.boat": 3}))

    assert [fault.path for fault in raised.value.faults] == ["steps", "txt2img.prompts", "inpaint.boat"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"steps": 50,}', "it is not JSON: line 1, column 1"),
        (b"[]", "it is not a JSON object"),
        (b"\xff", "it is not text in UTF-8"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b'{"steps": ' + b"9" * 5000 + b"}", "it has a number of too many digits"),
    ],
)
def test_a_file_that_is_not_a_configuration_is_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(content)

    with pytest.raises(InvalidManifest, match=expected):
        import_config(file, Options())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidManifest, match="it cannot be read: No such file"):
        import_config(tmp_path / "gone.json", Options())


def test_a_second_inpaint_without_replacements_is_a_fault(tmp_path: Path) -> None:
    empty = {key: SUPERVISED["inpaint"][key] for key in ("stable_diffusion_model", "source_dataset")}

    with pytest.raises(InvalidManifest, match="no object has replacements; add a key such as"):
        imported(tmp_path, changed(SUPERVISED, {"inpaint": empty}))


def test_paths_are_searched_in_the_files_folder_and_its_parents(tmp_path: Path) -> None:
    imported(tmp_path, SUPERVISED)
    (tmp_path / "datasets").mkdir()
    file = tmp_path / "datasets/boats.json"
    file.write_text(json.dumps(SUPERVISED))

    assert str(tmp_path / "seg/boats-seg.pt") in import_config(file, Options())
