"""Stages and their graph: which are valid in a manifest, and in which order they are drawn."""

from typing import Any

import pytest
from pydantic import ValidationError

from diffugen_api.derivations.registry import DERIVATIONS
from diffugen_api.plan import revision_of
from diffugen_api.v1alpha1 import Stage, embeddings_of, in_graph_order, model_of
from diffugen_api.v1alpha1.kinds.base import DrawingFromImages
from diffugen_api.v1alpha1.stages import KINDS
from tests.api.specs import a_spec, spec_data

BASE: dict[str, Any] = spec_data()["stages"][0]


def redrawn(name: str, source: str, **task: Any) -> dict[str, Any]:
    return {"name": name, "img2img": {"from": source, "variables": {"place": ["mud"]}, **task}}


def repainted(name: str, source: str, **task: Any) -> dict[str, Any]:
    return {"name": name, "inpaint": {"from": source, "replacements": {"ball": ["big ball"]}, **task}}


def test_every_kind_has_a_field_and_a_derivation_where_it_has_a_source() -> None:
    drawing = [field for field in Stage.model_fields if field not in {"name", "textual_inversion"}]
    assert [kind.kind for kind in KINDS] == drawing
    assert set(DERIVATIONS) == {kind.kind for kind in KINDS if issubclass(kind, DrawingFromImages)}


def test_a_stage_knows_its_kind_its_source_and_its_task() -> None:
    base, mud, big = a_spec(stages=[BASE, redrawn("mud", "base"), repainted("big", "mud")]).stages

    assert [(stage.kind, stage.source) for stage in (base, mud, big)] == [
        ("txt2img", None),
        ("img2img", "base"),
        ("inpaint", "mud"),
    ]
    assert (base.task.steps, mud.task.steps, big.task.guidance_scale) == (25, 25, 3)
    assert mud.img2img is not None
    assert big.inpaint is not None
    assert (mud.img2img.strength, big.inpaint.strength, big.inpaint.instances) == (0.6, 1, "all")


def test_stages_are_drawn_in_graph_order_and_else_in_manifest_order() -> None:
    stages = [repainted("c", "b"), BASE, redrawn("b", "a"), redrawn("a", "base"), {**BASE, "name": "other"}]

    assert [s.name for s in in_graph_order(a_spec(stages=stages).stages)] == ["base", "a", "b", "c", "other"]


def test_a_stage_without_a_model_draws_with_its_sources_model() -> None:
    stages = [BASE, redrawn("a", "base"), repainted("b", "a", model="/models/inpainting"), redrawn("c", "b")]
    spec = a_spec(stages=stages)

    assert [model_of(spec.stages, stage) for stage in spec.stages] == [
        ("builtin://shapes", "spec.stages[0].txt2img.model"),
        ("builtin://shapes", "spec.stages[0].txt2img.model"),
        ("/models/inpainting", "spec.stages[2].inpaint.model"),
        ("/models/inpainting", "spec.stages[2].inpaint.model"),
    ]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"name": "base"}], "a stage is exactly one of txt2img, img2img, inpaint and textualInversion: give it one"),
        (
            [{**BASE, **redrawn("x", "base")}],
            "a stage is exactly one of txt2img, img2img, inpaint and textualInversion: give it one",
        ),
        (
            [BASE, redrawn("mud", "bse")],
            r"\[1\].img2img.from: there is no stage 'bse' to draw from: name another stage \(there are: base\)",
        ),
        ([BASE, redrawn("mud", "mud")], r"\[1\].img2img.from: stage 'mud' cannot draw from itself: name another"),
        (
            [BASE, redrawn("a", "b"), repainted("b", "c"), redrawn("c", "a")],
            r"\[1\].img2img.from: the stages 'a' from 'b' from 'c' from 'a' draw from one another in a circle: let one",
        ),
        (
            [BASE, repainted("new", "base", replacements={"Ball": ["red ball"]})],
            r"stages\[1\].inpaint.replacements: 'Ball' is not a class: use one of ball, star, or add it to spec.clas",
        ),
        ([BASE, repainted("new", "base", replacements={})], "at least 1 item"),
        ([BASE, repainted("new", "base", replacements={"ball": ["red ball "]})], "should match pattern"),
        ([BASE, redrawn("mud", "base", variables={})], "at least 1 item"),
        ([BASE, redrawn("mud", "base", strength=0)], "greater than 0"),
        ([BASE, repainted("new", "base", strength=1.1)], "less than or equal to 1"),
        ([BASE, repainted("new", "base", dilation=0.6)], "less than or equal to 0.5"),
    ],
)
def test_a_bad_graph_is_refused_with_the_field_and_the_fix(stages: list[Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        a_spec(stages=stages)


def test_every_setting_of_a_derived_stage_is_in_the_revision() -> None:
    changes: list[dict[str, Any]] = [
        {"strength": 0.5},
        {"steps": 7},
        {"guidanceScale": 2},
        {"scheduler": "ddim"},
        {"model": "/models/x"},
        {"replacements": {"ball": ["bigger ball"]}},
        {"template": "a {object}"},
        {"instances": "largest"},
        {"dilation": 0},
    ]
    revisions = {revision_of(a_spec(stages=[BASE, repainted("new", "base", **change)])) for change in [{}, *changes]}

    assert len(revisions) == len(changes) + 1


def test_a_stage_that_draws_with_its_sources_model_knows_its_words_too() -> None:
    def taught(*tokens: str, folder: str) -> list[dict[str, str]]:
        return [{"uri": f"/{folder}/{token}", "token": token} for token in tokens]

    base = {"name": "base", "txt2img": {"model": "builtin://shapes", "embeddings": taught("<a>", "<b>", folder="base")}}
    spec = a_spec(
        stages=[
            base,
            redrawn("mud", "base", embeddings=taught("<B>", "<c>", folder="mud")),
            redrawn("own", "mud", model="/models/x"),
        ]
    )

    assert {field: each.uri for field, each in embeddings_of(spec.stages, spec.stages[1]).items()} == {
        "spec.stages[1].img2img.embeddings[0]": "/mud/<B>",
        "spec.stages[1].img2img.embeddings[1]": "/mud/<c>",
        "spec.stages[0].txt2img.embeddings[0]": "/base/<a>",
    }
    assert embeddings_of(spec.stages, spec.stages[2]) == {}
