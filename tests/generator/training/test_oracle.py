"""The color oracle: correct for true renders, and it finds nothing in blank images."""

import numpy as np
import pytest

from diffugen_generator.builtin_shapes import oracle
from generator.training import scenes


@pytest.fixture(scope="module")
def drawn() -> scenes.Scenes:
    return scenes.draw(400, np.random.default_rng(17))


def colors(drawn: scenes.Scenes, index: int) -> list[str]:
    return [color for color, _ in scenes.words_of(drawn, index).objects]


def test_true_renders_show_their_objects(drawn: scenes.Scenes) -> None:
    right = [oracle.shows(drawn.images[index], colors(drawn, index)) for index in range(400)]
    assert np.mean(right) >= 0.995


def test_masks_agree_with_the_exact_ones(drawn: scenes.Scenes) -> None:
    overlaps = []
    for index in range(100):
        for slot, found in enumerate(oracle.objects_of(drawn.images[index])):
            exact = drawn.masks[index, slot]
            overlaps.append((found.mask & exact).sum() / (found.mask | exact).sum())
    assert np.mean(overlaps) > 0.94
    assert np.min(overlaps) > 0.80


def test_objects_are_in_order_from_left_to_right(drawn: scenes.Scenes) -> None:
    for index in range(50):
        assert [each.color for each in oracle.objects_of(drawn.images[index])] == colors(drawn, index)


@pytest.mark.parametrize("background", scenes.BACKGROUNDS.values(), ids=scenes.BACKGROUNDS)
def test_a_blank_image_shows_nothing(background: tuple[int, int, int]) -> None:
    blank = np.full((64, 64, 3), background, np.uint8)
    assert oracle.objects_of(blank) == []
    assert not oracle.shows(blank, ["red"])
    assert oracle.shows(blank, [])


def test_a_wrong_or_missing_color_is_noticed(drawn: scenes.Scenes) -> None:
    pair = next(i for i in range(400) if len(colors(drawn, i)) == 2)
    first, second = colors(drawn, pair)
    other = next(name for name in scenes.COLORS if name not in (first, second))
    assert not oracle.shows(drawn.images[pair], [first])
    assert not oracle.shows(drawn.images[pair], [first, other])
    assert oracle.shows(drawn.images[pair], [second, first])


def blank_with(*boxes: tuple[slice, slice]) -> np.ndarray:
    image = np.full((64, 64, 3), scenes.BACKGROUNDS["snow"], np.uint8)
    for box in boxes:
        image[box] = scenes.COLORS["red"]
    return image


def test_too_small_and_too_large_regions_are_not_objects() -> None:
    assert oracle.objects_of(blank_with((slice(10, 15), slice(10, 15)))) == []
    assert oracle.objects_of(blank_with((slice(0, 64), slice(0, 40)))) == []


def test_an_object_in_pieces_is_not_an_object() -> None:
    halves = (slice(20, 40), slice(4, 20)), (slice(20, 40), slice(40, 56))
    assert oracle.objects_of(blank_with(*halves)) == []
    assert len(oracle.objects_of(blank_with(halves[0]))) == 1
