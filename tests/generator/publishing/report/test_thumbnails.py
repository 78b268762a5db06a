"""The sprites of the report: each image in its cell, and nothing where there is none."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from diffugen_generator.publishing.report.thumbnails import Thumbnail, sprite_of, thumbnail_of

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
