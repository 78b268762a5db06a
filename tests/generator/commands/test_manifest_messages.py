"""Messages about bad manifests: each names field, value, allowed values and the fix; a table has the exact messages."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from diffugen_api.allowed import PATTERNS
from diffugen_api.faults import faults_of
from diffugen_api.v1alpha1 import LabeledDataset, LabeledDatasetSpec
from diffugen_generator.commands.manifests import InvalidManifest, read_datasets

CASES: list[dict[str, str]] = yaml.safe_load((Path(__file__).parent / "broken_manifests.yaml").read_text())
HEAD = "apiVersion: diffugen.dev/v1alpha1\nkind: LabeledDataset\nmetadata: {name: shapes}\n"
LINES = {
    "classes": "classes: [{name: ball}]",
    "prompts": 'prompts: {templates: ["a {object}"], variables: {object: [ball]}}',
    "stages": 'stages: [{name: base, txt2img: {model: "builtin://shapes"}}]',
}
RAW = re.compile(r"constrained|literal\[|instance of|should (be|match|have)|pydantic|valid (dict|list|string|integer)")
"""Words of pydantic's own messages and of its paths."""


def manifest(case: dict[str, str]) -> str:
    field = case.get("without") or case["spec"].partition(":")[0]
    lines = [line for name, line in LINES.items() if name != field] + [case[key] for key in ("spec",) if key in case]
    return HEAD + "spec:\n" + "".join(f"  {line}\n" for line in lines)


def messages(folder: Path, text: str) -> list[str]:
    (folder / "manifest.yaml").write_text(text)
    with pytest.raises(InvalidManifest) as failure:
        read_datasets(folder / "manifest.yaml")
    return [str(fault) for fault in failure.value.faults]


def test_the_table_has_at_least_46_manifests() -> None:
    assert len(CASES) >= 46


@pytest.mark.parametrize("case", CASES, ids=[case.get("spec") or f"without {case['without']}" for case in CASES])
def test_the_message_is_the_one_in_the_table(tmp_path: Path, case: dict[str, str]) -> None:
    assert messages(tmp_path, manifest(case)) == [case["says"]]
    assert not RAW.search(case["says"])


def test_a_key_that_is_written_twice_is_an_error_with_both_lines(tmp_path: Path) -> None:
    text = HEAD + "spec:\n" + "".join(f"  {line}\n" for line in LINES.values()) + "  classes: [{name: star}]\n"

    assert messages(tmp_path, text) == [
        "it is not YAML: line 8, column 3: the key 'classes' is written twice, in lines 5 and 8: remove one of them"
    ]
    assert "written twice, in line 1: " in messages(tmp_path, "{a: 1, a: 2}")[0]


def test_equal_keys_of_different_maps_and_merged_keys_are_not_duplicates(tmp_path: Path) -> None:
    text = HEAD + "spec:\n" + "".join(f"  {line}\n" for line in LINES.values())
    text += "  image: &image {width: 64}\n  run: {podTemplate: {a: {<<: *image, width: 128}, b: {<<: *image}}}\n"
    (tmp_path / "manifest.yaml").write_text(text)

    [dataset] = read_datasets(tmp_path / "manifest.yaml")
    assert dataset.spec.run.pod_template == {"a": {"width": 128}, "b": {"width": 64}}


def test_a_deeply_nested_file_is_refused(tmp_path: Path) -> None:
    assert messages(tmp_path, "[" * 5000) == ["it is nested too deeply to be read"]


def test_every_field_with_a_value_of_a_wrong_type_gets_a_message_with_a_fix() -> None:
    spec = yaml.safe_load("\n".join(LINES.values()))
    values: list[Any] = [None, True, 1.5, "x", [], {"x": 1}]
    for path in fields(LabeledDatasetSpec):
        for wrong in values:
            broken = {**spec, path[0]: nested(path[1:], wrong)}
            with pytest.raises(ValidationError) as error:
                LabeledDatasetSpec.model_validate({**broken, "unknown": 1})
            for fault in faults_of(error.value, LabeledDatasetSpec, {**broken, "unknown": 1}):
                assert not RAW.search(str(fault)), str(fault)
                assert ":" in fault.message or "must" in fault.message, str(fault)


def fields(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        here = (*path, field.alias or name)
        yield here
        for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from fields(inner, here)


def nested(path: tuple[str, ...], value: Any) -> Any:
    return {path[0]: nested(path[1:], value)} if path else value


def test_every_pattern_of_the_models_has_a_description() -> None:
    assert set(patterns(LabeledDataset.model_json_schema())) <= set(PATTERNS)


def patterns(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from (schema[key] for key in ("pattern",) if isinstance(schema.get(key), str))
        yield from schema.get("patternProperties", {})
        for inner in schema.values():
            yield from patterns(inner)
    for inner in schema if isinstance(schema, list) else ():
        yield from patterns(inner)
