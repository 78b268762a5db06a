"""What a spec means: its samples, and the content addresses by which work is reused."""

import pickle
from typing import Any

import pytest

from diffugen_api.addresses import address
from diffugen_api.plan import (
    Expansion,
    Sample,
    SpecError,
    canonical,
    revision_of,
    samples_per_shard,
    stage_recipe,
    store_of,
)
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from tests.api.specs import a_spec, spec_data, with_attention, with_prompts

DIGEST = "d" * 64


def samples(spec: LabeledDatasetSpec, stage: int = 0, digest: str = DIGEST) -> list[Sample]:
    return list(Expansion(spec).samples_of(stage_recipe(spec, spec.stages[stage], digest)))


def ids(spec: LabeledDatasetSpec, stage: int = 0, digest: str = DIGEST) -> set[str]:
    return {s.id for s in samples(spec, stage, digest)}


def test_a_template_is_drawn_for_the_product_of_its_own_variables() -> None:
    prompts = list(dict.fromkeys(s.prompt for s in samples(a_spec())))

    assert prompts == [
        "a red ball", "a red star", "a blue ball", "a blue star", "a green ball", "a green star",
        "a ball on snow", "a ball on sand", "a star on snow", "a star on sand",
    ]  # fmt: skip
    assert len(samples(a_spec())) == Expansion(a_spec()).count_prompts_and_seeds() == 20


def test_equal_prompts_are_counted_once_where_that_takes_seconds() -> None:
    assert Expansion(with_prompts(templates=["a {object}", "a {object}"])).count_distinct_samples() == 4

    many = {name: [str(number) for number in range(1000)] for name in "abc"}
    assert Expansion(with_prompts(templates=["{a}{b}{c}"], variables=many)).count_distinct_samples() == 2 * 10**9


def test_addresses_never_change() -> None:
    """Existing stores hold samples under these ids: after a change here, every image is drawn again."""
    spec = a_spec(stages=[{"name": "base", "txt2img": {"model": "builtin://shapes", "guidanceScale": 7.5}}])
    first = samples(spec)[0]

    assert (first.id, first.seed) == ("db3f863a4e4ffbe4d942dab5116519d0", 4922761118735762131)
    assert revision_of(spec) == "c0bc3a544d"


@pytest.mark.parametrize(
    "change",
    [
        {"prompts": {**spec_data()["prompts"], "combine": "product", "sample": None}},
        {"stages": [{"name": "base", "txt2img": {"model": "builtin://shapes", "scheduler": None}}]},
    ],
)
def test_a_newer_field_at_its_default_changes_no_address(change: dict[str, Any]) -> None:
    assert ids(a_spec(**change)) == ids(a_spec())
    assert revision_of(a_spec(**change)) == revision_of(a_spec())


def test_every_sample_has_its_own_id_and_seed() -> None:
    drawn = samples(a_spec())

    assert len({s.id for s in drawn}) == len({s.seed for s in drawn}) == 20
    assert all(0 <= s.seed < 2**63 for s in drawn)


def test_templates_that_render_the_same_prompt_are_drawn_once() -> None:
    spec = with_prompts(templates=["a {color} {object}", "a red {object}"])

    assert len(samples(spec)) == 12


def test_more_samples_per_prompt_keep_the_existing_ones() -> None:
    assert ids(a_spec()) < ids(with_prompts(samplesPerPrompt=3))


def test_an_edited_template_changes_only_its_own_samples() -> None:
    edited = with_prompts(templates=["a {color} {object}", "one {object} on {place}"])

    assert len(ids(a_spec()) & ids(edited)) == 12


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"regenerateToken": "again"},
        {"image": {"width": 64}},
        {"image": {"format": "jpeg"}},
        {"stages": [{"name": "other", "txt2img": {"model": "builtin://shapes"}}]},
        {"stages": [{"name": "base", "txt2img": {"model": "builtin://shapes", "steps": 7}}]},
        {"stages": [{"name": "base", "txt2img": {"model": "builtin://shapes", "guidanceScale": 1}}]},
        {"stages": [{"name": "base", "txt2img": {"model": "builtin://shapes", "scheduler": "ddim"}}]},
        {"prompts": {**spec_data()["prompts"], "negative": "blur"}},
    ],
)
def test_fields_that_change_an_image_change_its_id(change: dict[str, Any]) -> None:
    assert not ids(a_spec()) & ids(a_spec(**change))


def test_other_weights_change_every_image() -> None:
    assert not ids(a_spec()) & ids(a_spec(), digest="e" * 64)


@pytest.mark.parametrize(
    "change",
    [
        {"labeling": {"attention": {"threshold": 0.5}}},
        {"classes": [{"name": "star", "synonyms": ["pentagram", "asterisk"]}, {"name": "ball"}]},
        {"quality": {"minInstances": 2}},
        {"output": {"formats": ["yolo"]}},
        {"run": {"samplesPerShard": 3}},
    ],
)
def test_fields_that_do_not_change_an_image_keep_its_id(change: dict[str, Any]) -> None:
    assert ids(a_spec()) == ids(a_spec(**change))


def addresses(spec: LabeledDatasetSpec) -> tuple[str, str]:
    recipe = stage_recipe(spec, spec.stages[0], DIGEST)
    return recipe.evidence_id, recipe.label_id


@pytest.mark.parametrize(
    "younger", [{"ignoreBand": 0}, {"minPresence": None}, {"fragmentFraction": 0}, {"capture": "posthoc"}]
)
def test_newer_attention_settings_at_their_defaults_change_no_address(younger: dict[str, Any]) -> None:
    assert addresses(with_attention(**younger)) == addresses(a_spec())
    assert revision_of(with_attention(**younger)) == revision_of(a_spec())


