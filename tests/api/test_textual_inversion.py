"""Stages of kind textualInversion: their position in the graph, and which fields of a spec an address covers."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from diffugen_api.plan import Expansion, revision_of
from diffugen_api.v1alpha1 import Embedding, LabeledDatasetSpec, embeddings_of, in_graph_order
from tests.api.specs import a_spec

CONCEPT: dict[str, Any] = {
    "name": "concept",
    "textualInversion": {"model": "builtin://shapes", "images": "/images", "token": "<gem>", "initializer": "star"},
}


def base(**embedding: Any) -> dict[str, Any]:
    return {"name": "base", "txt2img": {"model": "builtin://shapes", "embeddings": [{"from": "concept", **embedding}]}}


def spec(*stages: dict[str, Any]) -> LabeledDatasetSpec:
    return a_spec(stages=list(stages))


def test_a_stage_begins_after_the_stage_that_trains_its_word() -> None:
    found = spec(base(), CONCEPT)

    assert [stage.depends_on for stage in found.stages] == [("concept",), ()]
    assert [stage.name for stage in in_graph_order(found.stages)] == ["concept", "base"]


def test_a_stage_waits_for_its_source_and_for_its_word() -> None:
    again = {"name": "again", "img2img": {"from": "base", "variables": {"place": ["night"]}, **base()["txt2img"]}}
    found = spec(base(), again, CONCEPT)

    assert found.stages[1].depends_on == ("base", "concept")


def test_only_the_stages_that_draw_have_samples() -> None:
    found = spec(base(), CONCEPT)

    assert dict(Expansion(found).most) == {"base": 20}
    assert Expansion(found).count_distinct_samples() == 20


def test_the_word_is_the_trained_one_or_the_stages_own_name_for_it() -> None:
    def word_of(found: LabeledDatasetSpec) -> str:
        (word,) = embeddings_of(found.stages, found.stages[0]).values()
        return word.token

    assert word_of(spec(base(), CONCEPT)) == "<gem>"
    assert word_of(spec(base(token="<jewel>"), CONCEPT)) == "<jewel>"


def test_the_revision_covers_the_training() -> None:
    changed = {"name": "concept", "textualInversion": {**CONCEPT["textualInversion"], "seed": 1}}

    assert revision_of(spec(base(), CONCEPT)) != revision_of(spec(base(), changed))


def test_an_embedding_of_a_file_is_serialized_as_before() -> None:
    data = {"uri": "/words/gem.pt", "token": "<gem>"}

    assert Embedding.model_validate(data).model_dump(mode="json", by_alias=True) == data


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ([base()], "[0].txt2img.embeddings[0].from: no stage of kind textualInversion is called 'concept': name"),
        ([{"name": "concept", "txt2img": {"model": "m"}}, base()], "no stage of kind textualInversion is called"),
        ([CONCEPT], "none of them draws images; add one of kind txt2img"),
        ([base(uri="/x"), CONCEPT], "an embedding is either of a uri, with a token, or from a stage"),
        ([{**CONCEPT, **base(), "name": "both"}], "a stage is exactly one of"),
        (
            [base(), {"name": "more", "img2img": {"from": "concept", "variables": {"place": ["night"]}}}, CONCEPT],
            "there is no stage 'concept' to draw from",
        ),
    ],
)
def test_an_impossible_spec_is_refused(stages: list[dict[str, Any]], expected: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(expected)):
        spec(*stages)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("token", "two words"),
        ("initializer", " "),
        ("vectors", 33),
        ("templates", ["a photo"]),
        ("templates", ["a {word}"]),
        ("learn", "thing"),
        ("learningRate", 0),
    ],
)
def test_bad_settings_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        spec(base(), {"name": "concept", "textualInversion": {**CONCEPT["textualInversion"], field: value}})
