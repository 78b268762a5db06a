"""What the rows of a prompts file mean: prompts, filled templates, samples, addresses and warnings."""

from typing import Any

import pytest

from diffugen_api.errors import SpecError
from diffugen_api.plan import Expansion, Sample, revision_of, stage_recipe
from diffugen_api.prompt_rows import PromptRow, PromptRows
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from tests.api.specs import a_spec, spec_data

FILE = "s3://bucket/captions.jsonl"
IMG2IMG = {"name": "other", "img2img": {"from": "base", "variables": {"view": ["side"]}}}
INPAINT = {"name": "other", "inpaint": {"from": "base", "replacements": {"car": ["a red truck"]}}}


def rows(*given: PromptRow, complete: bool = True, fills: dict[int, int] | None = None) -> PromptRows:
    return PromptRows(
        read=lambda: iter(given),
        sha256="0" * 64,
        digest="1" * 64,
        prompts=sum(bool(row.prompt) for row in given),
        fills=fills or {},
        examples=given,
        complete=complete,
    )


def spec_with(*stages: Any, **prompts: Any) -> LabeledDatasetSpec:
    data = spec_data()
    return a_spec(
        classes=[{"name": "car", "synonyms": ["automobile"]}],
        prompts={"file": FILE, **prompts},
        stages=[*data["stages"], *stages],
    )


def samples(spec: LabeledDatasetSpec, given: PromptRows) -> list[Sample]:
    recipe = stage_recipe(spec, spec.stages[0], "d" * 64)
    return list(Expansion(spec, given).samples_of(recipe))


def captions(*texts: str) -> PromptRows:
    return rows(*(PromptRow(text, {}) for text in texts))


def test_each_row_with_a_prompt_is_drawn_as_it_is_written() -> None:
    spec = spec_with(samplesPerPrompt=2)
    given = captions("a car {in} snow", "an automobile")

    drawn = samples(spec, given)

    assert [each.prompt for each in drawn] == ["a car {in} snow"] * 2 + ["an automobile"] * 2
    assert len({each.seed for each in drawn}) == 4
    assert Expansion(spec, given).most == {"base": 4}
    assert Expansion(spec, given).count_prompts_and_seeds() == 4


def test_a_spec_without_templates_can_be_written_out_and_read_again() -> None:
    spec = spec_with()

    again = LabeledDatasetSpec.model_validate(spec.model_dump(mode="json", by_alias=True))

    assert again == spec
    assert revision_of(again) == revision_of(spec)


def test_rows_fill_the_templates_whose_fields_they_have() -> None:
    templates = ["a {object}", "a {object}, {view} view", "a {size} moon"]
    spec = spec_with(templates=templates, variables={"size": ["big"]})
    given = rows(PromptRow("", {"object": "car", "view": "rear"}), PromptRow("", {"object": "car"}), fills={0: 2, 1: 1})

    drawn = samples(spec, given)

    assert [(each.prompt, each.template) for each in drawn] == [
        ("a big moon", 2),
        ("a car", 0),
        ("a car, rear view", 1),
    ]
    assert drawn[2].variables == {"object": "car", "view": "rear"}
    assert Expansion(spec, given).most["base"] == 4  # an upper bound: "a car" is filled twice


def test_the_values_beside_a_prompt_are_recorded() -> None:
    spec = spec_with(templates=["a {object}"], variables={"object": ["car"]})

    drawn = samples(spec, rows(PromptRow("one automobile", {"object": "car"})))

    assert [(each.prompt, dict(each.variables)) for each in drawn] == [
        ("a car", {"object": "car"}),
        ("one automobile", {"object": "car"}),
    ]
    assert drawn[1].template == 1


def test_an_address_does_not_depend_on_other_rows_nor_on_the_file() -> None:
    spec, beside = spec_with(), spec_with(templates=["a {object}"], variables={"object": ["car"]})
    alone = {each.prompt: each.id for each in samples(spec, captions("a car"))}

    assert {each.prompt: each.id for each in samples(spec, captions("a dog", "a car", "a cat"))}["a car"] == alone[
        "a car"
    ]
    assert {each.prompt: each.id for each in samples(beside, captions("a cat"))}["a car"] == alone["a car"]


def test_the_file_and_its_digest_are_in_the_revision() -> None:
    spec = spec_with()

    assert revision_of(spec) != revision_of(spec_with(file="s3://bucket/other.jsonl"))
    assert revision_of(spec) != revision_of(spec_with(fileSHA256="a" * 64))


def test_img2img_changes_the_templates_that_rows_fill() -> None:
    spec = spec_with(IMG2IMG, templates=["a {object}, {view} view"])
    given = rows(PromptRow("", {"object": "car", "view": "rear"}), PromptRow("a car", {}), fills={0: 1})
    expansion = Expansion(spec, given)
    base = stage_recipe(spec, spec.stages[0], "d" * 64)
    recipe = stage_recipe(spec, spec.stages[1], "d" * 64, source=base)

    assert [each.prompt for each in expansion.samples_of(recipe)] == ["a car, side view"]


def test_img2img_without_a_filled_template_is_refused() -> None:
    with pytest.raises(SpecError, match=r"spec.stages\[1\].img2img.variables.view: no prompt of stage 'base'"):
        Expansion(spec_with(IMG2IMG), captions("a car")).check_stages()


def test_inpaint_replaces_the_class_that_a_row_names() -> None:
    spec, given = spec_with(INPAINT), captions("an automobile in snow", "a moon")
    expansion = Expansion(spec, given)
    base = stage_recipe(spec, spec.stages[0], "d" * 64)
    recipe = stage_recipe(spec, spec.stages[1], "d" * 64, source=base)

    assert [each.prompt for each in expansion.samples_of(recipe)] == ["an a red truck in snow"]
    assert expansion.most == {"base": 2, "other": 2}


def test_a_replacement_is_refused_only_if_all_rows_are_known() -> None:
    moon = PromptRow("a moon", {})

    with pytest.raises(SpecError, match="no prompt of stage 'base' names the class 'car'"):
        Expansion(spec_with(INPAINT), rows(moon)).check_stages()
    Expansion(spec_with(INPAINT), rows(moon, complete=False)).check_stages()


def test_a_class_that_no_row_names_is_reported_only_if_all_rows_are_known() -> None:
    moon = PromptRow("a moon", {})

    assert any("no prompt names 'car'" in each for each in Expansion(spec_with(), rows(moon)).warnings())
    assert not Expansion(spec_with(), rows(moon, complete=False)).warnings()
    assert not Expansion(spec_with(), captions("two moons and an automobile")).warnings()


def test_text_of_other_programs_in_a_row_is_reported() -> None:
    [warning] = Expansion(spec_with(), captions("a car AND a moon")).warnings()

    assert warning.startswith("spec.prompts.file: 'AND' is drawn as text")


def test_an_expansion_without_the_rows_fails_at_once() -> None:
    with pytest.raises(ValueError, match="without its rows"):
        Expansion(spec_with()).check_stages()
