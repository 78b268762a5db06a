"""Prompts as the tokenizer reads them: windows and the position of each token."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from diffugen_api.plan import SpecError
from diffugen_api.prompt_weights import Piece
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.prompts import NO_PIECE
from diffugen_generator.families.unet.tokens import PromptTokenizer
from diffugen_generator.models.resolve import resolve


@pytest.fixture(scope="module")
def tokenizer(tiny_model: ModelFolder) -> PromptTokenizer:
    return PromptTokenizer(tiny_model)


def test_a_prompt_is_padded_to_the_limit_and_each_token_has_a_position(tokenizer: PromptTokenizer) -> None:
    prompt = "a Red ball"
    read = tokenizer.read(prompt)

    assert len(read.ids) == len(read.spans) == tokenizer.limit == 20
    assert [prompt[begin:end] for begin, end in read.spans if begin < end] == ["a", "Red", "ball"]


def test_a_prompt_of_exactly_the_limit_takes_one_window(tokenizer: PromptTokenizer) -> None:
    assert tokenizer.read(" ".join(["ball"] * 18)).windows == 1
    assert tokenizer.read("").windows == 1


def test_a_longer_prompt_takes_several_windows_and_is_not_truncated(tokenizer: PromptTokenizer) -> None:
    prompt = "a red ball and a blue star on snow " * 5  # 45 tokens
    read = tokenizer.read(prompt)

    assert (read.windows, len(read.ids), len(read.spans)) == (3, 60, 60)
    assert [prompt[begin:end] for begin, end in read.spans if begin < end] == prompt.split()
    start, end = tokenizer.read("").ids[:2]
    assert [read.ids[at] for at in (0, 20, 40)] == [start] * 3
    assert [read.ids[at] for at in (19, 39, 50)] == [end] * 3
    assert read.mask == (1,) * 51 + (0,) * 9


def test_a_window_ends_with_a_word(tokenizer: PromptTokenizer) -> None:
    prompt = "ball " * 16 + "cat"  # c, a, t: 19 tokens
    read = tokenizer.read(prompt)

    assert [prompt[begin:end] for begin, end in read.spans[20:] if begin < end] == ["c", "a", "t"]


def test_a_word_longer_than_a_window_continues_in_the_next_window(tokenizer: PromptTokenizer) -> None:
    assert tokenizer.read("x" * 40).windows == 3


def test_each_piece_is_tokenized_by_itself_and_keeps_its_positions(tokenizer: PromptTokenizer) -> None:
    prompt = (Piece("a ", 1.0), Piece("red", 1.3), Piece(" ball", 1.0))
    read = tokenizer.read(prompt)

    assert read.ids == tokenizer.read("a red ball").ids
    assert read.spans == tokenizer.read("a red ball").spans
    assert read.pieces[:5] == (NO_PIECE, 0, 1, 2, NO_PIECE)


def test_reading_prompts_does_not_import_torch(tiny_model: ModelFolder) -> None:
    code = (
        "import sys; from diffugen_generator.models.resolve import resolve;"
        "from diffugen_generator.families.unet.tokens import PromptTokenizer;"
        f"PromptTokenizer(resolve({tiny_model.uri!r})).read('a ball'); sys.exit('torch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_model_whose_limit_leaves_no_token_for_text_is_refused(own_model: Path) -> None:
    config = own_model / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 2}))

    with pytest.raises(SpecError, match="texts of 2 tokens"):
        PromptTokenizer(resolve(str(own_model)))
