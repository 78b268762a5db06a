"""Run lengths: short and long text are read alike, as pycocotools writes it, and broken text is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from diffugen_generator.publishing.coco_segmentation import run_lengths, stored_run_lengths
from diffugen_generator.samples import run_lengths as lengths
from diffugen_generator.samples.labels import Rle


def answer(counts: str) -> list[int] | str:
    try:
        return lengths.runs_of(counts)
    except ValueError as error:
        return str(error)


def long_answer(counts: str, monkeypatch: pytest.MonkeyPatch) -> list[int] | str:
    with monkeypatch.context() as changed:
        changed.setattr(lengths, "_FEW", -1)
        return answer(counts)


@given(text=st.text(st.characters(min_codepoint=46, max_codepoint=114), max_size=40))
def test_short_and_long_text_is_read_alike(text: str) -> None:
    assert answer(text) == long_answer(text, pytest.MonkeyPatch())


@pytest.mark.parametrize("share", [0.001, 0.05, 0.5])
@pytest.mark.parametrize("size", [(9, 200), (600, 37)])
def test_the_runs_are_those_of_the_mask(share: float, size: tuple[int, int]) -> None:
    mask = np.random.default_rng(7).random(size) < share
    stored = Rle.of(mask)

    assert stored_run_lengths(stored) == run_lengths(mask)
    assert lengths.area_of(size, stored.counts) == np.count_nonzero(mask)


def test_runs_without_pixels_are_joined() -> None:
    encoded = coco_mask.frPyObjects({"size": [4, 3], "counts": [2, 3, 0, 1, 6]}, 4, 3)
    stored = Rle((4, 3), encoded["counts"].decode())

    assert stored_run_lengths(stored) == {"size": [4, 3], "counts": [2, 4, 6]}
