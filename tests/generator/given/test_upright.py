"""Stored files of given images: byte for byte if every reader shows them alike, otherwise as PNG."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from diffugen_generator.given.upright import UnusableError, upright
from diffugen_generator.samples import image_files

HEIGHT, WIDTH = 24, 32


def an_image() -> np.ndarray:
    """Return [h, w, 3] with a red upper left corner and a blue lower right one; all four corners differ."""
    raster = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    raster[:8, :8], raster[-8:, -8:], raster[:8, -8:] = (250, 0, 0), (0, 0, 250), (0, 250, 0)
    return raster


def file_of(image: Image.Image | np.ndarray, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, kind, **options)
    return stream.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("png", {}),
        ("jpeg", {}),
        ("webp", {"lossless": True}),
        ("jpeg", {"exif": turned(1)}),
        ("jpeg", {"exif": turned(0)}),
        ("jpeg", {"exif": b"Exif\x00\x00nonsense"}),
    ],
)
def test_an_upright_rgb_file_is_kept_byte_for_byte(kind: str, options: dict[str, Any]) -> None:
    data = file_of(an_image(), kind, **options)

    kept = upright(data)

    assert (kept.file(), kept.format, kept.width, kept.height) == (data, kind, WIDTH, HEIGHT)
    assert kept.converted == {}


def test_rgb_of_16_bits_is_kept_byte_for_byte_as_all_readers_use_its_upper_8() -> None:
    data = cv2.imencode(".png", an_image()[..., ::-1].astype(np.uint16) * 256 + 77)[1].tobytes()

    assert upright(data).file() == data
    assert np.array_equal(image_files.decode(data), an_image())
    read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert read is not None
    assert np.array_equal(read, an_image())


def test_a_cameras_jpeg_with_a_second_image_after_it_is_kept_byte_for_byte() -> None:
    data = file_of(an_image(), "mpo", save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))])

    kept = upright(data)

    assert (kept.file(), kept.format) == (data, "jpeg")


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_a_turned_image_is_kept_as_opencv_shows_it(orientation: int, kind: str) -> None:
    data = file_of(an_image(), kind, exif=turned(orientation), **({"quality": 100} if kind == "jpeg" else {}))

    kept = upright(data)

    pixels = image_files.decode(kept.file())
    shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if kind == "jpeg" else None
    if shown is not None:
        assert np.array_equal(pixels, shown)
    assert pixels.shape[:2] == (kept.height, kept.width) == ((WIDTH, HEIGHT) if orientation > 4 else (HEIGHT, WIDTH))
    assert not Image.open(io.BytesIO(kept.file())).getexif()  # no reader turns it a second time
    assert kept.converted == {"format": kind, "mode": "RGB", "orientation": orientation}


def with_alpha() -> Image.Image:
    image = Image.fromarray(np.dstack([an_image(), np.full((HEIGHT, WIDTH), 255, np.uint8)]))
    image.putpixel((0, 0), (250, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 128))
    return image


def with_palette() -> Image.Image:
    image = Image.new("P", (WIDTH, HEIGHT), 1)
    image.putpalette([10, 20, 30, 200, 100, 50, 0, 0, 0])
    image.putpixel((0, 0), 0)
    return image


GREY = an_image()[..., 0]
SIXTEEN = GREY.astype(np.uint16) * 256 + 77


@pytest.mark.parametrize(
    ("data", "mode", "there"),
    [
        (file_of(with_alpha(), "png"), "RGBA", {(0, 0): (255, 255, 255), (1, 0): (127, 127, 127), (2, 0): (250, 0, 0)}),
        (file_of(with_alpha(), "webp", lossless=True), "RGBA", {(0, 0): (255, 255, 255), (2, 0): (250, 0, 0)}),
        (file_of(with_palette(), "png"), "P", {(0, 0): (10, 20, 30), (5, 5): (200, 100, 50)}),
        (file_of(with_palette(), "png", transparency=0), "P", {(0, 0): (255, 255, 255), (5, 5): (200, 100, 50)}),
        (file_of(with_palette(), "gif"), "P", {(0, 0): (10, 20, 30), (5, 5): (200, 100, 50)}),
        (file_of(GREY, "png"), "L", {(0, 0): (250, 250, 250), (12, 12): (90, 90, 90)}),
        (file_of(GREY, "jpeg", quality=100), "L", {(0, 0): (250, 250, 250), (12, 12): (90, 90, 90)}),
        (file_of(SIXTEEN, "png"), "I;16", {(0, 0): (250, 250, 250), (12, 12): (90, 90, 90)}),
        (file_of(SIXTEEN, "tiff"), "I;16", {(0, 0): (250, 250, 250), (12, 12): (90, 90, 90)}),
        (file_of(GREY > 100, "png"), "1", {(0, 0): (255, 255, 255), (12, 12): (0, 0, 0)}),
        (file_of(an_image(), "bmp"), "RGB", {(0, 0): (250, 0, 0), (31, 23): (0, 0, 250)}),
        (file_of(an_image(), "tiff"), "RGB", {(0, 0): (250, 0, 0), (31, 23): (0, 0, 250)}),
        (file_of(Image.fromarray(an_image()).convert("CMYK"), "jpeg", quality=100), "CMYK", {}),
    ],
)  # fmt: skip
def test_an_image_in_another_mode_is_kept_as_rgb(
    data: bytes, mode: str, there: dict[tuple[int, int], tuple[int, int, int]]
) -> None:
    kept = upright(data)

    pixels = image_files.decode(kept.file())
    assert (kept.format, kept.converted["mode"], pixels.shape) == ("png", mode, (HEIGHT, WIDTH, 3))
    assert {place: tuple(pixels[place[1], place[0]]) for place in there} == there
    assert upright(kept.file()).converted == {}


def test_a_turned_gray_image_of_16_bits_is_turned_and_stays_gray() -> None:
    kept = upright(file_of(SIXTEEN, "png", exif=turned(6)))

    pixels = image_files.decode(kept.file())
    assert pixels.shape == (WIDTH, HEIGHT, 3)
    assert pixels[0, -1].tolist() == [250, 250, 250]  # the upper left corner, turned clockwise
    assert kept.converted == {"format": "png", "mode": "I;16", "orientation": 6}


FRAMES = [Image.new("RGB", (WIDTH, HEIGHT), color) for color in ("red", "blue")]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "Unreadable"),
        (b"no image", "Unreadable"),
        (file_of(an_image(), "png")[:90], "Unreadable"),
        (file_of(with_alpha(), "png")[:90], "Unreadable"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n", "Unreadable"),
        (file_of(FRAMES[0], "gif", save_all=True, append_images=FRAMES[1:]), "UnsupportedFormat"),
        (file_of(FRAMES[0], "webp", save_all=True, append_images=FRAMES[1:]), "UnsupportedFormat"),
        (file_of(FRAMES[0], "tiff", save_all=True, append_images=FRAMES[1:]), "UnsupportedFormat"),
        (file_of(GREY.astype(np.float32), "tiff"), "UnsupportedFormat"),
        (file_of(an_image()[:8], "png"), "UnsupportedSize"),
    ],
)
def test_files_that_cannot_be_labeled_are_named(data: bytes, reason: str) -> None:
    with pytest.raises(UnusableError) as told:
        upright(data)

    assert told.value.reason == reason
