"""Makes manifests from the CRD's schema by a seeded generator: valid values, then a few odd ones."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import yaml

from tests.generator.fuzz.damage import Raw, changed, places

CRD = Path(__file__).parents[3] / "crds" / "diffugen.dev_labeleddatasets.yaml"
Schema = Mapping[str, Any]

_TEXTS = (
    "ball", "star", "base", "new", "a {object} on {place}", "red ball", "snow", "object", "place", "x", "auto", "1",
    "train", "http://minio:9000", "data", "a/b", "0" * 64, "<gem>", "builtin://shapes", "nvidia.com/gpu",
    "(ball:1.3) [x]", "balls", "球", "café", "{", "{}", "{{x}}", "a++ (b)-", "AND BREAK __x__", "ball " * 60,
    "<lora:x:1>",
)  # fmt: skip


def spec_schema() -> Schema:
    versions = yaml.safe_load(CRD.read_text())["spec"]["versions"]
    schema: Schema = versions[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return schema


def value_of(schema: Schema, chance: Random, models: Sequence[str], name: str = "") -> Any:
    """Return a value that a schema allows, mostly."""
    if "enum" in schema:
        return chance.choice(schema["enum"])
    if "anyOf" in schema or schema.get("x-kubernetes-preserve-unknown-fields"):
        return chance.choice([1, "1", 0.4, "auto", {"a": [1]}, {}])
    match schema.get("type"):
        case "object" if "properties" in schema:
            wanted = schema.get("required", ())
            return {
                key: value_of(each, chance, models, key)
                for key, each in schema["properties"].items()
                if key in wanted or chance.random() < 0.25
            }
        case "object":
            values = schema.get("additionalProperties", {})
            names = chance.sample(("ball", "star", "object", "place", "x"), chance.randint(1, 2))
            return {key: value_of(values, chance, models) for key in names}
        case "array":
            count = chance.randint(schema.get("minItems", 0), min(schema.get("maxItems", 3), 3))
            return [value_of(schema["items"], chance, models, name) for _ in range(count)]
        case "integer" | "number":
            least, most = schema.get("minimum", -5), schema.get("maximum", 5)
            number = chance.choice([least, most, least + (most - least) * chance.random() ** 4])
            step = schema.get("multipleOf", 1)
            return int(number // step * step) or least if schema["type"] == "integer" else number
        case "boolean":
            return chance.random() < 0.5
        case _:
            if name == "model":
                return chance.choice(models)
            pattern, most = schema.get("pattern", ""), schema.get("maxLength", 99)
            fitting = [text for text in _TEXTS if len(text) <= most and re.search(pattern, text)]
            return chance.choice(fitting or ["a"])


def manifest(chance: Random, schema: Schema, models: Sequence[str]) -> bytes:
    """Return a manifest as YAML: a plain one, some fields of it made anew, and a few values of it changed."""
    spec: dict[str, Any] = {
        "classes": [{"name": "ball", "synonyms": ["orb"]}, {"name": "star"}],
        "image": {"width": 64, "height": 64},
        "prompts": {
            "templates": ["a {object} on {place}"],
            "variables": {"object": ["ball", "star"], "place": ["snow"]},
        },
        "stages": [{"name": "base", "txt2img": {"model": models[0], "steps": 2}}],
    }
    properties = schema["properties"]
    for name in chance.sample(sorted(properties), chance.randint(0, 3)):
        spec[name] = value_of(properties[name], chance, models, name)
    if chance.random() < 0.3:
        kind = chance.choice(["img2img", "inpaint"])
        task = value_of(properties["stages"]["items"]["properties"][kind], chance, models)
        spec["stages"] = [*spec["stages"], {"name": "new", kind: {**task, "from": "base"}}][:16]
    document = {
        "apiVersion": "diffugen.dev/v1alpha1",
        "kind": "LabeledDataset",
        "metadata": {"name": "fuzz"},
        "spec": spec,
    }
    for _ in range(chance.choice([0, 0, 1, 1, 2, 4])):
        head, document["spec"] = document, changed(document["spec"], chance)
        if isinstance(document["spec"], Raw):
            return f"kind: LabeledDataset\nmetadata: {{name: a}}\nspec: {document['spec']}\n".encode()
        if chance.random() < 0.05:
            document = changed(head, chance)
            if not isinstance(document, dict) or not isinstance(document.get("spec"), dict):
                break
    raws = _raws(document)
    text = yaml.safe_dump(document, allow_unicode=True) if not raws else yaml.safe_dump(_without_raw(document, raws))
    for mark, raw in raws.items():
        text = text.replace(mark, raw)
    if chance.random() < 0.03:
        text = text.replace(chance.choice(["ball", "snow", "64", "base"]), chance.choice(_YAML), 1)
    return text.encode(errors="surrogatepass")


_BOMB = "[" + ", ".join(["&a0 [x, x]"] + [f"&a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]) + "]"
_YAML = (
    "&a [*a]",
    "&a {b: *a}",
    _BOMB,
    "2026-99-99",
    ".inf",
    "-.inf",
    ".nan",
    "1e400",
    "0x" + "f" * 9000,
    "1:2:3",
    "!!binary '*'",
    "!!python/object:os.system {}",
    "!x y",
    "<<: 1",
    "? [a]",
)
"""What YAML has and JSON lacks."""


def _raws(document: Any) -> dict[str, str]:
    found = {}
    for number, path in enumerate(places(document)):
        value = document
        for part in path:
            value = value[part]
        if isinstance(value, Raw):
            found[f"RAW{number}RAW"] = str(value)
    return found


def _without_raw(document: Any, raws: Mapping[str, str]) -> Any:
    marks = iter(raws)

    def marked(value: Any) -> Any:
        if isinstance(value, Raw):
            return next(marks)
        if isinstance(value, dict):
            return {key: marked(each) for key, each in value.items()}
        if isinstance(value, list):
            return [marked(each) for each in value]
        return value

    return marked(document)
