"""Prompts as the tokenizer reads them: length limits and the place of each token."""

from __future__ import annotations

import subprocess
import sys

import pytest

from diffugen_api.plan import SpecError
from diffugen_generator.diffusion.tokens import PromptTokenizer
from diffugen_generator.models import ModelFolder
from diffugen_generator.prompt_limits import PromptLimit


@pytest.fixture(scope="module")
def tokenizer(tiny_model: ModelFolder) -> PromptTokenizer:
    return PromptTokenizer(tiny_model)


def test_a_prompt_is_padded_to_the_limit_with_the_place_of_each_token(tokenizer: PromptTokenizer) -> None:
    prompt = "a Red ball"
    read = tokenizer.read(prompt)

    assert len(read.ids) == len(read.spans) == tokenizer.limit == 20
    assert [prompt[begin:end] for begin, end in read.spans if begin < end] == ["a", "Red", "ball"]


def test_a_prompt_of_just_the_limit_is_read(tokenizer: PromptTokenizer) -> None:
    tokenizer.read(" ".join(["ball"] * 18))


def test_a_longer_prompt_is_refused_by_name_and_count_and_never_cut(tokenizer: PromptTokenizer) -> None:
    with pytest.raises(
        SpecError, match=r"^spec\.prompts\.templates\[0\]: 'ball .* has 19 tokens; .* reads 18"
    ) as caught:
        tokenizer.read(" ".join(["ball"] * 19), field="spec.prompts.templates[0]")

    assert caught.value.reason == "PromptTooLong"


def test_many_prompts_are_checked_at_once(tokenizer: PromptTokenizer) -> None:
    tokenizer.check(["a ball", "x" * 18, "", "a red star on snow and a blue ball on light"])

    with pytest.raises(SpecError, match="has 19 tokens"):
        tokenizer.check(["a ball", "é" * 3, "x" * 19])


def test_reading_prompts_does_not_import_torch(tiny_model: ModelFolder) -> None:
    code = (
        "import sys; from diffugen_generator.models import resolve;"
        "from diffugen_generator.diffusion.tokens import PromptTokenizer;"
        f"PromptTokenizer(resolve({tiny_model.uri!r})).read('a ball'); sys.exit('torch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_plan_can_ask_whether_prompts_fit(tiny_model: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = PromptLimit(tiny_model)

    limit.check("a red star on snow and a blue ball on light")
    with pytest.raises(SpecError, match=r"^spec\.prompts\.templates\[1\]: .* has 19 tokens"):
        limit.check("x" * 19, field="spec.prompts.templates[1]")


def test_where_transformers_is_missing_the_worker_asks(
    tiny_model: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "diffugen_generator.diffusion.tokens", None)

    PromptLimit(tiny_model).check("x" * 99)
