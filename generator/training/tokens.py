"""The tokenizer of `builtin://shapes`: every word of its captions is one token.

The files in `tokenizer/` are fixed: a trainer of byte pair encodings can order equal merges differently in each
process, but a word's number must not change. `python -m generator.training.tokens` writes them again.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Final

import torch
from transformers import CLIPTokenizer

from generator.training import scenes

MAX_TOKENS: Final = 20
"""Length of the text, with start and end marks."""

START, END = "<|startoftext|>", "<|endoftext|>"
FROZEN = Path(__file__).parent / "tokenizer"
PLAIN_WORDS: Final = ("a", "photo", "of", "and", "on")


def vocabulary_words() -> tuple[str, ...]:
    """Every word that is one token, in the fixed order."""
    return (*PLAIN_WORDS, *scenes.CLASSES, *scenes.COLORS, *scenes.BACKGROUNDS)


def pieces_of(word: str, merges: list[tuple[str, str]]) -> list[str]:
    """Byte pair encoding of `word`: while any listed pair is adjacent, join the one that is first in the list."""
    pieces = [*word[:-1], f"{word[-1]}</w>"]
    while pairs := [pair for pair in pairwise(pieces) if pair in merges]:
        at = list(pairwise(pieces)).index(min(pairs, key=merges.index))
        pieces[at : at + 2] = ["".join(pieces[at : at + 2])]
    return pieces


def write_frozen(folder: Path) -> None:
    """Write `vocab.json` and `merges.txt`: single characters, then joins until each word is one token.

    Joins are only ever appended, so a word that is whole stays whole: its own joins come first.
    """
    characters = [chr(code) for code in range(ord("!"), ord("~") + 1) if not chr(code).isupper()]
    merges: list[tuple[str, str]] = []
    for word in vocabulary_words():
        while len(pieces := pieces_of(word, merges)) > 1:
            merges.append((pieces[0], pieces[1]))
    joined = ["".join(pair) for pair in merges]
    vocabulary = dict.fromkeys([*characters, *(f"{c}</w>" for c in characters), *joined, START, END])
    folder.mkdir(parents=True, exist_ok=True)
    numbered = {token: number for number, token in enumerate(vocabulary)}
    (folder / "vocab.json").write_text(json.dumps(numbered, indent=0) + "\n")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)]) + "\n")


def load_tokenizer() -> CLIPTokenizer:
    """The tokenizer from its frozen files."""
    return CLIPTokenizer(
        vocab=str(FROZEN / "vocab.json"),
        merges=str(FROZEN / "merges.txt"),
        unk_token=END,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        model_max_length=MAX_TOKENS,
    )


def token_id(tokenizer: CLIPTokenizer, token: str) -> int:
    """The number of one `token` as the vocabulary spells it, for example `ball</w>`."""
    return int(tokenizer.get_vocab()[token])


def token_ids(tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """Token ids [n, 20] of `captions`, padded with the end mark as the pipeline pads them."""
    encoded = tokenizer(captions, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
    ids: torch.Tensor = encoded.input_ids
    return ids


if __name__ == "__main__":
    write_frozen(FROZEN)
