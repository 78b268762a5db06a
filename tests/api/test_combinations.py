"""Which combinations of values a template gets."""

import pytest
from pydantic import ValidationError

from diffugen_api.plan import Expansion, revision_of, stage_recipe
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from tests.api.specs import a_spec, with_prompts

MANY = {f"v{n}": [f"{n}.{value}" for value in range(20)] for n in range(12)}
MANY_TEMPLATE = " ".join(f"{{{name}}}" for name in MANY)


def prompts_of(spec: LabeledDatasetSpec) -> list[str]:
    drawn = Expansion(spec).samples_of(stage_recipe(spec, spec.stages[0], "d" * 64))
    return list(dict.fromkeys(sample.prompt for sample in drawn))


def numbered(values: int, sample: int | None, **changes: object) -> LabeledDatasetSpec:
    variables = {"a": [f"a{n}" for n in range(values)], "b": [f"b{n}" for n in range(50)]}
    return with_prompts(templates=["{a} {b}"], variables=variables, sample=sample, samplesPerPrompt=1, **changes)


def test_zip_pairs_the_values_of_a_templates_own_variables() -> None:
    variables = {"object": ["ball", "star"], "color": ["red", "blue"], "place": ["snow", "sand", "ice"]}
    spec = with_prompts(templates=["a {color} {object}", "on {place}"], variables=variables, combine="zip")

    assert prompts_of(spec) == ["a red ball", "a blue star", "on snow", "on sand", "on ice"]
    assert Expansion(spec).count_prompts_and_seeds() == 10


def test_a_template_without_variables_is_drawn_once_in_every_mode() -> None:
    assert prompts_of(with_prompts(templates=["a ball"], combine="zip")) == ["a ball"]
    assert prompts_of(with_prompts(templates=["a ball"], sample=9)) == ["a ball"]


def test_a_sample_comes_from_the_product_without_repetition() -> None:
    everything = set(prompts_of(numbered(20, None)))
    sample = prompts_of(numbered(20, 300))

    assert len(sample) == len(set(sample)) == Expansion(numbered(20, 300)).count_prompts_and_seeds() == 300
    assert set(sample) < everything


def test_a_sample_of_zipped_values_comes_from_their_rows() -> None:
    variables = {"object": ["ball", "star"] * 10, "n": [str(n) for n in range(20)]}
    spec = with_prompts(templates=["{object} {n}"], variables=variables, combine="zip", sample=5)

    assert len(prompts_of(spec)) == 5
    assert all((int(prompt[-2:]) % 2 == 0) == prompt.startswith("ball") for prompt in prompts_of(spec))


def test_a_sample_of_full_size_contains_every_combination() -> None:
    assert prompts_of(numbered(3, 10_000)) == prompts_of(numbered(3, None))


def test_a_larger_sample_begins_with_the_smaller_one() -> None:
    assert prompts_of(numbered(20, 300))[:100] == prompts_of(numbered(20, 100))


def test_an_appended_value_keeps_nearly_all_of_a_sample() -> None:
    before, after = set(prompts_of(numbered(20, 200))), set(prompts_of(numbered(21, 200)))

    assert len(before & after) > 180
    assert any(prompt.startswith("a20 ") for prompt in after)


def test_values_are_chosen_evenly() -> None:
    sample = prompts_of(numbered(20, 500))
    counts = [sum(prompt.startswith(f"a{n} ") for prompt in sample) for n in range(20)]

    assert min(counts) > 10
    assert max(counts) < 45


def test_the_seed_and_the_templates_text_choose_the_sample() -> None:
    changed = with_prompts(templates=["{a} {b}"], variables=numbered(20, 9).prompts.variables, sample=9)

    assert prompts_of(numbered(20, 9)) == prompts_of(changed)
    assert prompts_of(numbered(20, 9)) != prompts_of(changed.model_copy(update={"seed": 1}))


def test_a_few_of_four_quadrillion_take_no_time() -> None:
    spec = with_prompts(templates=[MANY_TEMPLATE], variables=MANY, sample=50, samplesPerPrompt=1)

    assert len(prompts_of(spec)) == Expansion(spec).count_prompts_and_seeds() == 50


def test_explicit_defaults_give_the_same_revision() -> None:
    assert revision_of(with_prompts(combine="product", sample=None)) == revision_of(a_spec())
    assert len({revision_of(a_spec()), revision_of(with_prompts(sample=3)), revision_of(with_prompts(sample=4))}) == 3
    assert revision_of(with_prompts(templates=["{color}"], combine="zip")) != revision_of(
        with_prompts(templates=["{color}"])
    )


@pytest.mark.parametrize("change", [{"combine": "cross"}, {"sample": 0}, {"sample": 5_000_001}])
def test_bounds(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        with_prompts(**change)
