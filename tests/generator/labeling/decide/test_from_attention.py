"""Decisions: from evidence and image to instances, by pure functions and without a model."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from diffugen_api.v1alpha1 import AttentionLabeling
from diffugen_generator.labeling.decide.from_attention import decision_of
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.samples.labels import Instance, Label, Rle, dumps_label, loads
from tests.generator.made import objects_in

RAW = AttentionLabeling(threshold=0.5, snap=False)
SNAP = AttentionLabeling(threshold=0.4, snap=True)
GREY = np.full((64, 64, 3), 128, np.uint8)


def disc(x: float, y: float, radius: float, size: int = 64) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:size, :size]
    return np.asarray(np.hypot(columns - x, rows - y) <= radius)


def seen(**masks: NDArray[np.bool_]) -> AttentionMaps:
    """Evidence that is a coarse, blurred version of `masks`; names with a leading underscore are background words."""
    names = [*(n for n in masks if not n.startswith("_")), *(n for n in masks if n.startswith("_"))]
    maps = []
    for name in names:
        coarse = cv2.resize(masks[name].astype(np.float32), (16, 16), interpolation=cv2.INTER_AREA)
        blurred = cv2.GaussianBlur(coarse, (0, 0), 0.8)
        maps.append(np.round(255 * (blurred - blurred.min()) / np.ptp(blurred)).astype(np.uint8))
    classes = tuple(n for n in names if not n.startswith("_"))
    return AttentionMaps(classes, tuple(n[1:] for n in names if n.startswith("_")), np.stack(maps))


def painted(*parts: tuple[NDArray[np.bool_], tuple[int, int, int]], noise: float = 6.0) -> NDArray[np.uint8]:
    image = np.full((*parts[0][0].shape, 3), 200.0)
    for mask, color in parts:
        image[mask] = color
    image += np.random.default_rng(0).normal(0, noise, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_an_object_gets_class_score_box_area_and_mask() -> None:
    ball = disc(20, 30, 12)

    (found,) = objects_in(seen(ball=ball), GREY, RAW)

    mask = found.segmentation.mask()
    assert found.class_name == "ball"
    assert overlap(mask, ball) > 0.85
    assert found.area == mask.sum()
    x, y, width, height = (int(value) for value in found.bbox)
    inside_box = np.zeros_like(mask)
    inside_box[y : y + height, x : x + width] = True
    assert not (mask & ~inside_box).any()
    assert mask[y].any()
    assert mask[y + height - 1].any()
    assert mask[:, x].any()
    assert mask[:, x + width - 1].any()
    assert 0.5 < found.score <= 1


def test_a_prompt_without_a_class_gives_no_label() -> None:
    assert objects_in(AttentionMaps((), (), np.zeros((0, 16, 16), np.uint8)), GREY, SNAP) == []
    assert objects_in(seen(_snow=disc(32, 32, 20)), GREY, SNAP) == []


def test_a_map_that_is_the_same_everywhere_gives_no_label() -> None:
    assert objects_in(AttentionMaps(("ball",), (), np.full((1, 16, 16), 90, np.uint8)), GREY, SNAP) == []


def test_words_compete_where_one_has_attention_on_the_others_object() -> None:
    ball, star = disc(16, 32, 10), disc(47, 32, 10)
    both = seen(ball=ball, star=star)
    leaking = np.maximum(both.maps[1], (both.maps[0] * 0.8).astype(np.uint8))  # "star" also has attention on the ball
    evidence = AttentionMaps(both.classes, (), np.stack([both.maps[0], leaking]))

    found = {i.class_name: i.segmentation.mask() for i in objects_in(evidence, GREY, RAW)}

    assert overlap(found["ball"], ball) > 0.8
    assert overlap(found["star"], star) > 0.8


def test_a_background_word_takes_its_pixels_and_gives_no_label() -> None:
    ball = disc(32, 32, 12)
    wide = seen(ball=disc(32, 32, 20)).maps[0]
    snow = seen(snow=~ball).maps[0]

    (alone,) = objects_in(AttentionMaps(("ball",), (), wide[None]), GREY, RAW)
    (against,) = objects_in(AttentionMaps(("ball",), ("snow",), np.stack([wide, snow])), GREY, RAW)

    assert against.area < alone.area
    assert against.class_name == "ball"


def test_two_objects_of_one_class_are_two_instances_the_larger_first() -> None:
    found = objects_in(seen(ball=disc(14, 14, 9) | disc(46, 46, 13)), GREY, RAW)

    assert [i.class_name for i in found] == ["ball", "ball"]
    assert found[0].area > found[1].area


def test_specks_are_dropped_and_holes_stay() -> None:
    maps = np.zeros((1, 64, 64), np.uint8)
    maps[0][disc(30, 30, 20) & ~disc(30, 30, 8)] = 255
    maps[0, 2:4, 60:62] = 255  # 4 of some 1,050 pixels

    (found,) = objects_in(AttentionMaps(("ring",), (), maps), GREY, RAW)

    assert not found.segmentation.mask()[30, 30]
    assert not found.segmentation.mask()[3, 60]


def test_snapping_finds_the_borders_in_the_image() -> None:
    ball, star = disc(17, 30, 11), disc(47, 34, 10)
    image = painted((ball, (200, 40, 40)), (star, (40, 60, 210)))
    evidence = seen(ball=ball, star=star)

    def quality(settings: AttentionLabeling) -> float:
        found = {i.class_name: i.segmentation.mask() for i in objects_in(evidence, image, settings)}
        return (overlap(found["ball"], ball) + overlap(found["star"], star)) / 2

    assert quality(SNAP) > 0.97
    assert quality(SNAP) > quality(RAW) + 0.05


def test_snapping_without_a_border_in_the_image_stays_near_the_maps() -> None:
    ball = disc(30, 30, 14)

    (found,) = objects_in(seen(ball=ball), painted((ball, (200, 200, 200))), SNAP)

    assert overlap(found.segmentation.mask(), ball) > 0.5


@pytest.mark.parametrize(("height", "width"), [(48, 80), (64, 64), (600, 400)])
def test_masks_have_the_size_of_the_image(height: int, width: int) -> None:
    found = objects_in(seen(ball=disc(32, 32, 14)), np.zeros((height, width, 3), np.uint8), SNAP)

    assert [i.segmentation.size for i in found] == [(height, width)]


def test_the_same_evidence_gives_the_same_bytes_in_every_thread() -> None:
    ball = disc(30, 30, 14)
    evidence, image = seen(ball=ball), painted((ball, (200, 60, 60)), noise=30.0)

    def label(_: int) -> bytes:
        return dumps_label(Label("0" * 32, tuple(objects_in(evidence, image, SNAP))))

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(label, range(12)))) == 1


def test_an_image_of_512_pixels_takes_a_fraction_of_a_second() -> None:
    ball = disc(250, 250, 120, size=512)
    evidence, image = seen(ball=ball), painted((ball, (200, 60, 60)), noise=15.0)

    started = time.thread_time()
    objects_in(evidence, image, SNAP)

    assert time.thread_time() - started < 0.6


@pytest.mark.parametrize("fade", [0.4, 0.55, 0.7])
def test_an_automatic_threshold_finds_the_border_at_any_level_of_the_map(fade: float) -> None:
    ball = disc(30, 30, 13)
    rows, columns = np.mgrid[:64, :64]
    slope = fade - (np.hypot(columns - 30, rows - 30) - 13) / 20  # `fade` is the map's value on the border
    maps = np.clip(255 * slope, 0, 255).astype(np.uint8)[None]
    image = painted((ball, (200, 60, 60)), noise=3.0)

    def quality(threshold: float | str) -> float:
        settings = AttentionLabeling.model_validate({"threshold": threshold, "snap": False})
        (found,) = objects_in(AttentionMaps(("ball",), (), maps), image, settings)
        return overlap(found.segmentation.mask(), ball)

    assert quality("auto") > 0.9
    assert quality("auto") >= quality(0.4) - 0.02


def test_pixels_near_the_threshold_are_ignored_if_the_settings_ask_for_it() -> None:
    ball, star = disc(16, 32, 10), disc(47, 32, 10)
    evidence = seen(ball=ball, star=star)

    none = decision_of(evidence, GREY, RAW)
    some = decision_of(evidence, GREY, RAW.model_copy(update={"ignore_band": 0.3}))

    assert none.ignored == []
    assert some.instances == none.instances
    assert [region.class_name for region in some.ignored] == ["ball", "star"]
    for region, instance, whole in zip(some.ignored, some.instances, (ball, star), strict=True):
        band, mask = region.segmentation.mask(), instance.segmentation.mask()
        assert band.any()
        assert not (band & mask).any()
        assert not (whole & ~mask & ~band).any(), "what the label misses of the object is in the band"
    label = Label("ab" * 16, tuple(some.instances), ignored=tuple(some.ignored))
    assert loads(dumps_label(label)).ignored == label.ignored


def test_the_same_evidence_is_always_written_as_the_same_bytes() -> None:
    evidence = seen(ball=disc(30, 30, 14), _snow=disc(10, 10, 14))
    first = evidence.dumps()
    time.sleep(2.1)  # times of zip entries have a resolution of two seconds

    again = AttentionMaps.loads(first)

    assert evidence.dumps() == first == again.dumps()
    assert (again.classes, again.background) == (("ball",), ("snow",))
    assert np.array_equal(again.maps, evidence.maps)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"not a zip"])
def test_data_that_is_not_evidence_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not an evidence file"):
        AttentionMaps.loads(data)


def test_a_label_file_reads_as_it_was_written() -> None:
    mask = disc(20, 30, 9) & ~disc(20, 30, 3)
    instance = Instance("ball", 0.875, (11.0, 21.0, 19.0, 19.0), int(mask.sum()), Rle.of(mask))

    label = loads(dumps_label(Label("ab" * 16, (instance,))))

    assert label == Label("ab" * 16, (instance,))
    assert np.array_equal(label.instances[0].segmentation.mask(), mask)


def test_data_that_is_not_a_label_is_refused() -> None:
    with pytest.raises(ValueError, match="not a label file"):
        loads(b'{"id": "x", "instances": [{}]}')


def test_deciding_does_not_import_torch() -> None:
    code = (
        "import sys, diffugen_generator.stages, diffugen_generator.labeling.decide.from_attention;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
