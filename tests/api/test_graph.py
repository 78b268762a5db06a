"""Samples that a stage derives from another stage's samples: prompts, words, ids, seeds and counts."""

from typing import Any

import pytest

from diffugen_api.plan import (
    Expansion,
    Sample,
    SpecError,
    StageRecipe,
    stage_recipe,
)
from diffugen_api.v1alpha1 import LabeledDatasetSpec, in_graph_order
from tests.api.specs import a_spec, spec_data
from tests.api.test_stages import BASE, redrawn, repainted

PROMPTS: dict[str, Any] = {
    "templates": ["a {color} {object} on {place}", "a {left} and a big {right} on {place}"],
    "variables": {
        "object": ["ball", "star"],
        "left": ["ball"],
        "right": ["star"],
        "color": ["red", "blue"],
        "place": ["snow", "sand"],
    },
    "samplesPerPrompt": 2,
}


def a_graph(*stages: dict[str, Any], **changes: Any) -> LabeledDatasetSpec:
    return a_spec(**{"prompts": PROMPTS, "stages": [BASE, *stages], **changes})


def recipes(spec: LabeledDatasetSpec) -> dict[str, StageRecipe]:
    found: dict[str, StageRecipe] = {}
    for stage in in_graph_order(spec.stages):
        found[stage.name] = stage_recipe(spec, stage, "d" * 64, source=found.get(stage.source or ""))
    return found


def samples(spec: LabeledDatasetSpec, stage: str) -> list[Sample]:
    return list(Expansion(spec).samples_of(recipes(spec)[stage]))


def prompts(spec: LabeledDatasetSpec, stage: str) -> list[str]:
    return list(dict.fromkeys(sample.prompt for sample in samples(spec, stage)))


def ids(spec: LabeledDatasetSpec, stage: str) -> set[str]:
    return {sample.id for sample in samples(spec, stage)}


def test_changed_variables_fill_the_sources_template_and_skip_its_own_combination() -> None:
    spec = a_graph(redrawn("other", "base", variables={"place": ["sand", "mud"], "color": ["red"]}))

    made = samples(spec, "other")

    by_id = {sample.id: sample for sample in samples(spec, "base")}
    for sample in made:
        assert sample.source is not None
        old = by_id[sample.source.id]
        assert sample.prompt != old.prompt
        assert {**old.variables, **sample.variables} == sample.variables
        assert (sample.template, sample.source.replaced) == (old.template, "")
    of_red_on_sand = [s.prompt for s in made if s.source and by_id[s.source.id].prompt == "a red ball on sand"]
    assert of_red_on_sand == ["a red ball on mud"] * 2, "red on sand is the source's own"
    assert sum(1 for s in made if s.template == 1) == 2 * (1 + 2), "sand is skipped where it was sand"


def test_a_replacement_replaces_the_class_in_the_prompt() -> None:
    spec = a_graph(repainted("new", "base", replacements={"ball": ["golden orb", "moon"]}))

    assert prompts(spec, "new") == [
        "a red golden orb on snow", "a red moon on snow", "a red golden orb on sand", "a red moon on sand",
        "a blue golden orb on snow", "a blue moon on snow", "a blue golden orb on sand", "a blue moon on sand",
        "a golden orb and a big star on snow", "a moon and a big star on snow",
        "a golden orb and a big star on sand", "a moon and a big star on sand",
    ]  # fmt: skip
    first = samples(spec, "new")[0]
    assert first.words == {"ball": ("golden orb",)}
    assert first.source is not None
    assert first.source.replaced == "ball"
    assert first.variables == {"color": "red", "object": "golden orb", "place": "snow"}


def test_the_stages_own_template_gets_the_replacement_and_the_sources_variables() -> None:
    alone = {**PROMPTS, "templates": PROMPTS["templates"][:1]}
    green = repainted("new", "base", replacements={"ball": ["green ball"]}, template="one {object} on {place}")

    assert prompts(a_graph(green, prompts=alone), "new") == ["one green ball on snow", "one green ball on sand"]


def test_an_own_template_that_omits_another_class_is_refused() -> None:
    def new(template: str, text: str = "green ball") -> list[str]:
        return prompts(a_graph(repainted("new", "base", replacements={"ball": [text]}, template=template)), "new")

    with pytest.raises(SpecError, match=r"inpaint.template: 'one green ball' does not name star, and .* remove the"):
        new("one {object}")
    assert new("one {object} with a pentagram") == ["one green ball with a pentagram"], "by any of its words"
    assert new("one {object}", "small star") == ["one small star"], "a star is named, and labelled"


