"""A filled polygon gives its mask back, at any scale, with holes and with scattered parts."""

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from diffugen_generator.publishing.polygons import filled, overlap, polygon_of
from generator.training import scenes

Mask = np.ndarray[tuple[int, int], np.dtype[np.bool_]]


def as_written(polygon: np.ndarray, side: int) -> np.ndarray:
    """Return a polygon after rounding to the six digits of a label file."""
    return np.round(polygon / side, 6) * side


def as_coco_fills(polygon: np.ndarray, side: int) -> Mask:
    rle = coco_mask.frPyObjects([polygon.ravel().tolist()], side, side)
    return coco_mask.decode(coco_mask.merge(rle)).astype(np.bool_)


def enlarged(mask: Mask, times: int) -> Mask:
    return np.kron(mask, np.ones((times, times), np.bool_))


def blob(side: int, *, rng: np.random.Generator, smooth: float, share: float) -> Mask:
    noise = cv2.GaussianBlur(rng.standard_normal((side, side)).astype(np.float32), (0, 0), smooth)
    return np.asarray(noise > np.quantile(noise, 1 - share))


def largest_part(mask: Mask) -> Mask:
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    return np.asarray(parts == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()))


@pytest.mark.parametrize("side", [64, 256])
@pytest.mark.parametrize("seed", range(10))
def test_random_objects_give_nearly_the_same_mask(side: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = largest_part(blob(side, rng=rng, smooth=side / 24, share=0.3))

    polygon = as_written(polygon_of(mask), side)

    assert overlap(filled(polygon, side, side), mask) >= 0.95
    assert overlap(as_coco_fills(polygon, side), mask) >= 0.95
    # Ultralytics enlarges small images to its training size before it fills polygons
    assert overlap(filled(polygon * 10, side * 10, side * 10), enlarged(mask, 10)) >= 0.95


@pytest.mark.parametrize("seed", range(10))
def test_scattered_parts_with_holes_give_nearly_the_same_mask(seed: int) -> None:
    mask = blob(64, rng=np.random.default_rng(seed), smooth=2, share=0.4)

    polygon = as_written(polygon_of(mask), 64)

    assert overlap(as_coco_fills(polygon, 64), mask) >= 0.95
    assert overlap(filled(polygon * 10, 640, 640), enlarged(mask, 10)) >= 0.95


def test_every_shape_of_the_built_in_model_gives_nearly_the_same_mask() -> None:
    drawn = scenes.draw(100, np.random.default_rng(1))
    for mask in drawn.masks[drawn.masks.any(axis=(2, 3))]:
        polygon = as_written(polygon_of(mask), scenes.SIZE)
        assert overlap(filled(polygon, scenes.SIZE, scenes.SIZE), mask) >= 0.95
        assert overlap(as_coco_fills(polygon, scenes.SIZE), mask) >= 0.95


def test_a_ring_keeps_its_hole() -> None:
    y, x = np.mgrid[:100, :100]
    distance = np.hypot(x - 50, y - 40)
    mask = (distance < 30) & (distance > 12)

    polygon = polygon_of(mask)

    assert not filled(polygon, 100, 100)[40, 50]
    assert overlap(filled(polygon, 100, 100), mask) >= 0.97


def test_two_parts_become_one_line() -> None:
    mask = np.zeros((64, 64), np.bool_)
    mask[5:25, 5:25] = mask[5:25, 28:50] = True

    polygon = as_written(polygon_of(mask), 64)

    assert overlap(as_coco_fills(polygon, 64), mask) == 1
    assert overlap(filled(polygon, 64, 64), mask) >= 0.99


def test_one_pixel_is_a_square_of_its_size() -> None:
    mask = np.zeros((8, 8), np.bool_)
    mask[3, 5] = True

    polygon = polygon_of(mask)

    assert np.allclose(sorted(polygon.tolist()), [[5.02, 3.02], [5.02, 3.98], [5.98, 3.02], [5.98, 3.98]])
    assert overlap(filled(polygon, 8, 8), mask) == 1


def test_a_mask_of_the_full_image_stays_inside_the_image() -> None:
    polygon = polygon_of(np.ones((32, 48), np.bool_))

    assert polygon.min() > 0
    assert polygon[:, 0].max() < 48
    assert polygon[:, 1].max() < 32
    assert filled(polygon, 32, 48).all()


def test_an_empty_mask_gives_no_polygon() -> None:
    assert polygon_of(np.zeros((8, 8), np.bool_)).shape == (0, 2)


def test_a_smooth_outline_has_few_points() -> None:
    y, x = np.mgrid[:512, :512]
    mask = np.hypot(x - 250, y - 260) < 120

    polygon = polygon_of(mask)

    assert len(polygon) < 200
    assert overlap(filled(polygon, 512, 512), mask) >= 0.98
