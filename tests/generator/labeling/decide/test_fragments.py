"""A small part of one class at another class's object goes to that object, or to the background."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from diffugen_api.v1alpha1 import AttentionLabeling
from diffugen_generator.labeling.decide.from_attention import decision_of
from diffugen_generator.labeling.decide.instances import NOTHING, without_fragments
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps

SQUARE, TRIANGLE = 0, 1


def owners_with(*boxes: tuple[int, int, int, int, int]) -> NDArray[np.int32]:
    """Return owners of 64 x 64 pixels; each box is a class, x, y, width and height."""
    owners = np.full((64, 64), NOTHING, np.int32)
    for owner, x, y, width, height in boxes:
        owners[y : y + height, x : x + width] = owner
    return owners


OBJECTS = ((SQUARE, 2, 40, 20, 20), (TRIANGLE, 36, 20, 20, 40))


def test_a_fragment_at_another_object_goes_to_that_object() -> None:
    owners = owners_with(*OBJECTS, (SQUARE, 44, 20, 4, 4))

    found = without_fragments(owners, 0.2)

    assert (found == owners_with(*OBJECTS, (TRIANGLE, 44, 20, 4, 4))).all()
    assert (owners[20:24, 44:48] == SQUARE).all(), "the input is not changed"


def test_a_fragment_that_hardly_touches_goes_to_the_background() -> None:
    owners = owners_with(*OBJECTS, (SQUARE, 38, 4, 2, 16))

    assert (without_fragments(owners, 0.2) == owners_with(*OBJECTS)).all()


@pytest.mark.parametrize(
    "more",
    [
        (SQUARE, 30, 2, 4, 4),  # touches nothing
        (SQUARE, 44, 20, 12, 20),  # as large as an object
    ],
)
def test_other_parts_stay(more: tuple[int, int, int, int, int]) -> None:
    owners = owners_with(*OBJECTS, more)

    assert (without_fragments(owners, 0.2) == owners).all()


def test_the_only_part_of_a_class_stays() -> None:
    owners = owners_with((TRIANGLE, 36, 20, 20, 40), (SQUARE, 44, 20, 4, 4))

    assert (without_fragments(owners, 0.5) == owners).all()


@pytest.mark.parametrize(("fraction", "squares"), [(0, 2), (0.2, 1)])
def test_the_setting_decides(fraction: float, squares: int) -> None:
    owners = owners_with(*OBJECTS, (SQUARE, 44, 24, 6, 6))
    maps = np.stack([(owners == each) * np.uint8(255) for each in (SQUARE, TRIANGLE)])
    evidence = AttentionMaps(("square", "triangle"), (), maps)
    settings = AttentionLabeling(snap=False, fragment_fraction=fraction)

    found = decision_of(evidence, np.zeros((64, 64, 3), np.uint8), settings).instances

    assert [each.class_name for each in found].count("square") == squares
    triangle = next(each for each in found if each.class_name == "triangle")
    assert triangle.area == (800 if fraction else 800 - 36)