@pytest.mark.parametrize("decision", [{"threshold": "auto"}, {"ignoreBand": 0.1}, {"fragmentFraction": 0.2}])
def test_band_and_threshold_modes_change_only_labels(decision: dict[str, Any]) -> None:
    before, after = addresses(a_spec()), addresses(with_attention(**decision))
    assert before[:-1] == after[:-1]
    assert before[-1] != after[-1]


def test_a_threshold_changes_the_labels_and_not_the_evidence() -> None:
    (evidence, label), (evidence_after, label_after) = (
        addresses(a_spec()),
        addresses(with_attention(threshold=0.5)),
    )

    assert evidence == evidence_after
    assert label != label_after


@pytest.mark.parametrize(
    "spec",
    [
        with_attention(refine=False),
        with_attention(background=["sky"]),
        a_spec(classes=[{"name": "ball", "synonyms": ["sphere"]}, {"name": "star", "synonyms": ["pentagram"]}]),
    ],
)
def test_what_a_model_detects_changes_the_evidence(spec: LabeledDatasetSpec) -> None:
    assert addresses(spec)[0] != addresses(a_spec())[0]
    assert addresses(spec)[1] != addresses(a_spec())[1]


def test_the_order_of_classes_and_of_background_words_is_not_evidence() -> None:
    reordered = a_spec(classes=list(reversed(spec_data()["classes"])))

    assert addresses(reordered) == addresses(a_spec())
    assert addresses(with_attention(background=["sky", "sand"])) == addresses(
        with_attention(background=["sand", "sky"])
    )
    assert revision_of(reordered) != revision_of(a_spec()), "class ids follow the order, so the content differs"


@pytest.mark.parametrize(
    "change",
    [
        {"run": {"parallelism": 9, "image": "x", "podTemplate": {"spec": {}}}},
        {"suspend": True},
        {"output": {"s3": {"endpoint": "http://elsewhere:9000", "bucket": "other"}}},
    ],
)
def test_run_and_store_are_not_in_the_revision(change: dict[str, Any]) -> None:
    assert revision_of(a_spec(**change)) == revision_of(a_spec())


@pytest.mark.parametrize(
    "change",
    [
        {"labeling": {"attention": {"threshold": 0.5}}},
        {"quality": {"minInstances": 2}},
        {"output": {"formats": ["yolo"]}},
        {"output": {"splits": {"train": 1}}},
        {"regenerateToken": "again"},
        {"seed": 1},
    ],
)
def test_fields_that_change_the_content_change_the_revision(change: dict[str, Any]) -> None:
    assert revision_of(a_spec(**change)) != revision_of(a_spec())


def test_another_secret_is_the_same_store() -> None:
    def stored(**changes: Any) -> LabeledDatasetSpec:
        return a_spec(output={"s3": {"endpoint": "http://minio:9000", "bucket": "data", **changes}})

    assert store_of(stored(secretRef={"name": "a"})) == store_of(stored(secretRef={"name": "b"}))
    assert store_of(stored(bucket="other")) != store_of(stored())


def test_the_stores_address_does_not_change_when_a_field_with_a_default_is_added() -> None:
    where = {"endpoint": "http://minio:9000", "bucket": "datasets"}
    assert store_of(a_spec(output={"s3": where})) == store_of(a_spec(output={"s3": {**where, "region": "us-east-1"}}))
    assert store_of(a_spec(output={"s3": {**where, "addressingStyle": "auto"}})) == address(where, 10)
    assert store_of(a_spec(output={"s3": where})) == address(where, 10)


@pytest.mark.parametrize(
    ("change", "reason", "message"),
    [
        (
            {"templates": ["a {shade} {object}"]},
            "UnknownVariable",
            r"templates\[0\].*'shade'.*spec\.prompts\.variables",
        ),
        (
            {"templates": ["ok {object}", "{object.__class__}"]},
            "InvalidTemplate",
            r"templates\[1\].*plain name",
        ),
        (
            {"combine": "zip"},
            "UnequalVariables",
            r"variables\.object: .*pairs it with color in spec\.prompts\.templates\[0\].* 2 values and color has 3",
        ),
        (
            {"variables": {"object": ["ball", "cube"]}, "templates": ["{object}"]},
            "UnknownClass",
            r"object\[1\].*'cube'.*spec\.classes",
        ),
    ],
)
def test_a_spec_that_cannot_work_names_the_field_and_the_fix(change: dict[str, Any], reason: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as raised:
        samples(with_prompts(**change))

    assert raised.value.reason == reason


def test_the_error_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(SpecError("UnknownModel", "spec.stages[0]: no such model")))

    assert (error.reason, str(error)) == ("UnknownModel", "spec.stages[0]: no such model")


def test_a_synonym_counts_as_its_class() -> None:
    spec = with_prompts(variables={"object": ["Pentagram"]}, templates=["a {object}"])

    assert [s.prompt for s in samples(spec)] == ["a Pentagram"] * 2


def test_a_job_never_has_more_than_ten_thousand_shards() -> None:
    spec = a_spec(run={"samplesPerShard": 10})

    assert samples_per_shard(spec, 50) == 10
    assert samples_per_shard(spec, 1_000_000) == 100


def test_canonical_json_gives_one_text_for_one_value() -> None:
    assert canonical({"b": 1, "a": "ü"}) == '{"a":"ü","b":1}'.encode()
    with pytest.raises(ValueError, match="Out of range|not JSON compliant"):
        canonical(float("nan"))
