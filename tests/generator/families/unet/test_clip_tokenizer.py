"""The tokenizer that ships is CLIP's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from diffugen_generator.families.unet.clip_tokenizer import VOCABULARY, tokenizer_files


@pytest.mark.parametrize(("pads_with_end", "pad"), [(True, 49_407), (False, 0)])
def test_texts_have_the_published_ids(tmp_path: Path, *, pads_with_end: bool, pad: int) -> None:
    for name, content in tokenizer_files(pads_with_end=pads_with_end).items():
        (tmp_path / name).write_bytes(content)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path)

    ids = tokenizer(["a photo of a cat", "Hello, world.", "naïve 猫"], padding="max_length")["input_ids"]

    assert len(json.loads((tmp_path / "vocab.json").read_bytes())) == VOCABULARY
    assert [len(each) for each in ids] == [77] * 3
    assert ids[0][:8] == [49406, 320, 1125, 539, 320, 2368, 49407, pad]
    assert ids[1][:7] == [49406, 3306, 267, 1002, 269, 49407, pad]
    assert tokenizer.decode(ids[2], skip_special_tokens=True).strip("! ") == "naïve 猫"
