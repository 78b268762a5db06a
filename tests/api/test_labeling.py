"""Labelers in a spec: at least one, each with its required fields; and which addresses their fields are part of."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from diffugen_api.plan import revision_of, stage_recipe
from diffugen_api.recipes import CLIP, DETECTOR, MASKS, SAFETY
from diffugen_api.v1alpha1 import Labeling
from tests.api.specs import a_spec
from tests.api.test_stages import BASE, redrawn, repainted

SIDE_MODELS = {DETECTOR: "d" * 64, MASKS: "m" * 64, CLIP: "c" * 64, SAFETY: "e" * 64}
SEGMENTER = {"type": "transformers", "model": "builtin://shapes-segmenter"}
FINDER = {"type": "open-vocabulary", "model": "/models/owl", "maskModel": "/models/sam"}


@pytest.mark.parametrize(
    ("labeling", "message"),
    [
        ({}, "labeling names no labeler"),
        ({"agreement": 0.5}, "labeling names no labeler"),
        ({"detector": {**SEGMENTER, "maskModel": "/models/sam"}}, "maskModel goes with type open-vocabulary"),
        ({"detector": {"type": "open-vocabulary", "model": "/models/owl"}}, "maskModel goes with type open-vocab"),
        ({"detector": {"type": "yolo", "model": "/models/m.pt"}}, "pin it by sha256"),
        ({"detector": {**SEGMENTER, "confidence": 0.01}}, "greater than or equal to 0.05"),
    ],
)
def test_a_missing_field_of_a_labeler_is_reported(labeling: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Labeling.model_validate(labeling)


def test_attention_labels_by_default_and_not_beside_a_lone_detector() -> None:
    assert a_spec().labeling.attention is not None
    assert a_spec(labeling={"detector": SEGMENTER}).labeling.attention is None


def ids(
    labeling: dict[str, Any] | None = None, side_models: dict[str, str] | None = None, **changes: Any
) -> dict[str, Any]:
    spec = a_spec(**({"labeling": labeling} if labeling else {}), **changes)
    recipe = stage_recipe(spec, spec.stages[0], "f" * 64, side_models={**SIDE_MODELS, **(side_models or {})})
    return {"evidence": recipe.evidence_id, "side": dict(recipe.side_evidence_ids), "label": recipe.label_id}


BOTH = {"attention": {}, "detector": SEGMENTER}


@pytest.mark.parametrize("setting", [{"rescale": True}, {"headWeights": "agreement"}])
def test_how_maps_are_joined_is_part_of_the_evidence(setting: dict[str, Any]) -> None:
    plain = ids({"attention": {}})
    assert ids({"attention": {"rescale": False, "headWeights": "equal"}}) == plain

    changed = ids({"attention": setting})
    assert changed["evidence"] != plain["evidence"]
    assert changed["label"] != plain["label"]
    with pytest.raises(ValidationError, match="go with capture: posthoc"):
        Labeling.model_validate({"attention": {**setting, "capture": "inline"}})


def test_default_values_are_in_no_address() -> None:
    said = {"attention": {}, "agreement": 0.5}
    quality = {"minBorderDistance": 0}

    assert ids(said, quality=quality) == ids()
    assert revision_of(a_spec(labeling=said, quality=quality)) == revision_of(a_spec())


def test_a_detector_does_not_change_the_address_of_attention_evidence() -> None:
    both = ids(BOTH)

    assert both["evidence"] == ids()["evidence"]
    assert both["label"] != ids()["label"]
    assert both["side"] == ids({"detector": SEGMENTER})["side"]
    assert ids({"detector": SEGMENTER})["evidence"] == ""


@pytest.mark.parametrize(
    "changed",
    [{"detector": {**SEGMENTER, "confidence": 0.5}}, {"detector": {**SEGMENTER, "iou": 0.5}}, {"agreement": 0.9}],
)
def test_thresholds_change_only_labels(changed: dict[str, Any]) -> None:
    one, other = ids(BOTH), ids({**BOTH, **changed})

    assert (one["evidence"], one["side"]) == (other["evidence"], other["side"])
    assert one["label"] != other["label"]


SHARING = [{"name": "ball"}, {"name": "star", "detectorClass": "ball"}]


@pytest.mark.parametrize(
    ("classes", "labeling", "apart"),
    [
        (SHARING, {"detector": SEGMENTER}, True),
        (SHARING, {"detector": FINDER}, True),
        (SHARING, {"attention": {}}, False),
        ([{"name": "ball"}, {"name": "star"}], {"detector": SEGMENTER}, False),
        ([{"name": "ball"}, {"name": "star", "detectorClass": "sun"}], BOTH, False),
    ],
)
def test_a_replacement_changes_labels_where_classes_share_a_detector_name(
    classes: list[dict[str, Any]], labeling: dict[str, Any], *, apart: bool
) -> None:
    stages = [BASE, repainted("new", "base"), redrawn("mud", "base"), redrawn("on", "new")]
    spec = a_spec(labeling=labeling, stages=stages, classes=classes)
    base = stage_recipe(spec, spec.stages[0], "f" * 64, side_models=SIDE_MODELS)
    new = stage_recipe(spec, spec.stages[1], "f" * 64, source=base, side_models=SIDE_MODELS)
    mud = stage_recipe(spec, spec.stages[2], "f" * 64, source=base, side_models=SIDE_MODELS)
    on = stage_recipe(spec, spec.stages[3], "f" * 64, source=new, side_models=SIDE_MODELS)

    assert base.label_id == mud.label_id, "nothing is replaced there"
    assert new.label_id == on.label_id, "what replaced an object goes on to whoever draws from the picture"
    assert (new.label_id != base.label_id) is apart


@pytest.mark.parametrize("kind", [DETECTOR, MASKS])
def test_other_weights_change_the_evidence(kind: str) -> None:
    assert ids({"detector": FINDER})["side"] != ids({"detector": FINDER}, {kind: "0" * 64})["side"]


def test_only_an_open_vocabulary_detectors_evidence_depends_on_the_classes() -> None:
    more: list[dict[str, Any]] = [{"name": "ball", "synonyms": ["sphere"]}, {"name": "star"}]
    fewer: list[dict[str, Any]] = [{"name": "ball"}, {"name": "star"}]
    prompts = {"templates": ["a ball"]}

    def side_evidence_ids(detector: dict[str, Any], classes: list[dict[str, Any]]) -> dict[str, str]:
        return dict(ids({"detector": detector}, classes=classes, prompts=prompts)["side"])

    assert side_evidence_ids(FINDER, more) != side_evidence_ids(FINDER, fewer)
    assert side_evidence_ids(SEGMENTER, more) == side_evidence_ids(SEGMENTER, fewer)


def test_a_clip_score_is_evidence_and_its_minimum_is_in_no_address() -> None:
    one, other = (ids(quality={"clipScore": {"model": "/models/clip", "min": least}}) for least in (0.1, 0.3))

    assert one == other
    assert set(one["side"]) == {CLIP}
    assert one["label"] != ids()["label"]


def test_a_safety_checker_is_evidence_and_its_limit_is_in_no_address() -> None:
    one, other = (ids(quality={"safety": {"model": "/models/checker", "max": most}}) for most in (0, 0.05))

    assert one == other
    assert set(one["side"]) == {SAFETY}
    assert one["evidence"] == ids()["evidence"]
    assert one["label"] != ids()["label"]
    assert ids(quality={"safety": {"model": "/models/checker"}}, side_models={SAFETY: "0" * 64}) != one


def test_without_a_safety_checker_no_address_changes() -> None:
    clip = {"clipScore": {"model": "/models/clip"}}

    assert ids(quality={**clip, "safety": None}) == ids(quality=clip)
    assert revision_of(a_spec(quality={"safety": None})) == revision_of(a_spec())
    assert revision_of(a_spec(quality={"safety": {"model": "/m"}})) != revision_of(a_spec())


def test_a_calibration_is_part_of_the_evidence_and_chooses_heads_alone() -> None:
    places = {"images": "s3://photos/images", "masks": "s3://photos/masks"}
    spec = a_spec(labeling={"attention": {"calibration": places}})
    found = [
        stage_recipe(spec, spec.stages[0], "f" * 64, side_models=SIDE_MODELS, calibration=address)
        for address in ("a" * 32, "b" * 32)
    ]

    assert len({each.evidence_id for each in found}) == len({each.label_id for each in found}) == 2
    assert ids({"attention": {"calibration": None}}) == ids({"attention": {}})
    assert revision_of(a_spec(labeling={"attention": {"calibration": None}})) == revision_of(a_spec())
    for setting in ({"rescale": True}, {"headWeights": "agreement"}):
        with pytest.raises(ValidationError, match="do not go with calibration"):
            Labeling.model_validate({"attention": {"calibration": places, **setting}})


def test_a_background_token_is_in_the_revision_only_if_it_is_asked_for_and_goes_with_posthoc() -> None:
    places = {"images": "s3://photos/images", "masks": "s3://photos/masks"}

    def revision(**calibration: object) -> str:
        drawing = {"model": "builtin://shapes", "guidanceScale": 7.5}
        labeling = {"attention": {"calibration": {**places, **calibration}}}
        return revision_of(a_spec(stages=[{"name": "base", "txt2img": drawing}], labeling=labeling))

    assert revision() == revision(backgroundToken=False) == "c10c3a8fd9"
    assert revision(backgroundToken=True) != revision()
    wanted = {"capture": "inline", "calibration": {**places, "backgroundToken": True}}
    with pytest.raises(ValidationError, match="backgroundToken goes with capture: posthoc: remove it, or set posthoc"):
        Labeling.model_validate({"attention": wanted})
