"""Each of DiffuGen's keys becomes a value of the manifest, or a comment with the reason why not."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.generator.importers.configs import (
    SUPERVISED,
    TAUGHT,
    UNSUPERVISED,
    changed,
    comments_of,
    imported,
    spec_of,
)

Spec = dict[str, Any]


def at(*path: str | int) -> Callable[[Spec], Any]:
    """Return the value at a path of a spec."""

    def value(spec: Any) -> Any:
        for part in path:
            spec = spec[part]
        return spec

    return value


TAKEN: list[tuple[str, Any, Callable[[Spec], Any], Any]] = [
    ("image_size.width", 320, at("image", "width"), 320),
    ("image_size.height", 192, at("image", "height"), 192),
    ("image_format", "jpg", at("image", "format"), "jpeg"),
    ("image_format", "webp", at("image", "format"), "webp"),
    ("steps", 41, at("stages", 0, "txt2img", "steps"), 41),
    ("steps", 41, at("stages", 1, "img2img", "steps"), 41),
    ("steps", 41, at("stages", 2, "inpaint", "steps"), 41),
    ("images_per_shard", 64, at("run", "samplesPerShard"), 64),
    ("images_per_shard", 20_000, at("run", "samplesPerShard"), 10_000),
    ("txt2img.stable_diffusion_model", "a/b", at("stages", 0, "txt2img", "model"), "hf://a/b"),
    ("txt2img.seed_range.min", 77, at("seed"), 77),
    ("txt2img.seed_count_per_prompt", 3, at("prompts", "samplesPerPrompt"), 3),
    ("txt2img.negative_prompt", "rain", at("prompts", "negative"), "rain"),
    ("txt2img.view_points", ["low"], at("prompts", "variables", "view_point"), ["low"]),
    ("txt2img.times_of_day", ["3 am"], at("prompts", "variables", "time_of_day"), ["3 am"]),
    ("txt2img.sky_conditions", ["red"], at("prompts", "variables", "sky_condition"), ["red"]),
    ("txt2img.weather_conditions", ["mild"], at("prompts", "variables", "weather_condition"), ["mild"]),
    ("txt2img.object_names", ["ship", "boat"], at("prompts", "variables", "object"), ["ship", "boat"]),
    ("img2img.times_of_day", ["late"], at("stages", 1, "img2img", "variables", "time_of_day"), ["late"]),
    ("img2img.sky_conditions", ["red"], at("stages", 1, "img2img", "variables", "sky_condition"), ["red"]),
    ("img2img.weather_conditions", ["dry"], at("stages", 1, "img2img", "variables", "weather_condition"), ["dry"]),
    ("img2img.stable_diffusion_model", "a/b", at("stages", 1, "img2img", "model"), "hf://a/b"),
    ("inpaint.stable_diffusion_model", "a/b", at("stages", 2, "inpaint", "model"), "hf://a/b"),
    ("inpaint.boat", ["raft"], at("stages", 2, "inpaint", "replacements", "boat"), ["raft"]),
    ("img2img.source_dataset", "drawn/boats/inpaint", at("stages", 1, "img2img", "from"), "inpaint"),
    ("inpaint.source_dataset", "drawn/boats/img2img", at("stages", 2, "inpaint", "from"), "img2img"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "where", "expected"), TAKEN, ids=[f"{k}={v}" for k, v, *_ in TAKEN])
def test_a_key_becomes_a_value(
    tmp_path: Path, key: str, value: Any, where: Callable[[Spec], Any], expected: Any
) -> None:
    assert where(spec_of(imported(tmp_path, changed(SUPERVISED, {key: value})))) == expected


SAID: list[tuple[str, Any, str]] = [
    ("image_format", "bmp", "image_format: 'bmp'. DiffuGen's txt2img writes png all the same"),
    ("image_size.width", 512, "DiffuGen exchanges width and height of the masks"),
    ("images_per_shard", 20_000, "It was 20,000; 10,000 is the most."),
    ("dataset_root", "elsewhere", "dataset_root: 'elsewhere': `diffugen run FILE --store elsewhere` writes there"),
    ("deterministic", False, "deterministic: false: no program of DiffuGen reads it."),
    ("label_model.classes", "seg/names.txt", "label_model.classes: 'seg/names.txt': the model's file has the names"),
    ("txt2img.image_count", 99, "txt2img.image_count: 99: no program of DiffuGen reads it"),
    ("txt2img.seed_range.max", 12345, "txt2img.seed_range: 11 to 12345. DiffuGen draws seeds from it again"),
    ("txt2img.seed_count_per_prompt", 1000, "txt2img.seed_range has room for 989 seeds, so DiffuGen fails on 1000"),
    ("txt2img.negative_prompt", "fog, " * 40, "DiffuGen lets CLIP cut the negative prompt after 75 tokens"),
    ("txt2img.sky_conditions", ["red", "red"], "txt2img.sky_conditions has 'red' more than once; here once."),
    ("txt2img.sky_conditions", ["red", ""], "An empty value is written as a blank"),
    ("txt2img.object_names", ["boat", "Boat"], "the class 'Boat': it differs from 'boat' by upper and lower case"),
    ("dataset_classes", ["boat", "raft"], "dataset_classes: 'raft': dataset_to_model_class_map has no entry for it"),
    ("inpaint.raft", ["old raft"], "inpaint.raft: ['old raft']: it is none of txt2img.object_names."),
    ("guidance", 9.5, "guidance: 9.5: DiffuGen has no such key."),
    ("txt2img.cfg", {"a": 1}, "txt2img.cfg: {'a': 1}: DiffuGen has no such key."),
    ("image_size.depth", 3, "image_size.depth: 3: DiffuGen has no such key."),
]


@pytest.mark.parametrize(("key", "value", "expected"), SAID, ids=[f"{k}={v}"[:50] for k, v, _ in SAID])
def test_an_unused_broken_or_ambiguous_value_has_a_comment(tmp_path: Path, key: str, value: Any, expected: str) -> None:
    changes = {key: value, **({"dataset_to_model_class_map.Boat": "boat"} if "Boat" in str(value) else {})}
    if key == "txt2img.object_names":
        changes["inpaint"] = ...
    if key == "dataset_root":
        changes |= {"img2img": ..., "inpaint": ...}
    if key == "image_format":
        changes["image_size.width"] = 256

    assert expected in comments_of(imported(tmp_path, changed(SUPERVISED, changes)))


def test_every_key_of_the_samples_has_a_test_here() -> None:
    named = {key for key, *_ in (*TAKEN, *SAID)} | {
        # each of these has its own test below
        "dataset_name", "dataset_to_model_class_map", "label_model.type", "label_model.weights", "unsupervised",
        "txt2img.prompts", "txt2img.textual_inversion.weights", "txt2img.textual_inversion.keyword",
        "inpaint.ferry", "inpaint.canoe", "inpaint.kayak",  # like inpaint.boat
    }  # fmt: skip

    def keys(config: dict[str, Any], path: str = "") -> set[str]:
        found = set()
        for name, value in config.items():
            whole = f"{path}{name}"
            is_map = isinstance(value, dict) and name != "dataset_to_model_class_map"
            found |= keys(value, f"{whole}.") if is_map else {whole}
        return found

    assert keys(SUPERVISED) | keys(TAUGHT) | keys(UNSUPERVISED) <= named


def test_dataset_name_becomes_a_valid_kubernetes_name(tmp_path: Path) -> None:
    manifest = imported(tmp_path, changed(UNSUPERVISED, {"dataset_name": "My Lamps_2"}))

    assert yaml.safe_load(manifest)["metadata"] == {"name": "my-lamps-2"}
    assert "dataset_name: 'My Lamps_2'" in comments_of(manifest)


def test_the_class_map_gives_each_class_its_detector_class(tmp_path: Path) -> None:
    assert spec_of(imported(tmp_path, SUPERVISED))["classes"] == [
        {"name": "boat"},
        {"name": "ferry", "detectorClass": "boat"},
        {"name": "canoe"},
        {"name": "kayak", "detectorClass": "canoe"},
        {"name": "ship"},
    ]


def test_a_name_of_any_script_is_a_class(tmp_path: Path) -> None:
    names = {"txt2img.object_names": ["bouée", "boat"], "inpaint": ..., "dataset_to_model_class_map.bouée": "boat"}
    spec = spec_of(imported(tmp_path, changed(SUPERVISED, names)))

    assert {"name": "bouée", "detectorClass": "boat"} in spec["classes"]


def test_without_supervision_attention_labels_and_each_object_is_a_class(tmp_path: Path) -> None:
    manifest = imported(tmp_path, UNSUPERVISED)

    assert spec_of(manifest)["labeling"] == {"attention": {"capture": "posthoc"}}
    assert spec_of(manifest)["classes"] == [{"name": "lamp"}]
    said = comments_of(manifest)
    assert "DiffuGen loads it and does not ask it where unsupervised is true" in said
    assert "dataset_classes: ['boat', 'ferry', 'canoe', 'kayak', 'ship']: DiffuGen never reads it" in said
    assert "dataset_to_model_class_map: {'boat': 'boat'" in said


def test_without_supervision_classes_that_the_prompts_name_keep_their_order(tmp_path: Path) -> None:
    config = changed(UNSUPERVISED, {"dataset_classes": ["ship", "lamp"], "txt2img.object_names": ["lamp", "buoy"]})

    assert [each["name"] for each in spec_of(imported(tmp_path, config))["classes"]] == ["ship", "lamp", "buoy"]


def test_the_label_model_is_pinned_to_its_digest(tmp_path: Path) -> None:
    assert spec_of(imported(tmp_path, SUPERVISED))["labeling"] == {
        "detector": {
            "type": "yolo",
            "model": str(tmp_path / "seg/boats-seg.pt"),
            "sha256": hashlib.sha256(b"weights").hexdigest(),
        }
    }


def test_models_can_be_replaced(tmp_path: Path) -> None:
    options = {"model": "builtin://shapes", "detector": "builtin://shapes-segmenter"}
    natives = {"boat": "ball", "ferry": "square", "canoe": "ball", "kayak": "star", "ship": "triangle"}
    config = changed(SUPERVISED, {"dataset_to_model_class_map": natives, "label_model.classes": ""})
    manifest = imported(tmp_path, config, **options)

    assert [each.get("model") for stage in spec_of(manifest)["stages"] for each in (list(stage.values())[1],)] == [
        "builtin://shapes",
        None,
        None,
    ]
    assert spec_of(manifest)["labeling"]["detector"]["model"] == "builtin://shapes-segmenter"
    assert "txt2img.stable_diffusion_model: 'harbor/photo-model'" in comments_of(manifest)


def test_a_model_in_a_folder_keeps_its_path(tmp_path: Path) -> None:
    (tmp_path / "harbor/photo-model").mkdir(parents=True)

    assert spec_of(imported(tmp_path, SUPERVISED))["stages"][0]["txt2img"]["model"] == str(
        tmp_path / "harbor/photo-model"
    )


def test_prompts_keep_their_braces_and_use_the_object_as_the_class(tmp_path: Path) -> None:
    config = changed(UNSUPERVISED, {"txt2img.prompts": ["a {{set}} of one {object_name} in the {time_of_day}"]})

    assert spec_of(imported(tmp_path, config))["prompts"]["templates"] == [
        "a {{set}} of one {object} in the {time_of_day}"
    ]


@pytest.mark.parametrize("syntax", ["auto", "none"])
def test_the_chosen_syntax_is_set_and_a_comment_describes_the_other(tmp_path: Path, syntax: str) -> None:
    manifest = imported(tmp_path, SUPERVISED, syntax=syntax)

    assert spec_of(manifest)["prompts"]["syntax"] == syntax
    assert "gives" in comments_of(manifest)
    assert ("--syntax none" if syntax == "auto" else "auto applies them") in comments_of(manifest)


def test_a_comment_names_a_weight_after_a_value_of_two_words(tmp_path: Path) -> None:
    config = changed(UNSUPERVISED, {"txt2img.prompts": ["a {object_name}++"], "txt2img.object_names": ["floor lamp"]})

    assert "of 'floor lamp' they weight the last word alone" in comments_of(imported(tmp_path, config))
    assert "the last word alone" not in comments_of(imported(tmp_path, config, syntax="none"))


def test_textual_inversion_becomes_an_embedding(tmp_path: Path) -> None:
    manifest = imported(tmp_path, TAUGHT)

    assert spec_of(manifest)["stages"][0]["txt2img"]["embeddings"] == [
        {"uri": str(tmp_path / "words/regatta.pt"), "token": "<regatta>"}
    ]
    assert "keyword, which DiffuGen never reads" in comments_of(manifest)


def test_a_missing_keyword_is_the_only_word_in_angle_brackets_of_the_prompt(tmp_path: Path) -> None:
    config = changed(TAUGHT, {"txt2img.textual_inversion.keyword": ..., "txt2img.textual_inversion.weights": "gone.pt"})
    manifest = imported(tmp_path, config)

    assert spec_of(manifest)["stages"][0]["txt2img"]["embeddings"] == [{"uri": "gone.pt", "token": "<regatta>"}]
    assert "'gone.pt' is not below" in comments_of(manifest)


def test_a_stage_with_its_own_model_also_has_the_embedding(tmp_path: Path) -> None:
    inpaint = {
        "stable_diffusion_model": "harbor/fill-model",
        "source_dataset": "drawn/collisions/txt2img",
        "boat": ["raft"],
    }
    manifest = imported(tmp_path, changed(TAUGHT, {"inpaint": inpaint}))

    assert spec_of(manifest)["stages"][1]["inpaint"]["embeddings"][0]["token"] == "<regatta>"
    assert "DiffuGen loads none for inpaint" in comments_of(manifest)


def test_inpaint_keeps_diffugens_prompt_if_the_sources_have_its_variable(tmp_path: Path) -> None:
    task = spec_of(imported(tmp_path, SUPERVISED))["stages"][2]["inpaint"]
    assert (task["template"], task["instances"]) == ("a {view_point} view of {object}", "largest")

    without = {"txt2img.prompts": ["a {object_name} by {time_of_day}"], "img2img": ...}
    manifest = imported(tmp_path, changed(SUPERVISED, without))
    assert "template" not in spec_of(manifest)["stages"][1]["inpaint"]
    assert "not every prompt names {view_point}" in comments_of(manifest)

    one = changed(SUPERVISED, {**without, "txt2img.view_points": ["side"]})
    assert spec_of(imported(tmp_path, one))["stages"][1]["inpaint"]["template"] == "a side view of {object}"


def test_inpaint_does_not_leave_out_another_class_that_the_prompt_names(tmp_path: Path) -> None:
    prompts = {"txt2img.prompts": ["a {view_point} view of a {object_name} beside a ship"], "img2img": ...}
    manifest = imported(tmp_path, changed(SUPERVISED, prompts))

    assert "template" not in spec_of(manifest)["stages"][1]["inpaint"]
    assert "leaves out other classes of the source's prompt" in comments_of(manifest)


def test_a_stage_that_would_draw_nothing_is_left_out_and_named(tmp_path: Path) -> None:
    prompts = {"txt2img.prompts": ["a {view_point} view of a {object_name}"]}
    only_unknown = {**SUPERVISED["inpaint"]}
    for name in ("boat", "ferry", "canoe", "kayak"):
        only_unknown.pop(name)
    config = changed(SUPERVISED, {**prompts, "inpaint": {**only_unknown, "raft": ["old raft"]}})
    manifest = imported(tmp_path, config)

    assert [stage["name"] for stage in spec_of(manifest)["stages"]] == ["base"]
    assert "img2img: no prompt names any of what it changes" in comments_of(manifest)
    assert "inpaint: it replaces none of txt2img.object_names" in comments_of(manifest)
