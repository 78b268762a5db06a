"""Warnings: parts of a spec that have no effect, or another one than they seem; one for each kind and field."""

from __future__ import annotations

from typing import Any

import pytest

from diffugen_api.plan import Expansion
from diffugen_api.spec_warnings import plurals_of
from tests.api.specs import a_spec


def warned(**changes: Any) -> list[str]:
    return Expansion(a_spec(**changes)).warnings()


def prompts(*templates: str, **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"templates": list(templates), "variables": {}}
    return {"prompts": {**given, **changes}}


BOTH = "a ball and a star"


def test_a_spec_whose_parts_all_have_an_effect_has_no_warning() -> None:
    assert warned() == []


def test_an_unused_variable_is_named() -> None:
    (warning,) = warned(**prompts(BOTH, variables={"place": ["snow", "sand"]}))

    assert warning == (
        "spec.prompts.variables.place: no template has the field {place}, so its values are not used; write {place} "
        "into a template, or remove the variable."
    )


def test_classes_that_no_prompt_names_are_named_once() -> None:
    classes = [{"name": "ball"}, {"name": "star", "synonyms": ["pentagram"]}, {"name": "car"}, {"name": "bus"}]

    assert warned(classes=classes, **prompts("a ball", "a pentagram")) == [
        (
            "spec.classes: no prompt names 'car', 'bus', so they have no objects in the dataset; name them in a "
            "template or by a synonym, or remove them."
        )
    ]
    assert (
        "and 192 more, so they have no objects"
        in warned(classes=[{"name": f"n{n}"} for n in range(200)], **prompts("a"))[-1]
    )


def test_a_class_that_a_derived_prompt_names_is_named() -> None:
    stages = [
        {"name": "base", "txt2img": {"model": "m"}},
        {"name": "stars", "inpaint": {"from": "base", "replacements": {"ball": ["a star"]}}},
    ]

    assert warned(stages=stages, **prompts("a ball")) == []


def test_a_detector_labels_classes_that_no_prompt_names() -> None:
    labeling = {"detector": {"type": "transformers", "model": "/m"}}

    assert warned(labeling=labeling, **prompts("a ball")) == []
    assert len(warned(labeling={**labeling, "attention": {}}, **prompts("a ball"))) == 1


@pytest.mark.parametrize(
    ("text", "part", "why"),
    [
        ("<hypernet:x:1>", "<hypernet:x:1>", "loads nothing here"),
        ("BREAK in the sun", "BREAK", "divides nothing here"),
        ("AND a dog", "AND", "combines no prompts here"),
        ('("a", "b").blend(1, 1)', ").blend(", "write a template for each"),
        ("__colors/warm__", "__colors/warm__", "write a variable"),
        ("{{red|blue}}", "{red|blue}", "write a variable"),
    ],
)
def test_the_syntax_of_other_programs_is_drawn_as_text(text: str, part: str, why: str) -> None:
    (warning,) = warned(**prompts(f"{BOTH}, {text}", f"{BOTH} again, {text}"))

    assert warning.startswith(f"spec.prompts.templates[0]: {part!r} is drawn as text: ")
    assert why in warning


def test_the_same_words_in_plain_prompts_are_no_syntax() -> None:
    assert warned(**prompts(f"{BOTH} and a break, snake_case __init, x < y, a (small) box [red], BREAKING")) == []


def test_the_syntax_is_found_in_every_place() -> None:
    inpaint = {"from": "base", "replacements": {"ball": ["a <hypernet:x:1> ball"]}, "template": "a {object} AND a star"}
    stages: list[dict[str, Any]] = [
        {"name": "base", "txt2img": {"model": "m"}},
        {"name": "more", "img2img": {"from": "base", "variables": {"color": ["__colors__"]}}},
        {"name": "new", "inpaint": inpaint},
    ]
    given = {"templates": ["a {color} ball and a star"], "variables": {"color": ["red"]}, "negative": "bad BREAK"}

    assert [warning.split(":")[0] for warning in warned(stages=stages, prompts=given)] == [
        "spec.prompts.negative",
        "spec.stages[1].img2img.variables.color[0]",
        "spec.stages[2].inpaint.template",
        "spec.stages[2].inpaint.replacements.ball[0]",
    ]


