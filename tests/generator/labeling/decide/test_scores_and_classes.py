"""Scores separate sharp maps from vague ones, and objects have the dataset's classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffugen_api.v1alpha1 import AttentionLabeling, DetectorLabeling, ObjectClass
from diffugen_generator.labeling.decide.from_detections import choose
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.labeling.evidence.detections import Detections
from diffugen_generator.publishing.publish import publish
from tests.generator.made import (
    a_finished_store,
    a_model,
    an_order,
    objects_in,
)


def blob(peak: float, width: float, centre: int) -> NDArray[np.uint8]:
    """A map [64, 64] that falls off around a point, over a floor of 255 - peak."""
    x, y = np.meshgrid(np.arange(64), np.arange(64))
    hill = np.exp(-((((x - centre) ** 2 + (y - 32) ** 2) / (2 * width**2)) ** 3))
    return np.round(255 * (peak * hill + (1 - peak) * hill.astype(np.float64) ** 0.2)).astype(np.uint8)


# fault 7 of DiffuGen's catalog
def test_scores_separate_a_sharp_map_from_a_vague_one_and_stay_below_one() -> None:
    raster = np.zeros((64, 64, 3), np.uint8)
    plain = AttentionLabeling(snap=False)
    maps = {"sharp": blob(1.0, 10, 32), "vague": blob(0.2, 10, 32)}

    scores = {
        name: objects_in(AttentionMaps(("ball",), (), values[None]), raster, plain)[0].score
        for name, values in maps.items()
    }

    assert 0 < scores["vague"] < scores["sharp"] < 1


# fault 7 of DiffuGen's catalog
def test_every_class_has_its_own_id_in_labels_from_attention(tmp_path: Path) -> None:
    order = an_order(a_model(tmp_path / "model"))
    store = a_finished_store(order, tmp_path / "store")
    publish(order, store)

    coco = json.loads(store.read(f"revisions/{order.revision}/coco/annotations/instances_train.json"))

    names = {each["id"]: each["name"] for each in coco["categories"]}
    used = {names[each["category_id"]] for each in coco["annotations"]}
    assert len(set(names)) == 4
    assert used == {"ball", "square", "triangle", "star"}


# fault 8 of DiffuGen's catalog
def test_a_detection_gets_the_datasets_class_and_not_the_detectors_number() -> None:
    mask = np.ones((1, 8, 8), np.bool_)
    classes = [
        ObjectClass(name="piano"),
        ObjectClass.model_validate({"name": "sedan", "detectorClass": "car"}),
        ObjectClass.model_validate({"name": "suv", "detectorClass": "car"}),
    ]
    detector = DetectorLabeling(type="transformers", model="/models/coco")

    def found(native: str, prompt: str, *tokens: str) -> list[str]:
        detections = Detections.of(mask, [native], [0.9])
        return [each.class_name for each in choose(detections, detector, classes, prompt, tokens=tokens)]

    assert found("piano", "a piano") == ["piano"], "a class need not be one of COCO's"
    assert found("car", "a red suv") == ["suv"]
    assert found("car", "a red sedan") == ["sedan"]
    assert found("person", "a red sedan") == []
    assert found("car", "a red sedan, <suv-crash>") == []
    assert found("car", "a red sedan, <suv-crash>", "<suv-crash>") == ["sedan"]
