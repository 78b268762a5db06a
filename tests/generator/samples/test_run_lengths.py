"""Run lengths: they are read as pycocotools writes them, and broken text is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from diffugen_generator.publishing.coco_segmentation import run_lengths, stored_run_lengths
from diffugen_generator.samples import run_lengths as lengths
from diffugen_generator.samples.labels import Rle


def plainly_read(counts: str) -> list[int] | str:
    """Read a text as maskApi.c does, character by character; return the error for broken text."""
    codes = [ord(each) - 48 for each in counts]
    if not codes or not all(0 <= code < 64 for code in codes):
        return "counts: not a run-length encoding"
    if codes[-1] & 32:
        return "counts: the last run is cut off"
    runs: list[int] = []
    value = place = 0
    for code in codes:
        value |= (code & 31) << 5 * place
        place += 1
        if code & 32:
            continue
        if place > 7:
            return "counts: a run is too long"
        if code & 16:
            value -= 1 << 5 * place
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = place = 0
    return runs


def answer(counts: str) -> list[int] | str:
    try:
        return lengths.runs_of(counts)
    except ValueError as error:
        return str(error)


@given(text=st.text(st.characters(min_codepoint=46, max_codepoint=114), max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    assert answer(text) == plainly_read(text)


@given(text=st.text(st.sampled_from("048@OPQo"), min_size=1, max_size=60))
def test_runs_of_several_characters_are_read(text: str) -> None:
    assert answer(text) == plainly_read(text)


@pytest.mark.parametrize("share", [0.001, 0.05, 0.5])
@pytest.mark.parametrize("size", [(9, 200), (600, 37)])
def test_the_runs_are_those_of_the_mask(share: float, size: tuple[int, int]) -> None:
    mask = np.random.default_rng(7).random(size) < share
    stored = Rle.of(mask)

    assert stored_run_lengths(stored) == run_lengths(mask)
    assert lengths.area_of(size, stored.counts) == np.count_nonzero(mask)


@pytest.mark.parametrize("text", ["\u00e9", "0\u4e16", "\ud800"])
def test_letters_of_other_scripts_are_refused(text: str) -> None:
    assert answer(text) == "counts: not a run-length encoding"


def test_runs_without_pixels_are_joined() -> None:
    encoded = coco_mask.frPyObjects({"size": [4, 3], "counts": [2, 3, 0, 1, 6]}, 4, 3)
    stored = Rle((4, 3), encoded["counts"].decode())

    assert stored_run_lengths(stored) == {"size": [4, 3], "counts": [2, 4, 6]}
