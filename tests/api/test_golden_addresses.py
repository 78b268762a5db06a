"""Content addresses never change: those of the examples and of 200 generated specs equal the stored ones.

The files of a store are found by these addresses. To change an address on purpose, change its version constant too and
run `python -m tests.api.test_golden_addresses` to write the file again.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from diffugen_api.plan import Expansion, revision_of, stage_recipe, store_of
from diffugen_api.recipes import StageRecipe
from diffugen_api.v1alpha1 import LabeledDatasetSpec, embeddings_of, in_graph_order, model_of
from tests.api.golden_specs import examples, generated

STORED = Path(__file__).parent / "golden" / "addresses.json"
SPECS = {**dict(examples()), **dict(generated())}
SIDE_MODELS = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("detector", "masks", "clip", "safety")}
TRAINING = (
    "accumulate", "batchSize", "flip", "images", "initializer", "learn", "learningRate", "masks", "model",
    "modelSHA256", "patience", "seed", "steps", "templates", "token", "vectors",
)  # fmt: skip
RUNNING = ("cpuQueueName", "minParallelism", "workloadPriorityClass", "samplesPerPublishShard", "compile")
LATER: frozenset[str] = frozenset(
    {
        "spec.output.yolo",
        "spec.output.yolo.task",
        "spec.output.coco",
        "spec.output.coco.segmentation",
        "spec.output.s3.addressingStyle",  # test_plan
        "spec.labeling.attention.fragmentFraction",  # test_plan
        "spec.prompts.maxBytes",  # in no address: test_prompt_weights
        "spec.prompts.file",  # test_prompt_rows
        "spec.prompts.fileSHA256",
        "spec.labeling.attention.calibration",
        "spec.labeling.attention.calibration.images",
        "spec.labeling.attention.calibration.masks",
        "spec.labeling.attention.calibration.backgroundToken",  # test_labeling
        "spec.labeling.attention.rescale",
        "spec.labeling.attention.headWeights",
        *(f"spec.run.{field}" for field in RUNNING),  # test_how_a_run_proceeds_is_in_no_address
        *(
            f"spec.stages.{kind}.{field}"  # test_loras
            for kind in ("txt2img", "img2img", "inpaint")
            for field in ("loras", "loras.uri", "loras.weight")
        ),
        "spec.stages.textualInversion",  # test_textual_inversion, and the trainings' own addresses
        *(f"spec.stages.textualInversion.{field}" for field in TRAINING),
        *(f"spec.stages.{kind}.embeddings.from" for kind in ("txt2img", "img2img", "inpaint")),
    }
)
"""Fields that the spec got after the addresses were stored; each has its own test of what it adds to an address."""


def digest(text: str) -> str:
    """Return a made-up digest of a model's files."""
    return hashlib.sha256(text.encode()).hexdigest()


def addresses(data: dict[str, Any]) -> dict[str, str]:
    """Return all addresses of a spec by their subject; the sample ids of a stage as a count and one hash."""
    spec = LabeledDatasetSpec.model_validate(data)
    found = {"revision": revision_of(spec), "store": store_of(spec)}
    recipes: dict[str, StageRecipe] = {}
    for stage in in_graph_order(spec.stages):
        words = {each.token: digest(each.uri) for each in embeddings_of(spec.stages, stage).values()}
        recipes[stage.name] = recipe = stage_recipe(
            spec,
            stage,
            digest(model_of(spec.stages, stage)[0]),
            words,
            source=recipes.get(stage.source or ""),
            side_models=SIDE_MODELS,
        )
        ids = [sample.id for sample in Expansion(spec).samples_of(recipe)]
        found[f"{stage.name} samples"] = f"{len(ids)} {digest(' '.join(ids))[:32]}"
        found[f"{stage.name} evidence"] = " ".join(recipe.evidence_ids)
        found[f"{stage.name} label"] = recipe.label_id
    return found


def test_how_a_run_proceeds_is_in_no_address() -> None:
    run = {
        "cpuQueueName": "cpus",
        "minParallelism": 2,
        "workloadPriorityClass": "low",
        "samplesPerPublishShard": 3,
        "compile": True,
    }
    spec = SPECS["shapes"]

    assert addresses({**spec, "run": {**spec.get("run", {}), **run}}) == addresses(spec)


def test_every_stored_spec_is_compared() -> None:
    assert set(json.loads(STORED.read_text())) == set(SPECS)


@pytest.mark.parametrize("name", SPECS)
def test_addresses_equal_the_stored_ones(name: str) -> None:
    stored, now = json.loads(STORED.read_text())[name], addresses(SPECS[name])

    changed = {what: (stored.get(what), now.get(what)) for what in stored | now if stored.get(what) != now.get(what)}
    assert not changed, f"{name}: these addresses changed (stored, now): {changed}"


def fields(model: type[BaseModel], path: str = "spec") -> Iterator[str]:
    """Yield the path of every field of a model and of the models in it."""
    for name, field in model.model_fields.items():
        here = f"{path}.{field.alias or name}"
        yield here
        for each in models_in(field.annotation):
            yield from fields(each, here)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in getattr(annotation, "__args__", ()):
        yield from models_in(each)


def written(data: Any, path: str = "spec") -> Iterator[str]:
    """Yield the path of every field that a manifest sets."""
    for each in data if isinstance(data, list) else ():
        yield from written(each, path)
    for name, value in data.items() if isinstance(data, dict) else ():
        yield f"{path}.{name}"
        yield from written(value, f"{path}.{name}")


def test_the_specs_set_every_field() -> None:
    covered = {path for data in SPECS.values() for path in written(data)}

    assert set(fields(LabeledDatasetSpec)) - covered == LATER, "a new field: name it in LATER, and test its address"


def test_format_options_are_in_the_revision_unless_they_are_the_default() -> None:
    def revision(**output: Any) -> str:
        return addresses({**SPECS["shapes"], "output": {"formats": ["coco", "yolo"], **output}})["revision"]

    plain = revision()
    assert revision(coco={}) == revision(coco={"segmentation": "auto"}) == plain
    assert len({plain, revision(coco={"segmentation": "rle"}), revision(coco={"segmentation": "polygon"})}) == 3
    assert revision(yolo={}) == revision(yolo={"task": "segment"}) == plain
    assert revision(yolo={"task": "detect"}) != plain


if __name__ == "__main__":
    entries = {name: addresses(data) for name, data in SPECS.items()}
    lines = (f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries.items())
    STORED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
