"""Specs for tests: a small valid one, and ways to change it."""

from typing import Any

from diffugen_api.v1alpha1 import LabeledDatasetSpec


def spec_data(**changes: Any) -> dict[str, Any]:
    return {
        "classes": [{"name": "ball"}, {"name": "star", "synonyms": ["pentagram"]}],
        "prompts": {
            "templates": ["a {color} {object}", "a {object} on {place}"],
            "variables": {
                "object": ["ball", "star"],
                "color": ["red", "blue", "green"],
                "place": ["snow", "sand"],
            },
            "samplesPerPrompt": 2,
        },
        "stages": [{"name": "base", "txt2img": {"model": "builtin://shapes"}}],
        **changes,
    }


def a_spec(**changes: Any) -> LabeledDatasetSpec:
    return LabeledDatasetSpec.model_validate(spec_data(**changes))


def with_attention(**settings: Any) -> LabeledDatasetSpec:
    return a_spec(labeling={"attention": settings})


def with_prompts(**changes: Any) -> LabeledDatasetSpec:
    return a_spec(prompts={**spec_data()["prompts"], **changes})