@pytest.mark.parametrize(
    ("background", "stages", "unnamed"),
    [
        ([], [], []),
        (["snow", "sky"], [], ["sky"]),
        (["Sand", "mud"], [], ["mud"]),
        (["mud"], [redrawn("mud", "base")], []),
        (["table"], [repainted("new", "base", replacements={"ball": ["ball on a table"]})], ["table"]),
        (["table"], [repainted("new", "base", template="a {object} and a star on a table")], []),
        (["big star"], [], []),
        (["ball"], [], ["ball"]),
    ],
)
def test_background_words_that_no_prompt_names_are_known(
    background: list[str], stages: list[dict[str, Any]], unnamed: list[str]
) -> None:
    spec = a_graph(*stages, labeling={"attention": {"background": background}})

    named = f"spec.labeling.attention.background: no prompt names {', '.join(unnamed)}; a background word"
    found = [each for each in Expansion(spec).warnings() if each.startswith("spec.labeling")]
    assert [each[: len(named)] for each in found] == ([named] if unnamed else [])


ONE_BALL = repainted("new", "base", replacements={"ball": ["moon"]}, template="one {object}")


@pytest.mark.parametrize(
    ("stages", "asked"),
    [
        ([ONE_BALL], {}),
        ([redrawn("mud", "base"), {**ONE_BALL, "inpaint": {**ONE_BALL["inpaint"], "from": "mud"}}], {}),
        ([repainted("b", "base"), {**ONE_BALL, "inpaint": {**ONE_BALL["inpaint"], "from": "b"}}], {}),
        ([ONE_BALL], {"templates": ["a ball {a} {b}"], "combine": "zip"}),
        ([ONE_BALL], {"templates": ["a ball {a} {b}"], "sample": 3}),
    ],
)
def test_an_omission_in_some_prompts_is_reported_before_all_are_rendered(
    stages: list[dict[str, Any]], asked: dict[str, Any]
) -> None:
    variables = {**PROMPTS["variables"], "a": ["alone", "here"], "b": ["there", "with a star"]}

    with pytest.raises(SpecError, match="inpaint.template: 'one moon' does not name star") as refused:
        Expansion(a_graph(*stages, prompts={**PROMPTS, "variables": variables, **asked})).check_stages()

    assert refused.value.reason == "ObjectLeftOut"


@pytest.mark.parametrize("asked", [{"combine": "zip"}, {"sample": 1}])
def test_a_class_that_no_prompt_shows_is_not_an_omission(asked: dict[str, Any]) -> None:
    variables = {"a": ["a ball alone", "a cube"], "b": ["here", "with a star"]}
    spec = a_graph(ONE_BALL, prompts={"templates": ["{a} {b}"], "variables": variables, **asked})

    assert (Expansion(spec).most["new"] > 0, prompts(spec, "new")) == (True, ["one moon"])


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        ("a ball++ on snow", "a moon++ on snow"),
        ("a (ball:1.4) on snow", "a (moon:1.4) on snow"),
        ("a Ball, balls and a ball", "a moon, balls and a moon"),
        ("a {{ball}}", "a {moon}"),
        ("a penta{end} of {object}", "a ball of moon"),
    ],
)
def test_the_class_is_found_in_the_templates_own_text(template: str, prompt: str) -> None:
    variables = {"end": ["gram"], "object": ["ball"]}
    if "penta" in template:
        spec = a_graph(
            repainted("new", "base", replacements={"star": ["ball"]}),
            prompts={"templates": [template], "variables": variables},
        )
        assert prompts(spec, "new") == ["a ball of ball"], "a name that is put together is found, too"
        return
    spec = a_graph(
        repainted("new", "base", replacements={"ball": ["moon"]}),
        prompts={"templates": [template], "variables": variables},
    )

    assert prompts(spec, "new") == [prompt]


def test_a_text_that_names_another_class_belongs_to_that_class() -> None:
    spec = a_graph(repainted("new", "base", replacements={"ball": ["small star"]}))

    assert samples(spec, "new")[0].words == {}


def test_words_are_passed_to_the_stages_that_draw_from_the_image() -> None:
    spec = a_graph(
        repainted("new", "base", replacements={"ball": ["moon"]}),
        redrawn("mud", "new"),
        repainted("last", "mud", replacements={"ball": ["red (orb:1.2)"], "star": ["sun"]}),
    )

    found = samples(spec, "mud")[0]
    assert (found.prompt, found.words) == ("a red moon on mud", {"ball": ("moon",)})
    assert found.source is not None
    assert [(each.replaced, len(each.id)) for each in found.source.line()] == [("", 32), ("ball", 32)]
    last = samples(spec, "last")[0]
    assert (last.prompt, last.words) == ("a red red (orb:1.2) on mud", {"ball": ("moon", "red orb")})


def test_every_sample_has_its_own_id_and_seed_and_is_read_back_unchanged() -> None:
    spec = a_graph(
        redrawn("mud", "base"),
        repainted(
            "new",
            "mud",
            replacements={"ball": ["cube"], "star": ["cube"]},
            template="a {object} on {place}, a ball, a star",
        ),
        redrawn("snow", "new", variables={"place": ["snow", "ice"]}),
    )
    everything = [sample for stage in ("base", "mud", "new", "snow") for sample in samples(spec, stage)]

    assert len({s.id for s in everything}) == len({s.seed for s in everything}) == len(everything)
    assert [Sample.from_row(sample.row()) for sample in everything] == everything


