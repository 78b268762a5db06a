"""Drawn scenes: exact masks, objects side by side, captions that name the objects."""

import numpy as np
import pytest

from diffugen_generator.builtin_shapes.outlines import AREAS, outlines
from generator.training import scenes


@pytest.fixture(scope="module")
def drawn() -> scenes.Scenes:
    return scenes.draw(300, np.random.default_rng(5))


def test_the_same_seed_draws_the_same_scenes() -> None:
    one, other = (scenes.draw(8, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(one.images, other.images)
    assert np.array_equal(one.masks, other.masks)


def test_arrays_have_the_documented_shapes(drawn: scenes.Scenes) -> None:
    assert drawn.images.shape == (300, 64, 64, 3)
    assert drawn.masks.shape == (300, 2, 64, 64)
    assert drawn.classes.shape == drawn.colors.shape == (300, 2)


def test_there_is_a_mask_for_each_object_and_no_other(drawn: scenes.Scenes) -> None:
    assert np.array_equal(drawn.masks.any(axis=(2, 3)), drawn.classes != scenes.NOTHING)
    assert np.array_equal(drawn.colors != scenes.NOTHING, drawn.classes != scenes.NOTHING)


def test_two_objects_differ_and_are_separate_from_left_to_right(drawn: scenes.Scenes) -> None:
    pair = drawn.classes[:, 1] != scenes.NOTHING
    assert (drawn.classes[pair, 0] != drawn.classes[pair, 1]).all()
    assert (drawn.colors[pair, 0] != drawn.colors[pair, 1]).all()
    assert not (drawn.masks[:, 0] & drawn.masks[:, 1]).any()
    columns = np.arange(scenes.SIZE)
    centre = (drawn.masks[pair].sum(axis=2) * columns).sum(axis=2) / drawn.masks[pair].sum(axis=(2, 3))
    assert (centre[:, 0] < centre[:, 1]).all()


@pytest.mark.parametrize("kind", range(len(scenes.CLASSES)))
def test_areas_are_as_documented(kind: int) -> None:
    middle = np.full(1, 31.4)
    mask = outlines(kind, radius=20.0, x=middle, y=middle, turn=np.full(1, 0.1))
    assert mask.sum() / 400 == pytest.approx(AREAS[kind], rel=0.03)


def test_the_share_of_pairs_is_as_requested() -> None:
    one = scenes.draw(50, np.random.default_rng(1), two=0.0)
    two = scenes.draw(50, np.random.default_rng(1), two=1.0)
    assert (one.classes[:, 1] == scenes.NOTHING).all()
    assert (two.classes[:, 1] != scenes.NOTHING).all()


def test_full_captions_name_objects_from_left_to_right() -> None:
    words = scenes.Words((("red", "ball"), ("blue", "star")), "snow")
    assert scenes.full_caption(words) == "a red ball and a blue star on snow"


def test_random_captions_leave_words_out_and_never_add_any() -> None:
    words = scenes.Words((("red", "ball"), ("blue", "star")), "snow")
    rng = np.random.default_rng(2)
    captions = [scenes.drawn_caption(words, rng) for _ in range(500)]
    assert {"", "ball and star", "a red ball and a blue star on snow", "a ball and a star"} <= set(captions)
    assert {word for caption in captions for word in caption.split()} == {
        "a",
        "photo",
        "of",
        "red",
        "ball",
        "and",
        "blue",
        "star",
        "on",
        "snow",
    }
