"""The contact sheet: images of any proportions, and captions that fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from diffugen_api.plan import Sample
from diffugen_generator.publishing.contact_sheet import IMAGES, ContactSheet, _cut, draw_sheet
from diffugen_generator.publishing.fonts import own_font
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.tally import Tally
from diffugen_generator.quality.verdicts import Verdict
from diffugen_generator.samples.labels import Label
from tests.generator.made import an_instance

RED = (255, 0, 0)


def a_sample(width: int, height: int, prompt: str = "a red ball " * 20) -> LabeledSample:
    mask = np.zeros((height, width), np.bool_)
    mask[: max(1, height // 2), : max(1, width // 2)] = True
    sample = Sample("0" * 32, prompt, 1, 0, {})
    return LabeledSample(
        sample=sample,
        stage="base",
        split="train",
        image="",
        extension="png",
        width=width,
        height=height,
        verdict=Verdict((an_instance("ball", mask),)),
        label=Label(sample.id, ()),
    )


def chosen_of(samples: Sequence[LabeledSample], classes: int) -> list[LabeledSample]:
    """The samples that a sheet of a dataset with as many classes shows."""
    release: Any = SimpleNamespace(class_ids={f"class {number}": number for number in range(classes)})
    sheet = ContactSheet(release, Tally(release), "sheet")
    for sample in samples:
        sheet.add(sample)
    return sheet._chosen()


def showing(number: int, *classes: int) -> LabeledSample:
    mask = np.ones((8, 8), np.bool_)
    sample = a_sample(8, 8)
    objects = tuple(an_instance(f"class {each}", mask) for each in classes)
    return replace(sample, sample=replace(sample.sample, id=f"{number:032x}"), verdict=Verdict(objects))


@pytest.mark.parametrize("classes", [1, 10, 2000])
def test_the_sheet_is_full_even_if_one_class_comes_first_in_every_image(classes: int) -> None:
    samples = [showing(number, 0, number % classes) for number in range(200)]

    chosen = chosen_of(samples, classes)

    assert len({each.sample.id for each in chosen}) == len(chosen) == IMAGES
    counts = Counter(instance.class_name for each in chosen for instance in each.verdict.instances[1:])
    assert len(counts) >= min(classes, IMAGES) - 2
    assert max(counts.values()) <= IMAGES // min(classes, IMAGES) + 4


def test_a_few_images_are_all_on_the_sheet() -> None:
    assert len(chosen_of([showing(number, 0) for number in range(20)], 2000)) == 20


def sheet_of(*sizes: tuple[int, int]) -> np.ndarray:
    samples = [a_sample(width, height) for width, height in sizes]
    images = [np.full((height, width, 3), 200, np.uint8) for width, height in sizes]
    return np.asarray(draw_sheet("sheet", [("ball  1", RED)], "1 image", samples, images))


@pytest.mark.parametrize("size", [(64, 2048), (2048, 64), (9000, 16), (16, 9000), (1, 9000), (9000, 1), (1, 1)])
def test_a_very_tall_or_wide_image_is_drawn(size: tuple[int, int]) -> None:
    sheet = sheet_of(size, size)

    assert max(sheet.shape) < 2000
    assert (sheet == 200).all(axis=2).any() or min(size) == 1


def test_every_image_keeps_its_proportions() -> None:
    wide, tall = sheet_of((200, 100)), sheet_of((100, 200))

    for sheet, ratio in ((wide, 2.0), (tall, 0.5)):
        gray = (sheet == 200).all(axis=2)
        rows, columns = np.flatnonzero(gray.any(axis=1)), np.flatnonzero(gray.any(axis=0))
        assert (columns[-1] - columns[0] + 1) / (rows[-1] - rows[0] + 1) == pytest.approx(ratio, rel=0.1)
    both = sheet_of((200, 100), (100, 200))
    assert both.shape[0] == tall.shape[0]


@pytest.mark.parametrize("text", ["", "a", "short", "long " * 5000, "é" * 3000])
@pytest.mark.parametrize("width", [1, 8, 128])
def test_a_caption_is_as_wide_as_its_image_at_most(text: str, width: int) -> None:
    cut = _cut(text, width)

    assert cut == text or cut.endswith("…")
    assert own_font(15).getlength(cut) <= width or cut == "…"
