"""Prompts that a model cannot read are found by the plan, in no time where they are well within the limit."""

import json
import sys
from pathlib import Path

import pytest

from diffugen_api.plan import SpecError
from diffugen_generator.models import ModelFolder, resolve
from diffugen_generator.planning import stages_of
from diffugen_generator.prompt_checks import check_prompts, longest_prompts, most_tokens
from tests.generator.made import a_model, an_order


def with_prompts(model: str, template: str, **variables: list[str]) -> list[tuple[str, str]]:
    return list(longest_prompts(an_order(model, prompts={"templates": [template], "variables": variables}).spec))


@pytest.fixture
def builtin() -> ModelFolder:
    return resolve("builtin://shapes")


def test_the_longest_prompt_of_each_template_is_looked_at(tmp_path: Path) -> None:
    found = with_prompts(a_model(tmp_path), "a {view} on {place}", view=["near", "far"], place=["snow", "the moon"])

    assert found == [("spec.prompts.templates[0]", "a near on the moon")]


@pytest.mark.parametrize(
    "text", ["", "a red ball and a blue star on snow", "A photo, of 12 balls!", "grüne Bälle", "xyzzy ___ a's"]
)
def test_the_bound_holds(builtin: ModelFolder, text: str) -> None:
    from diffugen_generator.diffusion.tokens import PromptTokenizer

    vocabulary = set(json.loads((builtin.path / "tokenizer" / "vocab.json").read_bytes()))
    true = sum(PromptTokenizer(builtin).read(text).mask) - 2

    assert most_tokens(text, vocabulary) >= true


def test_the_words_of_the_built_in_model_are_a_token_each(builtin: ModelFolder) -> None:
    vocabulary = set(json.loads((builtin.path / "tokenizer" / "vocab.json").read_bytes()))

    assert most_tokens("a photo of a red ball and a purple square on stone", vocabulary) == 12


def test_a_template_that_is_too_long_is_named() -> None:
    order = an_order("builtin://shapes", prompts={"templates": ["a ball", "a ball on snow " * 9]})

    told = r"spec.prompts.templates\[1\]: .* has 36 tokens; builtin://shapes reads 18"
    with pytest.raises(SpecError, match=told) as failure:
        stages_of(order.spec)

    assert failure.value.reason == "PromptTooLong"


def test_a_negative_prompt_that_is_too_long_is_named() -> None:
    order = an_order("builtin://shapes", prompts={"templates": ["a ball"], "negative": "a red ball " * 9})

    with pytest.raises(SpecError, match="spec.prompts.negative: .* has 27 tokens"):
        stages_of(order.spec)


def test_prompts_well_within_the_limit_load_no_tokenizer(builtin: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffugen_generator.diffusion.tokens", None)

    check_prompts(an_order("builtin://shapes").spec, builtin)
