"""Sprites: the same pictures in a second process, and without it where it has ended."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffugen_generator.publishing.report import report as report_module
from diffugen_generator.publishing.report.thumbnails import (
    Sprite,
    SpriteMaker,
    Thumbnail,
    sprite_of,
    thumbnail_of,
)
from tests.generator.made import everything_in
from tests.generator.publishing.report.datasets import Published, published

CELL = 32


def a_file(kind: str, side: int, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def a_block() -> list[Thumbnail]:
    """Nine places: small and large images, one of each kind, none, and a PNG that is cut off."""
    files = [a_file("png", CELL, 1), a_file("png", 20), a_file("png", 50), a_file("jpeg", CELL), a_file("webp", 90)]
    thumbnails: list[Thumbnail] = [thumbnail_of(data, CELL) for data in files]
    return [*thumbnails, None, a_file("png", CELL)[:60], *thumbnails[:2]]


@pytest.fixture
def maker() -> Iterator[SpriteMaker]:
    maker = SpriteMaker(second_process=True)
    yield maker
    maker.close()


def test_a_sprite_has_each_image_in_its_cell() -> None:
    sprite = sprite_of(a_block(), CELL)

    assert sprite.shown == [True] * 5 + [False] * 2 + [True] * 2
    pixels = np.asarray(Image.open(io.BytesIO(sprite.jpeg))).astype(int)
    assert pixels.shape == (2 * CELL, 8 * CELL, 3)
    small = np.asarray(Image.open(io.BytesIO(a_file("png", 20)))).astype(int)
    assert np.abs(pixels[:20, CELL : CELL + 20] - small).mean() < 12, "the second place, by JPEG's quality"
    assert np.abs(pixels[20:CELL, CELL : 2 * CELL] - 128).mean() < 12, "the rest of its cell"
    assert np.abs(pixels[:CELL, 5 * CELL : 7 * CELL] - 128).max() < 4, "nothing where there is no image"


def test_what_is_not_an_image_is_refused() -> None:
    with pytest.raises(ValueError, match="not an image"):
        thumbnail_of(b"text", CELL)


def test_a_second_process_makes_the_same(maker: SpriteMaker) -> None:
    made = [maker.make(block, CELL) for block in (a_block(), a_block()[:3])]

    assert [each.result() for each in made] == [sprite_of(a_block(), CELL), sprite_of(a_block()[:3], CELL)]
    assert maker._process is not None, "no sprite was made here"
    assert maker._process.poll() is None


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_if_the_second_process_has_ended_the_sprite_is_made_here(maker: SpriteMaker, end: signal.Signals) -> None:
    maker.make(a_block(), CELL).result()
    assert maker._process is not None
    maker._process.send_signal(end)
    maker._process.wait()

    assert maker.make(a_block(), CELL).result() == sprite_of(a_block(), CELL)


def test_if_no_process_can_be_started_the_sprite_is_made_here(
    maker: SpriteMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/no/python")

    assert maker.make(a_block(), CELL).result() == sprite_of(a_block(), CELL)
    assert maker._process is None


def test_its_end_ends_the_second_process() -> None:
    maker = SpriteMaker(second_process=True)
    result: Sprite = maker.make(a_block(), CELL).result()
    process = maker._process
    maker.close()

    assert result.shown
    assert process is not None
    assert process.returncode == 0


def test_a_dataset_is_published_with_the_same_files(
    made: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_module, "_MANY", 1)

    again = published(tmp_path)

    found, expected = (everything_in(each.folder / "report") for each in (again, made))
    assert found.pop("summary.js") != expected.pop("summary.js"), "another folder of the model, so another revision"
    assert found == expected
