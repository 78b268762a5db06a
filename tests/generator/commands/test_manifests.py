"""Manifests: all faults are reported at once, each with the field's path in the manifest and the fix."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from diffugen_api.plan import Expansion
from diffugen_generator.commands.manifests import InvalidManifest, order_of, read_datasets
from diffugen_generator.planning.warnings import warnings_of

ROOT = Path(__file__).parents[3]
BASE: dict[str, Any] = {"name": "base", "txt2img": {"model": "builtin://shapes"}}


def manifest(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "diffugen.dev/v1alpha1",
        "kind": "LabeledDataset",
        "metadata": {"name": "shapes"},
        "spec": {
            "classes": [{"name": "ball"}],
            "prompts": {"templates": ["a {object}"], "variables": {"object": ["ball"]}},
            "stages": [{"name": "base", "txt2img": {"model": "builtin://shapes"}}],
            **spec,
        },
    }


def written(folder: Path, *documents: Any) -> Path:
    file = folder / "manifest.yaml"
    file.write_text(yaml.safe_dump_all(documents))
    return file


def faults_of(folder: Path, *documents: Any) -> list[str]:
    with pytest.raises(InvalidManifest) as failure:
        read_datasets(written(folder, *documents))
    return [str(fault) for fault in failure.value.faults]


def test_a_valid_manifest_gives_a_dataset(tmp_path: Path) -> None:
    [dataset] = read_datasets(written(tmp_path, manifest()))

    order = order_of(dataset)
    assert (order.namespace, order.name) == ("default", "shapes")
    assert len(order.revision) == 10


EXAMPLES = {
    "cars": 480 + 1920 + 1344,
    "instruments": 256,
    "kueue": 96,
    "minimal": 8,
    "shapes": 96,
    "shapes-both": 48,
    "shapes-graph": 60,
    "trial": 24,
}
"""The number of samples of each example."""


def test_every_example_is_known() -> None:
    assert {file.stem for file in (ROOT / "examples").glob("*.yaml")} == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_valid_without_warnings(name: str) -> None:
    [dataset] = read_datasets(ROOT / "examples" / f"{name}.yaml")
    expansion = Expansion(dataset.spec)

    assert expansion.count_distinct_samples() == EXAMPLES[name]
    assert list(warnings_of(expansion)) == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        pytest.param(
            {"image": {"width": 100}},
            "spec.image.width: 100 is not a whole number from 64 to 2048 that is a multiple of 8: write 96 or 104",
            id="not a multiple",
        ),
        pytest.param(
            {"image": {"width": 8}},
            "spec.image.width: 8 is not a whole number from 64 to 2048 that is a multiple of 8: write 64 or more",
            id="too small",
        ),
        pytest.param(
            {"image": {"format": "gif"}},
            "spec.image.format: 'gif' is not png, jpeg or webp: write one of them",
            id="not one of",
        ),
        pytest.param(
            {"image": {"heigth": 64}},
            "spec.image.heigth: there is no such field: did you mean 'height'?",
            id="a slip of the pen",
        ),
        pytest.param(
            {"stages": [{"name": "base", "txt2img": {"model": "builtin://shapes", "guidance": 3}}]},
            "spec.stages[0].txt2img.guidance: there is no such field: did you mean 'guidanceScale'?",
            id="a slip in a list",
        ),
        pytest.param(
            {"output": {"s3": {"endpoint": "http://minio:9000", "bucket": "data", "secret": {}}}},
            "spec.output.s3.secret: there is no such field: did you mean 'secretRef'?",
            id="a slip in an optional part",
        ),
        pytest.param(
            {"run": {"xyz": 1}},
            "spec.run.xyz: there is no such field: remove it, or write one of samplesPerShard, "
            "samplesPerPublishShard, parallelism, queueName, cpuQueueName, minParallelism, workloadPriorityClass, "
            "resources, image, podTemplate, ",
            id="nothing like it",
        ),
        pytest.param(
            {"output": {"s3": {"endpoint": "minio:9000", "bucket": "data"}}},
            "spec.output.s3.endpoint: 'minio:9000' is not http:// or https://, a host and a port, such as ",
            id="a pattern",
        ),
        pytest.param(
            {"stages": []},
            "spec.stages: it has 0 entries and needs 1 or more: add one",
            id="no stage",
        ),
        pytest.param(
            {"stages": [{"name": "base", "txt2img": {}}]}, "spec.stages[0].txt2img.model: it is missing", id="missing"
        ),
        pytest.param(
            {"stages": [BASE, {"name": "new", "img2img": {"from": "bse", "variables": {"place": ["mud"]}}}]},
            "spec.stages[1].img2img.from: there is no stage 'bse' to draw from: name another stage (there are: base)",
            id="from no stage",
        ),
        pytest.param(
            {"stages": [BASE, {"name": "new", "inpaint": {"from": "base", "replacements": {"car": ["red car"]}}}]},
            "spec.stages[1].inpaint.replacements: 'car' is not a class: use one of ball, or add it to spec.classes",
            id="a replacement of no class",
        ),
        pytest.param(
            {"output": {"splits": {"train": 0.5}}},
            "spec.output.splits: splits must add up to 1: for example train 0.8, val 0.1, test 0.1",
            id="a rule over fields",
        ),
        pytest.param(
            {"classes": [{"name": "ball"}, {"name": "ball"}]},
            "spec: class names must be unique: rename or remove the duplicates of ball",
            id="duplicates",
        ),
        pytest.param(
            {"classes": [{"name": "ball"}, {"name": "Ball"}]},
            "spec.classes[1].name: 'Ball' already names class 'ball' (case does not matter), so 'Ball' in a "
            "prompt would never mean 'Ball': rename or remove one",
            id="two classes of one word",
        ),
        pytest.param(
            {"classes": [{"name": "ball"}, {"name": "toy", "synonyms": ["cube", "BALL"]}]},
            "spec.classes[1].synonyms[1]: 'BALL' already names class 'ball'",
            id="a synonym that is another class",
        ),
        pytest.param(
            {"classes": [{"name": "ball", "synonyms": [" "]}]},
            "spec.classes[0].synonyms[0]: ' ' is not text without white space at its ends: change it",
            id="a blank synonym",
        ),
        pytest.param(
            {"quality": {"minAreaFraction": 0.5, "maxAreaFraction": 0.4}},
            "spec.quality: minAreaFraction must not be above maxAreaFraction, or no object is kept: lower",
            id="no room between the areas",
        ),
        pytest.param(
            {"prompts": {"templates": ["a {colour}"]}},
            "spec.prompts.templates[0]: no variable is named 'colour'; add it to spec.prompts.variables",
            id="an unknown variable",
        ),
        pytest.param(
            {"prompts": {"templates": ["a {object}"], "variables": {"object": ["ball", "car"]}}},
            "spec.prompts.variables.object[1]: 'car' is not a class; add it to spec.classes",
            id="an unknown class",
        ),
        pytest.param(
            {"stages": [{"name": "base", "txt2img": {"model": "builtin://cars"}}]},
            "spec.stages[0].txt2img.model: no model is built in as 'cars'; builtin are: shapes",
            id="an unknown model",
        ),
        pytest.param(
            {"stages": [BASE, {"name": "more", "txt2img": BASE["txt2img"] | {"scheduler": "lcm", "steps": 60}}]},
            "spec.stages[1].txt2img.steps: 60 is not what LCMScheduler can draw in with 'builtin://shapes', which is "
            "at most 50; give it as many, or name another in spec.stages[1].txt2img.scheduler",
            id="more steps than the scheduler can",
        ),
        pytest.param(
            {"prompts": {"templates": ["a (ball:1,3)"]}},
            "spec.prompts.templates[0]: 'a (ball:1,3)': '1,3' is not a weight; write a number such as 1.3",
            id="a weight that is no number",
        ),
    ],
)
def test_a_fault_names_the_field_and_the_fix(tmp_path: Path, changes: dict[str, Any], fault: str) -> None:
    [found] = faults_of(tmp_path, manifest(**changes))

    assert found.startswith(fault)


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    document = manifest(image={"width": 8, "format": "gif"}, seeed=1)
    del document["metadata"]["name"]

    paths = [fault.split(":")[0] for fault in faults_of(tmp_path, document)]

    assert paths == ["metadata.name", "spec.image.width", "spec.image.format", "spec.seeed"]


def test_a_models_folder_in_a_pod_need_not_exist_here(tmp_path: Path) -> None:
    stages = [{"name": "base", "txt2img": {"model": "/models/sd15"}}]

    assert read_datasets(written(tmp_path, manifest(stages=stages)))


def test_folders_of_side_models_in_a_pod_need_not_exist_here(tmp_path: Path) -> None:
    labeling = {"detector": {"type": "transformers", "model": "builtin://shapes-segmenter"}}
    there = {"clipScore": {"model": "/models/clip"}, "safety": {"model": "/models/checker"}}

    assert read_datasets(written(tmp_path, manifest(labeling=labeling, quality=there)))
    [fault] = faults_of(tmp_path, manifest(quality={"safety": {"model": "checker"}}))
    assert fault.startswith("spec.quality.safety.model: 'checker' is neither builtin://NAME")


@pytest.mark.parametrize("name", ["Shapes", "my dataset", "-a", 5])
def test_names_follow_the_rules_of_kubernetes(tmp_path: Path, name: object) -> None:
    document = manifest()
    document["metadata"]["name"] = name

    assert faults_of(tmp_path, document)[0].startswith(f"metadata.name: {name!r} is not a valid name: use")


def test_other_documents_are_skipped(tmp_path: Path) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}}
    other = manifest()
    other["metadata"] = {"name": "more", "namespace": "vision"}

    found = read_datasets(written(tmp_path, secret, manifest(), None, other))

    assert [(d.namespace, d.name) for d in found] == [("default", "shapes"), ("vision", "more")]


def test_faults_of_several_datasets_name_their_dataset(tmp_path: Path) -> None:
    wrong = manifest(seed=-1)
    wrong["metadata"]["name"] = "wrong"

    assert faults_of(tmp_path, manifest(), wrong) == [
        "wrong: spec.seed: -1 is not a whole number from 0 to 9007199254740991: write 0 or more"
    ]


def test_a_file_without_a_dataset_is_an_error(tmp_path: Path) -> None:
    assert faults_of(tmp_path, {"kind": "Secret"}) == ["kind: the file has no LabeledDataset: it has the kind 'Secret'"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("spec: [", "it is not YAML: line 1, column 8"),
        ("", "the file has no LabeledDataset: it has nothing"),
        ("- a\n- b\n", "the file has no LabeledDataset: it has a document that is not a map"),
    ],
)
def test_a_file_that_is_not_a_manifest_is_an_error(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "manifest.yaml").write_text(text)

    with pytest.raises(InvalidManifest) as failure:
        read_datasets(tmp_path / "manifest.yaml")

    assert words in str(failure.value)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidManifest, match="it cannot be read: No such file or directory"):
        read_datasets(tmp_path / "nothing.yaml")
