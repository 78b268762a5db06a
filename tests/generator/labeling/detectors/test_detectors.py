"""Running detectors: wiring and coordinates of each kind, and the built-in detector compared with known masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from diffugen_api.errors import SpecError
from diffugen_api.v1alpha1 import DetectorLabeling, ObjectClass
from diffugen_generator.labeling.decide.from_detections import choose
from diffugen_generator.labeling.detectors.clip import Clip, open_clip
from diffugen_generator.labeling.detectors.open_vocabulary import grounding_text, spans_of
from diffugen_generator.labeling.detectors.opening import open_detector
from diffugen_generator.labeling.evidence.detections import Detections
from diffugen_generator.labeling.labeler import LabelInput
from diffugen_generator.models.side_models import CLIPS, detectors_of, find_folder
from generator.training import scenes
from tests.generator import tiny_detectors

CPU = torch.device("cpu")
WORDS = [ObjectClass(name="ball"), ObjectClass.model_validate({"name": "piano", "synonyms": ["grand piano"]})]
SHAPES = [ObjectClass(name=name) for name in scenes.CLASSES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("detectors")


def opened(settings: DetectorLabeling) -> Any:
    return open_detector(settings, detectors_of(settings), WORDS, CPU)


def segmenter(folder: Path) -> Any:
    return opened(DetectorLabeling(type="transformers", model=str(folder)))


def open_vocabulary(finder: Path, masker: Path) -> Any:
    return opened(
        DetectorLabeling.model_validate({"type": "open-vocabulary", "model": str(finder), "maskModel": str(masker)})
    )


def noise(height: int, width: int) -> LabelInput:
    raster = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return LabelInput(raster, "a ball", 0)


def in_box(height: int, width: int, x: slice, y: slice) -> NDArray[np.bool_]:
    mask = np.zeros((height, width), np.bool_)
    mask[y, x] = True
    return mask


def iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))


@pytest.mark.parametrize("make", [tiny_detectors.mask2former, tiny_detectors.rf_detr])
def test_segmenters_of_random_weights_run_and_treat_each_image_independently(
    make: Callable[[Path], Path], folder: Path
) -> None:
    detector = segmenter(make(folder / make.__name__))
    rasters = [noise(40, 72), LabelInput(noise(40, 72).image[::-1].copy(), "a star", 1)]

    both = detector.look(rasters)

    assert [each.size for each in both] == [(40, 72)] * 2
    alone = [detector.look([raster])[0] for raster in rasters]
    for one, other in zip(both, alone, strict=True):
        assert [each.native for each in one.found] == [each.native for each in other.found]
        assert all(each.native in tiny_detectors.CLASSES.values() for each in one.found)


def test_masks_of_a_padded_image_are_in_the_coordinates_of_the_image(folder: Path) -> None:
    detector = segmenter(tiny_detectors.mask2former(folder / "padded"))
    shown = torch.zeros(1, 64, 96)
    shown[:, :48, :86] = 1  # 40 x 72 becomes 48 x 86, padded to 64 x 96: the model's masks cover the padded image
    inputs = {"pixel_values": torch.zeros(1, 3, 64, 96), "pixel_mask": shown}
    detector._processor = lambda **_: inputs
    masks = torch.full((1, 2, 64, 96), -9.0)
    masks[0, 0, :24, 43:86] = 9.0  # upper right quarter
    masks[0, 1, 48:, :] = 9.0  # padding only
    logits = torch.tensor([[[0.0, 9.0, 0.0, 0.0], [9.0, 0.0, 0.0, 0.0]]])  # three classes, and the class for no object
    detector._model = lambda **_: SimpleNamespace(masks_queries_logits=masks, class_queries_logits=logits)

    (found,) = detector.look([noise(40, 72)])

    assert [each.native for each in found.found] == ["square"]
    assert found.found[0].score == pytest.approx(0.999, abs=0.002)
    assert iou(found.found[0].mask.mask(), in_box(40, 72, slice(36, 72), slice(0, 20))) > 0.97


def test_rf_detr_scores_belong_to_one_class_each(folder: Path) -> None:
    detector = segmenter(tiny_detectors.rf_detr(folder / "sigmoid"))
    masks = torch.full((1, 2, 16, 16), -9.0)
    masks[0, 0, 8:, :8] = 9.0
    masks[0, 1, :8, 8:] = 9.0
    logits = torch.tensor([[[2.0, -9.0, 1.0, 9.0], [-9.0, -9.0, -9.0, -9.0]]])  # the fourth column is no class
    detector._model = lambda **_: SimpleNamespace(logits=logits, pred_masks=masks)

    (found,) = detector.look([noise(64, 64)])

    assert [(each.native, each.score) for each in found.found] == [
        ("ball", pytest.approx(0.8808, abs=1e-4)),
        ("star", pytest.approx(0.7311, abs=1e-4)),
    ]
    assert iou(found.found[0].mask.mask(), in_box(64, 64, slice(0, 32), slice(32, 64))) > 0.95


@pytest.mark.parametrize("make", [tiny_detectors.grounding_dino, tiny_detectors.owlv2])
def test_open_vocabulary_of_random_weights_returns_the_words_that_it_gets(
    make: Callable[[Path], Path], folder: Path
) -> None:
    detector = open_vocabulary(make(folder / make.__name__), tiny_detectors.sam2(folder / f"sam-{make.__name__}"))

    (found,) = detector.look([noise(40, 72)])

    assert found.size == (40, 72)
    assert {each.native for each in found.found} <= {"ball", "piano", "grand piano"}


class Masker:
    """Replaces SAM 2: fills each box of its input, in masks of 16 x 16 for inputs of 64 x 64."""

    def __init__(self) -> None:
        self.boxes: list[list[float]] = []

    def __call__(self, *, input_boxes: torch.Tensor, multimask_output: bool, **_: object) -> SimpleNamespace:
        assert multimask_output is False
        self.boxes = input_boxes[0].tolist()
        masks = torch.full((1, len(self.boxes), 1, 64, 64), -9.0)
        for number, (x0, y0, x1, y1) in enumerate(self.boxes):
            masks[0, number, 0, round(y0) : round(y1), round(x0) : round(x1)] = 9.0
        return SimpleNamespace(pred_masks=masks)


def test_grounding_dino_boxes_reach_sam_in_the_right_coordinates_of_a_nonsquare_image(folder: Path) -> None:
    detector = open_vocabulary(tiny_detectors.grounding_dino(folder / "gd"), tiny_detectors.sam2(folder / "gd-sam"))
    text = grounding_text(detector._words)
    assert text == "ball. grand piano. piano."
    tokens = detector._finder_processor.tokenizer.tokenize(text)
    assert tokens == ["ball", ".", "grand", "piano", ".", "piano", "."]
    logits = torch.full((1, 2, 32), -9.0)
    logits[0, 0, 1 + tokens.index("grand")] = 2.0  # after the start token
    boxes = torch.tensor([[[0.75, 0.25, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]]])  # the upper right quarter
    detector._finder = lambda **_: SimpleNamespace(logits=logits, pred_boxes=boxes)
    detector._masker = Masker()

    (found,) = detector.look([noise(40, 80)])

    assert [(each.native, each.score) for each in found.found] == [("grand piano", pytest.approx(0.8808, abs=1e-4))]
    assert iou(found.found[0].mask.mask(), in_box(40, 80, slice(40, 80), slice(0, 20))) > 0.95


def test_owlv2_boxes_are_relative_to_the_image_padded_to_a_square(folder: Path) -> None:
    detector = open_vocabulary(tiny_detectors.owlv2(folder / "owl"), tiny_detectors.sam2(folder / "owl-sam"))
    logits = torch.full((1, 2, 3), -9.0)
    logits[0, 1, 2] = 2.0  # piano
    boxes = torch.tensor([[[0.5, 0.5, 1.0, 1.0], [0.75, 0.125, 0.5, 0.25]]])  # of 80 x 80: x 40 to 80, y 0 to 20
    detector._finder = lambda **_: SimpleNamespace(logits=logits, pred_boxes=boxes)
    detector._masker = Masker()

    (found,) = detector.look([noise(40, 80)])

    assert [each.native for each in found.found] == ["piano"]
    assert iou(found.found[0].mask.mask(), in_box(40, 80, slice(40, 80), slice(0, 20))) > 0.95


def test_each_word_has_its_position_in_the_text() -> None:
    words = ["Ball", "grand piano"]

    assert [grounding_text(words)[begin:end] for begin, end in spans_of(words)] == ["ball", "grand piano"]


def test_clip_scores_are_cosines_and_do_not_depend_on_the_batch(folder: Path) -> None:
    model = str(tiny_detectors.clip(folder / "clip"))
    clip = Clip(find_folder(model, CLIPS, "spec.quality.clipScore.model", None, weights=True), CPU)
    rasters = [noise(40, 72), LabelInput(noise(64, 64).image, "a red star on snow and a blue ball on snow " * 9, 1)]

    together = [score.value for score in clip.look(rasters)]

    assert all(-1 <= cosine <= 1 for cosine in together)
    assert together == pytest.approx([clip.look([raster])[0].value for raster in rasters], abs=1e-5)
    assert together[0] != pytest.approx(clip.look([LabelInput(rasters[0].image, "a star", 0)])[0].value, abs=1e-6)


def test_clip_compares_images_with_images(folder: Path) -> None:
    clip = open_clip(str(tiny_detectors.clip(folder / "clip")), "--clip", None)
    one, other = noise(40, 72).image, np.zeros((64, 64, 3), np.uint8)

    assert clip.between([one], [one]) == pytest.approx(1, abs=1e-5)
    apart = clip.between([one], [other])
    assert apart < 0.999
    assert clip.between([one, other], [one]) == pytest.approx((1 + apart) / 2, abs=1e-5)


@pytest.fixture(scope="module")
def built_in() -> Any:
    settings = DetectorLabeling(type="transformers", model="builtin://shapes-segmenter")
    return open_detector(settings, detectors_of(settings), SHAPES, CPU)


def shapes_in(detections: Detections) -> dict[str, NDArray[np.bool_]]:
    settings = DetectorLabeling(type="transformers", model="builtin://shapes-segmenter", confidence=0.5)
    return {each.class_name: each.segmentation.mask() for each in choose(detections, settings, SHAPES, "")}


def test_the_built_in_segmenter_finds_drawn_shapes(built_in: Any) -> None:
    drawn = scenes.draw(48, np.random.default_rng(99))
    overlaps, wrong = [], 0
    for number, found in enumerate(built_in.look([LabelInput(raster, "", 0) for raster in drawn.images])):
        masks = shapes_in(found)
        there = {
            scenes.CLASSES[kind]: mask
            for kind, mask in zip(drawn.classes[number], drawn.masks[number], strict=True)
            if kind != scenes.NOTHING
        }
        wrong += len(set(masks) - set(there))
        overlaps += [iou(masks.get(name, np.zeros_like(mask)), mask) for name, mask in there.items()]

    assert np.mean(overlaps) >= 0.92
    assert wrong <= 1


def test_it_finds_nothing_in_an_empty_image(built_in: Any) -> None:
    empty = [LabelInput(np.full((64, 64, 3), value, np.uint8), "", 0) for value in (0, 40, 130, 230)]

    assert [shapes_in(found) for found in built_in.look(empty)] == [{}] * 4


def test_missing_weights_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny_detectors.mask2former(tmp_path / "half")
    weights = load_file(folder / "model.safetensors")
    save_file(dict(list(weights.items())[5:]), folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(SpecError, match="weights are missing"):
        segmenter(folder)
