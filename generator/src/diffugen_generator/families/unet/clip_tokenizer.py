"""The tokenizer of CLIP, made from the list of its merges: the files of a tokenizer's folder. No torch.

The vocabulary follows from the merges (Radford et al. 2021; https://github.com/openai/CLIP): the 256 bytes, each alone
and at the end of a word, then the result of each merge, then the two marks.
"""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Final

from diffugen_generator.families.unet.architecture import END_OF_WORD

_MERGES: Final = Path(__file__).parents[2] / "builtin" / "clip-tokenizer" / "merges.txt.gz"
_START: Final = "<|startoftext|>"
_END: Final = "<|endoftext|>"
VOCABULARY: Final = 49_408
"""The words of the vocabulary, marks included."""
LIMIT: Final = 77
"""The tokens of a window, marks included."""
START_ID: Final = VOCABULARY - 2
END_ID: Final = VOCABULARY - 1


def tokenizer_files(*, pads_with_end: bool) -> dict[str, bytes]:
    """Return the files of a tokenizer's folder by name.

    The filler of a short text is the end mark for the encoder of OpenAI, and `!`, whose id is 0, for those of OpenCLIP.
    """
    vocabulary, merges = _tables()
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": LIMIT,
        "do_lower_case": True,
        "bos_token": _START,
        "eos_token": _END,
        "unk_token": _END,
        "pad_token": _END if pads_with_end else "!",
    }
    return {"tokenizer_config.json": json.dumps(settings).encode(), "vocab.json": vocabulary, "merges.txt": merges}


@cache
def _tables() -> tuple[bytes, bytes]:
    """Return the contents of vocab.json and merges.txt."""
    merges = gzip.decompress(_MERGES.read_bytes()).decode()
    characters = _characters()
    words = [*characters, *(f"{each}{END_OF_WORD}" for each in characters)]
    words += [merge.replace(" ", "") for merge in merges.splitlines()]
    ids = {word: number for number, word in enumerate([*words, _START, _END])}
    return json.dumps(ids, ensure_ascii=False).encode(), f"#version: 0.2\n{merges}".encode()


def _characters() -> list[str]:
    """Return the characters that stand for the 256 bytes, in the order of their ids.

    A byte that prints in Latin-1 stands for itself. The others, in their order, have the characters from U+0100 on.
    They are the characters of the byte-level encoding of GPT-2 (Radford et al. 2019).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [*map(chr, printable), *(chr(0x100 + number) for number in range(256 - len(printable)))]
