"""Near duplicates: found from perceptual hashes alone; the image with the first id is kept."""

from __future__ import annotations

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageFilter

from diffugen_generator.labeling.evidence.image_statistics import BLANK, statistics_of
from diffugen_generator.quality.duplicates import Duplicates, Hashed
from generator.training import scenes


def hashed(number: int, value: int) -> Hashed:
    return Hashed(f"{number:032x}", f"{value:016x}")


def brute(rasters: list[Hashed], most: int) -> dict[str, str]:
    """Compare each image with all kept ones, in the order of the ids."""
    standing: list[Hashed] = []
    found = {}
    for each in sorted(rasters, key=lambda each: each.id):
        alike = [one for one in standing if (int(one.hash, 16) ^ int(each.hash, 16)).bit_count() <= most]
        if alike:
            found[each.id] = alike[0].id
        else:
            standing.append(each)
    return found


@pytest.mark.parametrize("shape", [(64, 64), (120, 200), (33, 17)])
def test_the_hash_equals_that_of_imagehash(shape: tuple[int, int]) -> None:
    for image in scenes.draw(20, np.random.default_rng(1)).images:
        sized = Image.fromarray(image).resize(shape)
        assert statistics_of(np.asarray(sized)).hash == str(imagehash.phash(sized))


def test_a_slightly_changed_image_has_nearly_the_same_hash() -> None:
    image = scenes.draw(1, np.random.default_rng(2)).images[0]
    blurred = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1)))

    one, other = int(statistics_of(image).hash, 16), int(statistics_of(blurred).hash, 16)

    assert (one ^ other).bit_count() <= 4


@pytest.mark.parametrize("most", [0, 1, 4, 10])
def test_they_are_the_same_as_with_comparing_all_pairs(most: int) -> None:
    rng = np.random.default_rng(most)
    rasters = []
    for number in rng.permutation(300):
        value = int(rng.integers(40)) * 0x9E3779B97F4A7C15 % 2**64  # forty images, each several times
        for bit in rng.integers(64, size=int(rng.integers(most + 3))):
            value ^= 1 << int(bit)
        rasters.append(hashed(int(number), value))
    expected = brute(rasters, most)

    duplicates = Duplicates(rasters, most)

    assert {each.id: duplicates.original_of(each.id) for each in rasters if duplicates.original_of(each.id)} == expected
    assert len(duplicates) == len(expected) > 0


def test_the_first_by_id_is_kept_in_any_order() -> None:
    duplicates = Duplicates([hashed(7, 1), hashed(3, 1), hashed(5, 1)], 0)

    assert [duplicates.original_of(hashed(number, 1).id) for number in (3, 5, 7)] == [
        "",
        hashed(3, 1).id,
        hashed(3, 1).id,
    ]


def test_no_images_give_no_duplicates() -> None:
    assert len(Duplicates([], 4)) == 0
    assert Duplicates([], 4).original_of("0" * 32) == ""


@pytest.mark.parametrize("value", [0, 128, 255])
def test_an_image_of_one_color_is_blank(value: int) -> None:
    statistics = statistics_of(np.full((64, 64, 3), value, np.uint8))

    assert statistics.deviation == 0


def test_a_dark_image_is_not_blank() -> None:
    night = scenes.draw(1, np.random.default_rng(3)).images[0] // 8

    assert statistics_of(night).deviation >= BLANK