def test_a_threshold_changes_only_images_drawn_from_masks() -> None:
    stages = [repainted("new", "base"), redrawn("mud", "base"), redrawn("on", "new")]
    before, after = a_graph(*stages), a_graph(*stages, labeling={"attention": {"threshold": 0.5}})

    assert ids(before, "mud") == ids(after, "mud")
    assert not ids(before, "new") & ids(after, "new")
    assert not ids(before, "on") & ids(after, "on")
    assert [s.seed for s in samples(before, "on")] == [s.seed for s in samples(after, "on")]


def test_quality_changes_no_image() -> None:
    stages = [repainted("new", "base"), redrawn("mud", "base")]
    strict = a_graph(*stages, quality={"minInstances": 3, "minAreaFraction": 0.1})

    assert {s: ids(a_graph(*stages), s) for s in ("new", "mud")} == {s: ids(strict, s) for s in ("new", "mud")}


@pytest.mark.parametrize(
    ("changed", "kept"),
    [({"replacements": {"ball": ["big ball", "cube"]}}, True), ({"dilation": 0.1}, False), ({"strength": 0.5}, False)],
)
def test_a_new_replacement_keeps_existing_samples(changed: dict[str, Any], *, kept: bool) -> None:
    before, after = (ids(a_graph(repainted("new", "base", **change)), "new") for change in ({}, changed))

    assert (before <= after) is kept
    assert kept or not before & after


def test_the_number_of_samples_is_known_before_drawing() -> None:
    spec = a_graph(
        redrawn("mud", "base", variables={"place": ["mud", "snow"]}),
        repainted("new", "mud", replacements={"ball": ["cube"], "star": ["sun", "moon"]}),
    )

    most = Expansion(spec).most
    exact = {stage: len(samples(spec, stage)) for stage in most}
    assert exact == {stage: Expansion(spec).count_distinct_samples(stage) for stage in most}
    assert Expansion(spec).count_distinct_samples() == sum(exact.values())
    assert most["base"] == exact["base"] == 20
    assert all(most[stage] >= exact[stage] for stage in most)


def test_a_graph_of_sixteen_stages_in_any_order() -> None:
    chain = [redrawn(f"s{n}", f"s{n - 1}" if n else "base", variables={"place": [f"p{n}"]}) for n in range(15)]
    spec = a_spec(prompts=PROMPTS, stages=[*reversed(chain), BASE])

    last = samples(spec, "s14")
    assert len(last) == len(samples(spec, "base")) == 20
    assert last[0].prompt == "a red ball on p14"
    assert last[0].source is not None
    assert len(list(last[0].source.line())) == 15


def test_derived_samples_come_one_by_one() -> None:
    million = {
        "templates": ["a {object} on {place} {a} {b}"],
        "variables": {"object": ["ball"], "place": ["snow"], **{n: [str(i) for i in range(1000)] for n in "ab"}},
    }
    spec = a_graph(repainted("new", "base"), redrawn("mud", "new"), prompts=million)

    assert next(Expansion(spec).samples_of(recipes(spec)["mud"])).prompt == "a big ball on mud 0 0"


@pytest.mark.parametrize(
    ("stages", "reason", "message"),
    [
        (
            [redrawn("mud", "base", variables={"weather": ["rain"]})],
            "UnknownVariable",
            r"spec.stages\[1\].img2img.variables.weather: no prompt of stage 'base' has a field of .*color, left, obj",
        ),
        (
            [redrawn("mud", "base", variables={"object": ["cube"]})],
            "UnknownClass",
            r"spec.stages\[1\].img2img.variables.object\[0\]: 'cube' is not a class",
        ),
        (
            [repainted("new", "base", template="a {object} in {color}")],
            "UnknownVariable",
            r"spec.stages\[1\].inpaint.template: it has the field {color}, but the prompt 'a {left} and .* does not",
        ),
        (
            [repainted("new", "base", template="a {object")],
            "InvalidTemplate",
            r"spec.stages\[1\].inpaint.template: a lone '{'",
        ),
        (
            [repainted("new", "base", replacements={"ball": ["(red ball:1,2)"]})],
            "InvalidWeights",
            r"spec.stages\[1\].inpaint.replacements.ball: .*'1,2' is not a weight",
        ),
        (
            [redrawn("mud", "base", variables={"place": ["(mud:1,2)"]})],
            "InvalidWeights",
            r"spec.stages\[1\].img2img.variables: .*'1,2' is not a weight",
        ),
    ],
)
def test_an_impossible_stage_is_refused_at_once(stages: list[Any], reason: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as refused:
        Expansion(a_graph(*stages)).check_stages()

    assert refused.value.reason == reason


def test_a_class_that_no_source_names_has_no_label_to_replace() -> None:
    named = {**spec_data()["prompts"], "templates": ["a ball"]}
    spec = a_graph(repainted("new", "base", replacements={"star": ["sun"]}), prompts=named)

    with pytest.raises(
        SpecError,
        match=r"spec.stages\[1\].inpaint.replacements.star: no prompt of stage 'base' names the class 'star', so no "
        "label of it can become a mask; name it in a prompt, or remove it here",
    ):
        Expansion(spec).check_stages()
