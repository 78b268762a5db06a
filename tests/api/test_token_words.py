"""A token of textual inversion is one word: no part of it names a class, wherever prompts are read."""

from __future__ import annotations

from typing import Any

import pytest

from diffugen_api.derivations.base import vocabulary
from diffugen_api.errors import SpecError
from diffugen_api.plan import Expansion, stage_recipe
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_api.words import Vocabulary, mentions
from tests.api.specs import a_spec

CARS = Vocabulary({"car": ["car"], "suv": ["suv"]}, ["accident"], ["<car-accident>", "<car>", "carwreck"])


def named(prompt: str, words: Vocabulary = CARS) -> list[tuple[str, str]]:
    return [(each.name, prompt[each.begin : each.end]) for each in mentions(prompt, words)]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a suv, <car-accident>", [("suv", "suv")]),
        ("a suv, <Car-Accident>, a car", [("suv", "suv"), ("car", "car")]),
        ("<car> by an accident", [("accident", "accident")]),
        ("a <car", [("car", "car")]),
        ("carwreck car", [("car", "car")]),
    ],
)
def test_no_part_of_a_token_names_anything(prompt: str, expected: list[tuple[str, str]]) -> None:
    assert named(prompt) == expected


def test_a_word_with_whole_tokens_names_its_class() -> None:
    words = Vocabulary({"gem": ["<gem>", "big <gem>"], "car": ["car"]}, tokens=["<gem>", "<car-gem>"])

    assert named("a big <gem>, a <gem>, a <car-gem>", words) == [("gem", "big <gem>"), ("gem", "<gem>")]


def test_words_inside_are_those_that_the_token_would_name() -> None:
    assert [each.name for each in CARS.words_inside("<car-accident>")] == ["car", "accident"]
    assert CARS.words_inside("<boat>") == []
    assert Vocabulary({"gem": ["<car>"], "car": ["car"]}).words_inside("<car>") == []


def accidents(token: str = "<car-accident>", **changes: Any) -> LabeledDatasetSpec:
    taught = [{"uri": "/words/accident.pt", "token": token}] if token else []
    return a_spec(
        **{
            "classes": [{"name": "car"}, {"name": "suv"}],
            "prompts": {
                "templates": ["a red car, <car-accident>", "a {vehicle} <{vehicle}-accident>"],
                "variables": {"vehicle": ["car", "suv"]},
            },
            "stages": [
                {"name": "base", "txt2img": {"model": "m", "embeddings": taught}},
                {"name": "other", "inpaint": {"from": "base", "replacements": {"car": ["mustang"]}}},
            ],
            **changes,
        }
    )


def prompts_of(spec: LabeledDatasetSpec, stage: int) -> list[str]:
    recipe = None
    found = Expansion(spec)
    for each in spec.stages[: stage + 1]:
        recipe = stage_recipe(spec, each, "0" * 64, source=recipe)
    assert recipe is not None
    return sorted({sample.prompt for sample in found.samples_of(recipe)})


def test_inpaint_replaces_no_part_of_a_token() -> None:
    assert prompts_of(accidents(), 1) == ["a mustang <car-accident>", "a red mustang, <car-accident>"]


def test_inpaint_without_the_token_replaces_the_word() -> None:
    assert "a red mustang, <mustang-accident>" in prompts_of(accidents(token=""), 1)


def test_a_class_that_only_a_token_names_cannot_be_replaced() -> None:
    prompts = {"templates": ["a suv, <car-accident>"], "variables": {}}

    with pytest.raises(SpecError, match=r"replacements\.car: no prompt of stage 'base' names the class 'car'"):
        _ = Expansion(accidents(prompts=prompts)).families


def test_the_words_of_a_spec_have_the_tokens_of_all_stages() -> None:
    spec = accidents()

    assert vocabulary(spec).tokens == ("<car-accident>",)
    assert named("a suv, <car-accident>", vocabulary(spec)) == [("suv", "suv")]


def test_labels_have_other_addresses_only_if_a_token_contains_a_word() -> None:
    def ids(token: str, labeling: dict[str, Any]) -> tuple[str, str]:
        spec = accidents(token, labeling=labeling)
        recipe = stage_recipe(spec, spec.stages[0], "0" * 64, side_models={"detector": "1" * 64})
        return recipe.evidence_id, recipe.label_id

    attention: dict[str, Any] = {"attention": {}}
    detector: dict[str, Any] = {"detector": {"type": "transformers", "model": "/m"}}
    for labeling in (attention, detector):
        assert ids("<wreck>", labeling) == ids("", labeling)
        assert ids("<car-accident>", labeling)[1] != ids("", labeling)[1]
    assert ids("<car-accident>", attention)[0] != ids("", attention)[0]
