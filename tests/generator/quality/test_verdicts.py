"""Quality: which objects are kept, and which images are accepted."""

import numpy as np
import pytest

from diffugen_api.v1alpha1 import Quality
from diffugen_generator.quality.verdicts import Verdict, verdict_on
from diffugen_generator.samples.labels import Instance, Label
from tests.generator.made import an_instance


def square(side: int) -> Instance:
    mask = np.zeros((100, 100), np.bool_)
    mask[:side, :side] = True
    return an_instance("square", mask)


def judged(instances: list[Instance], quality: Quality) -> Verdict:
    return verdict_on(Label("0" * 32, tuple(instances)), (100, 100), quality)


def test_a_good_image_is_accepted() -> None:
    verdict = judged([square(30), square(40)], Quality())

    assert verdict.accepted
    assert verdict.instances == (square(30), square(40))
    assert verdict.dropped == {}


def test_objects_of_the_wrong_size_are_dropped() -> None:
    quality = Quality(min_area_fraction=0.01, max_area_fraction=0.5)

    verdict = judged([square(9), square(10), square(70), square(71)], quality)

    assert verdict.instances == (square(10), square(70))
    assert verdict.dropped == {"BelowMinAreaFraction": 1, "AboveMaxAreaFraction": 1}


@pytest.mark.parametrize(("fewest", "accepted"), [(0, True), (1, False)])
def test_an_empty_image_is_accepted_only_if_the_settings_allow_it(fewest: int, accepted: bool) -> None:
    verdict = judged([], Quality(min_instances=fewest))

    assert verdict.accepted is accepted
    assert verdict.reason == ("" if accepted else "TooFewInstances")


def test_dropped_objects_do_not_count() -> None:
    verdict = judged([square(1), square(50)], Quality(min_instances=2))

    assert (verdict.accepted, verdict.reason) == (False, "TooFewInstances")
    assert verdict.instances == (square(50),)


def test_the_bounds_are_inclusive() -> None:
    quality = Quality(min_area_fraction=0.01, max_area_fraction=0.01)

    assert judged([square(10)], quality).accepted


def at(x: int, y: int) -> Instance:
    mask = np.zeros((100, 100), np.bool_)
    mask[y : y + 20, x : x + 20] = True
    return an_instance("square", mask)


@pytest.mark.parametrize(
    ("distance", "standing"), [(0, [0, 1, 2, 3]), (1, [1, 2, 3]), (2, [2, 3]), (10, [2, 3]), (11, [3])]
)
def test_objects_near_the_border_are_dropped(distance: int, standing: list[int]) -> None:
    objects = [at(40, 80), at(1, 40), at(40, 10), at(40, 40)]

    verdict = judged(objects, Quality(min_border_distance=distance))

    assert list(verdict.instances) == [objects[number] for number in standing]
    assert verdict.dropped == ({"WithinMinBorderDistance": 4 - len(standing)} if len(standing) < 4 else {})


@pytest.mark.parametrize(("deviation", "reason"), [(0.0, "BlankPicture"), (0.9, "BlankPicture"), (1.0, "")])
def test_a_blank_image_is_rejected_with_any_labels(deviation: float, reason: str) -> None:
    label = Label("0" * 32, (square(30),), statistics={"deviation": deviation, "hash": "0" * 16})

    assert verdict_on(label, (100, 100), Quality()).reason == reason


@pytest.mark.parametrize(("least", "reason"), [(0.2, ""), (0.3, "BelowClipScore")])
def test_an_image_that_does_not_fit_its_prompt_is_rejected(least: float, reason: str) -> None:
    label = Label("0" * 32, (square(30),), scores={"clip": 0.25})
    quality = Quality.model_validate({"clipScore": {"model": "/models/clip", "min": least}})

    assert verdict_on(label, (100, 100), quality).reason == reason


@pytest.mark.parametrize(("most", "reason"), [(-0.01, "Unsafe"), (0, "Unsafe"), (0.004, "Unsafe"), (0.005, "")])
def test_an_image_that_a_safety_checker_flags_is_rejected(most: float, reason: str) -> None:
    label = Label("0" * 32, (square(30),), scores={"safety": 0.005})
    quality = Quality.model_validate({"safety": {"model": "/models/checker", "max": most}})

    assert verdict_on(label, (100, 100), quality).reason == reason


def test_an_image_at_the_threshold_of_a_concept_is_not_flagged() -> None:
    label = Label("0" * 32, (square(30),), scores={"safety": 0.0})

    assert verdict_on(label, (100, 100), Quality.model_validate({"safety": {"model": "/models/checker"}})).accepted
