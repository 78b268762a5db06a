"""Names: pure, short enough, and never shared by two runs."""

from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from diffugen_api.contract import Step
from diffugen_operator.manifests.names import RunKey, job_name, label_value, work_order_name

KEY = RunKey(uid="u-1", namespace="vision", name="shapes", revision="3f9a1c07de", store="00", attempt=1)
dns = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,100}[a-z0-9])?", fullmatch=True).filter(lambda s: ".." not in s)
stages = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,28}[a-z0-9])?", fullmatch=True)


def test_a_name_tells_dataset_step_and_stage() -> None:
    assert re.fullmatch(r"shapes-plan-[0-9a-f]{10}", job_name(KEY, Step.PLAN))
    assert re.fullmatch(r"shapes-base-[0-9a-f]{10}", job_name(KEY, Step.STAGE, "base"))
    assert re.fullmatch(r"shapes-order-[0-9a-f]{10}", work_order_name(KEY))


@given(dns, stages)
def test_any_name_is_a_dns_label_with_space_for_the_index(name: str, stage: str) -> None:
    made = job_name(replace(KEY, name=name), Step.STAGE, stage)

    assert len(f"{made}-9999") <= 63
    assert len(made) <= 52
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", made)


def test_another_run_has_other_names() -> None:
    others = [
        replace(KEY, uid="u-2"),
        replace(KEY, namespace="other"),
        replace(KEY, name="shapes2"),
        replace(KEY, revision="0000000000"),
        replace(KEY, store="01"),
        replace(KEY, attempt=2),
    ]

    assert len({job_name(key, Step.PLAN) for key in [KEY, *others]}) == 7


def test_long_names_with_the_same_beginning_stay_different() -> None:
    one, two = (replace(KEY, name="a" * 60 + end) for end in ("x", "y"))

    assert job_name(one, Step.PLAN) != job_name(two, Step.PLAN)


def test_a_stage_may_have_the_name_of_a_step() -> None:
    assert job_name(KEY, Step.STAGE, "plan") != job_name(KEY, Step.PLAN)


@given(dns)
def test_a_label_value_is_the_name_or_a_short_form_of_it(name: str) -> None:
    value = label_value(name)

    assert len(value) <= 63
    assert value == name or len(name) > 63
