"""From detections to instances: thresholds, classes by name, agreement with attention; without torch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from diffugen_api.plan import Sample
from diffugen_api.recipes import DETECTOR
from diffugen_api.v1alpha1 import DetectorLabeling, ObjectClass
from diffugen_generator.labeling.decide.agreement import agree
from diffugen_generator.labeling.decide.from_detections import choose
from diffugen_generator.labeling.evidence.detections import Detections
from diffugen_generator.labeling.findings import Findings, label_of
from diffugen_generator.samples.labels import Instance
from diffugen_generator.samples.shards import ShardHeader
from tests.generator.made import an_instance


def box(x: int, y: int, width: int, height: int) -> NDArray[np.bool_]:
    mask = np.zeros((40, 60), np.bool_)
    mask[y : y + height, x : x + width] = True
    return mask


def seen(*answers: tuple[NDArray[np.bool_], str, float]) -> Detections:
    masks = np.stack([mask for mask, *_ in answers]) if answers else np.zeros((0, 40, 60), np.bool_)
    return Detections.of(masks, [native for _, native, _ in answers], [score for *_, score in answers])


def a_detector(**settings: object) -> DetectorLabeling:
    return DetectorLabeling.model_validate({"type": "transformers", "model": "/models/any", **settings})


def chosen(
    detections: Detections, *classes: str | ObjectClass, prompt: str = "", **settings: object
) -> list[tuple[str, float]]:
    known = [each if isinstance(each, ObjectClass) else ObjectClass(name=each) for each in classes]
    return [(each.class_name, each.score) for each in choose(detections, a_detector(**settings), known, prompt)]


SEDAN_AND_SUV = (
    ObjectClass.model_validate({"name": "sedan", "synonyms": ["saloon"], "detectorClass": "car"}),
    ObjectClass.model_validate({"name": "suv", "detectorClass": "car"}),
)


RING = box(10, 10, 20, 20) & ~box(15, 15, 10, 10)
TWO_PARTS = box(0, 0, 5, 5) | box(50, 30, 5, 5)


def test_detections_are_read_from_their_file_with_holes_and_parts() -> None:
    detections = seen((RING, "ring", 0.9), (TWO_PARTS, "pair", 0.8))

    again = Detections.loads(detections.dumps())

    assert again == detections
    assert detections.dumps() == again.dumps()
    np.testing.assert_array_equal(again.found[0].mask.mask(), RING)
    np.testing.assert_array_equal(again.found[1].mask.mask(), TWO_PARTS)


def test_an_instance_keeps_holes_and_parts() -> None:
    instances = choose(seen((RING, "ring", 0.9), (TWO_PARTS, "pair", 0.8)), a_detector(), CLASSES, "")

    assert [(each.area, each.bbox) for each in instances] == [(300, (10, 10, 20, 20)), (50, (0, 0, 55, 35))]
    np.testing.assert_array_equal(instances[0].segmentation.mask(), RING)


CLASSES = [ObjectClass(name="ring"), ObjectClass(name="pair")]


@pytest.mark.parametrize("data", [b"", b"not a zip", Findings().__repr__().encode()])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a file of detections"):
        Detections.loads(data)


def test_the_best_come_first_and_those_with_too_low_scores_are_dropped() -> None:
    detections = seen((box(0, 0, 5, 5), "a", 0.3), (box(9, 0, 5, 5), "b", 0.7), (box(20, 0, 5, 5), "c", 0.01))

    assert [each.native for each in detections.found] == ["b", "a"]


def test_an_empty_mask_gives_no_detection() -> None:
    assert seen((box(0, 0, 0, 0), "a", 0.9)).found == ()


@pytest.mark.parametrize(("confidence", "expected"), [(0.25, 2), (0.6, 1), (0.95, 0)])
def test_the_confidence_threshold_is_applied_to_the_evidence(confidence: float, expected: int) -> None:
    detections = seen((box(0, 0, 9, 9), "car", 0.9), (box(30, 0, 9, 9), "car", 0.5))

    assert len(chosen(detections, "car", confidence=confidence)) == expected


@pytest.mark.parametrize(("iou", "expected"), [(0.7, 1), (0.85, 2)])
def test_of_two_detections_of_one_object_the_better_is_kept(iou: float, expected: int) -> None:
    detections = seen((box(0, 0, 10, 10), "car", 0.6), (box(0, 0, 10, 8), "car", 0.9))  # they overlap by 0.8

    assert [score for _, score in chosen(detections, "car", iou=iou)] == [0.9, 0.6][:expected]


def test_objects_of_different_classes_may_overlap() -> None:
    detections = seen((box(0, 0, 10, 10), "car", 0.6), (box(0, 0, 10, 10), "person", 0.9))

    assert chosen(detections, "car", "person") == [("car", 0.6), ("person", 0.9)]


def test_classes_that_are_not_requested_are_left_out() -> None:
    assert chosen(seen((box(0, 0, 9, 9), "dog", 0.9)), "car") == []


def test_names_are_compared_without_regard_to_case() -> None:
    assert chosen(seen((box(0, 0, 9, 9), "Car", 0.9)), "car") == [("car", 0.9)]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a red suv", ["suv"]),
        ("a sedan in snow", ["sedan"]),
        ("a saloon in snow", ["sedan"]),
        ("a sedan and an suv", []),
        ("a street", []),
    ],
)
def test_the_prompt_chooses_among_classes_that_share_a_detector_class(prompt: str, expected: list[str]) -> None:
    found = chosen(seen((box(0, 0, 9, 9), "car", 0.9)), *SEDAN_AND_SUV, prompt=prompt)

    assert [name for name, _ in found] == expected


def labeled(prompt: str, words: dict[str, tuple[str, ...]], *tokens: str) -> list[str]:
    """Return the classes that one detection of a car gets."""
    header = ShardHeader(
        stage="recolor", kind="inpaint", revision="0" * 10, index=0, model="/models/any", model_digest="", drawing={},
        evidence_id="", label_id="l" * 32, attention=None, classes=SEDAN_AND_SUV, detector=a_detector(), tokens=tokens,
    )  # fmt: skip
    sample = Sample("0" * 32, prompt, 1, 0, {}, words=words)
    found = Findings(beside={DETECTOR: seen((box(0, 0, 9, 9), "car", 0.9))})
    label = label_of(sample, np.zeros((40, 60, 3), np.uint8), found, header)
    return [each.class_name for each in label.instances]


@pytest.mark.parametrize(
    ("prompt", "words", "expected"),
    [
        ("a yellow camaro", {"sedan": ("yellow camaro",)}, ["sedan"]),
        ("a yellow camaro", {}, []),
        ("a yellow camaro and an suv", {"sedan": ("yellow camaro",)}, []),
    ],
)
def test_a_replacement_chooses_like_the_class_that_it_replaces(
    prompt: str, words: dict[str, tuple[str, ...]], expected: list[str]
) -> None:
    assert labeled(prompt, words) == expected


def test_a_word_inside_a_token_chooses_no_class() -> None:
    assert labeled("an suv, <sedan-accident>", {}) == []
    assert labeled("an suv, <sedan-accident>", {}, "<sedan-accident>") == ["suv"]


def test_open_vocabulary_detections_map_from_words_to_classes() -> None:
    settings = {"type": "open-vocabulary", "maskModel": "/models/sam"}
    piano = ObjectClass.model_validate({"name": "piano", "synonyms": ["grand piano"]})
    detections = seen((box(0, 0, 9, 9), "grand piano", 0.9), (box(30, 0, 9, 9), "piano", 0.8))

    assert chosen(detections, piano, **settings) == [("piano", 0.9), ("piano", 0.8)]


def instances(*answers: tuple[NDArray[np.bool_], str, float]) -> list[Instance]:
    return [an_instance(name, mask, score) for mask, name, score in answers]


def test_objects_of_both_labelers_are_kept_with_the_detectors_mask_and_all_scores() -> None:
    attention = instances((box(0, 0, 10, 10), "ball", 0.6))
    detector = instances((box(0, 0, 10, 8), "ball", 0.9))

    standing, marked = agree(attention, detector, 0.5)

    assert [each.segmentation for each in standing] == [detector[0].segmentation]
    assert standing[0].scores == {"detector": 0.9, "attention": 0.6, "iou": pytest.approx(0.8)}
    assert marked == []


@pytest.mark.parametrize(
    ("attention", "detector", "expected"),
    [
        ([], [(box(0, 0, 9, 9), "ball", 0.9)], [("detector", "NotSeenByOther", 0.0)]),
        ([(box(0, 0, 9, 9), "ball", 0.9)], [], [("attention", "NotSeenByOther", 0.0)]),
        (
            [(box(0, 0, 10, 10), "ball", 0.9)],
            [(box(0, 0, 10, 4), "ball", 0.9)],
            [("detector", "OverlapTooSmall", 0.4), ("attention", "OverlapTooSmall", 0.4)],
        ),
        (
            [(box(0, 0, 10, 10), "ball", 0.9)],
            [(box(0, 0, 10, 8), "star", 0.9)],
            [("detector", "ClassDiffers", 0.8), ("attention", "ClassDiffers", 0.8)],
        ),
    ],
)
def test_other_objects_are_marked_with_a_reason(
    attention: list[tuple[NDArray[np.bool_], str, float]],
    detector: list[tuple[NDArray[np.bool_], str, float]],
    expected: list[tuple[str, str, float]],
) -> None:
    standing, marked = agree(instances(*attention), instances(*detector), 0.5)

    assert standing == []
    assert [(each.by, each.reason) for each in marked] == [(by, reason) for by, reason, _ in expected]
    assert [each.overlap for each in marked] == pytest.approx([overlap for *_, overlap in expected])


def test_an_object_agrees_with_at_most_one_other() -> None:
    attention = instances((box(0, 0, 10, 10), "ball", 0.6))
    detector = instances((box(0, 0, 10, 7), "ball", 0.9), (box(0, 0, 10, 9), "ball", 0.8))

    standing, marked = agree(attention, detector, 0.5)

    assert [each.score for each in standing] == [0.8]
    assert [(each.instance.score, each.reason) for each in marked] == [(0.9, "OverlapTooSmall")]


def test_a_least_agreement_of_zero_still_needs_an_overlap() -> None:
    standing, marked = agree(instances((box(0, 0, 5, 5), "ball", 0.6)), instances((box(30, 0, 5, 5), "ball", 0.9)), 0.0)

    assert (standing, len(marked)) == ([], 2)


def test_deciding_does_not_import_torch() -> None:
    code = (
        "import sys, diffugen_generator.labeling.findings, diffugen_generator.models.side_models,"
        "diffugen_generator.quality.duplicates;"
        "sys.exit('torch' in sys.modules or 'scipy' in sys.modules or 'ultralytics' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