@pytest.mark.parametrize("text", ["a (red ball:1.2 and a star", "a [ball and a star", "((a) ball and a star"])
def test_a_parenthesis_that_is_not_closed_is_named(text: str) -> None:
    if text.startswith("(("):  # a mark of weights, so it is an error
        return
    (warning,) = warned(**prompts(text))

    assert warning.startswith("spec.prompts.templates[0]: the ")
    assert "is not closed, so it is drawn as text and changes no weight; close it, or write \\" in warning


@pytest.mark.parametrize("text", [r"a \(ball and a star", "a (ball) and a star :)", "a (ball:1.2) and a star"])
def test_parentheses_that_are_closed_or_escaped_are_not_named(text: str) -> None:
    assert warned(**prompts(text)) == []


def test_without_weights_every_sign_is_text() -> None:
    assert warned(**prompts("a (red ball:1.2 and a star", syntax="none")) == []


def test_plurals_name_no_class_and_the_synonym_is_suggested() -> None:
    warnings = warned(**prompts("two Balls on snow", "a star and three stars"))

    assert warnings[:2] == [
        (
            f"spec.prompts: '{name}s' names no class, so '{name}' is not labeled there; add '{name}s' to the synonyms "
            f"of class '{name}', or write the singular."
        )
        for name in ("ball", "star")
    ]
    assert [warning.split(",")[0] for warning in warnings[2:]] == ["spec.classes: no prompt names 'ball'"]
    classes = [{"name": "ball", "synonyms": ["balls"]}, {"name": "star", "synonyms": ["stars"]}]
    assert warned(classes=classes, **prompts("two balls and stars")) == []


@pytest.mark.parametrize(
    ("word", "plurals"),
    [
        ("ball", ["balls"]), ("bus", ["buses"]), ("box", ["boxes"]), ("bench", ["benches"]), ("dish", ["dishes"]),
        ("city", ["cities"]), ("toy", ["toys"]), ("potato", ["potatos", "potatoes"]), ("person", ["people"]),
        ("fireman", ["firemen"]), ("knife", ["knives"]), ("traffic light", ["traffic lights"]), ("mouse", ["mice"]),
        ("球", []), ("café", []), ("a", []), ("SUV", ["SUVs"]), ("human", ["humen"]),
    ],
)  # fmt: skip
def test_plurals_of_english_words(word: str, plurals: list[str]) -> None:
    if word == "human":
        assert plurals_of(word) == ["humans"]
    else:
        assert plurals_of(word) == plurals


def test_a_token_that_contains_a_class_word_is_named() -> None:
    embedding = {"uri": "/x.pt", "token": "<ball-game>"}
    stages = [{"name": "base", "txt2img": {"model": "m", "embeddings": [embedding]}}]

    (warning,) = warned(stages=stages, **prompts(f"{BOTH} <ball-game>"))

    assert warning == (
        "spec.stages[0].txt2img.embeddings[0].token: '<ball-game>' contains 'ball', a word of class 'ball'; the token "
        "is one word and names no class. If it shows a ball, add it to that class's synonyms."
    )


def test_background_words_that_no_prompt_names_are_named() -> None:
    labeling = {"attention": {"background": ["snow", "sky", "ball"]}}

    (warning,) = warned(labeling=labeling, **prompts("a ball and a star on snow"))

    assert warning.startswith("spec.labeling.attention.background: no prompt names sky, ball; a background word")


def test_a_spec_with_many_prompts_is_not_searched_to_the_end() -> None:
    values = {f"v{n}": [f"w{n}x{m}" for m in range(1000)] for n in range(30)}
    template = " ".join(f"{{{name}}}" for name in values)

    assert warned(classes=[{"name": "ball"}], **prompts(template, variables=values, sample=1)) == []
