"""Quality: which objects stand, and which pictures are accepted."""

import numpy as np
import pytest

from diffugen_api.v1alpha1 import Quality
from diffugen_generator.quality import Verdict, judge
from diffugen_generator.records import Instance, Label
from tests.generator.made import an_instance


def square(side: int) -> Instance:
    mask = np.zeros((100, 100), np.bool_)
    mask[:side, :side] = True
    return an_instance("square", mask)


def judged(instances: list[Instance], quality: Quality) -> Verdict:
    return judge(Label("0" * 32, tuple(instances)), (100, 100), quality)


def test_a_good_picture_is_accepted() -> None:
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
def test_an_empty_picture_is_accepted_only_when_asked_for(fewest: int, accepted: bool) -> None:
    verdict = judged([], Quality(min_instances=fewest))

    assert verdict.accepted is accepted
    assert verdict.reason == ("" if accepted else "TooFewInstances")


def test_dropped_objects_do_not_count() -> None:
    verdict = judged([square(1), square(50)], Quality(min_instances=2))

    assert (verdict.accepted, verdict.reason) == (False, "TooFewInstances")
    assert verdict.instances == (square(50),)


def test_the_bounds_themselves_are_allowed() -> None:
    quality = Quality(min_area_fraction=0.01, max_area_fraction=0.01)

    assert judged([square(10)], quality).accepted
