"""Render what is generated from the models: the CRD, the chart's copy of it, and the API reference.

`python crds/render.py` writes them; `--check` exits 1 where a file in the tree differs from what would be
written. The CRD is a structural schema: references resolved, no titles, no defaults (but for status), nothing
that the API server would refuse. Pydantic's keywords that Kubernetes lacks are translated or left out below.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from diffugen_api import contract
from diffugen_api.v1alpha1 import LabeledDataset, LabeledDatasetSpec, LabeledDatasetStatus

ROOT = Path(__file__).parent.parent
CRD_FILE = ROOT / "crds" / f"{contract.GROUP}_{contract.PLURAL}.yaml"
CHART_FILE = ROOT / "charts" / "diffugen-operator" / "files" / "crd.yaml"
REFERENCE_FILE = ROOT / "docs" / "reference.md"

Schema = dict[str, Any]

KEPT = {
    "type", "description", "enum", "format", "items", "maxItems", "maxLength", "maxProperties", "maximum",
    "minItems", "minLength", "minimum", "multipleOf", "pattern", "properties", "required",
}  # fmt: skip

PRINTER_COLUMNS = [
    ("Stage", "string", ".status.summary.stage", 0),
    ("Progress", "string", ".status.summary.progress", 0),
    ("Samples", "integer", ".status.dataset.samples", 0),
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', 0),
    ("Reason", "string", ".status.summary.reason", 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("Revision", "string", ".status.dataset.revision", 1),
    ("URI", "string", ".status.dataset.uri", 1),
    ("Images/s", "string", ".status.summary.imagesPerSecond", 1),
    ("Seconds Left", "integer", ".status.summary.etaSeconds", 1),
]


def structural(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """Return a pydantic JSON schema as a Kubernetes structural schema."""
    if "$ref" in schema:
        target = definitions[schema["$ref"].rsplit("/", 1)[1]]
        # What stands beside a reference (a field's own description) outranks what the referenced model says.
        return structural({**target, **{k: v for k, v in schema.items() if k != "$ref"}}, definitions)
    if schema.get("x-kubernetes-int-or-string"):
        return {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}
    if "anyOf" in schema and schema["anyOf"][-1].get("const"):
        # A number or one word: only an untyped field may hold either; each bound is asked of its own kind of value.
        number, word = schema["anyOf"]
        out = {k: v for k, v in number.items() if k in {"minimum", "maximum"}} | {"pattern": f"^{word['const']}$"}
        return {"description": schema["description"], **out, "x-kubernetes-preserve-unknown-fields": True}
    if "anyOf" in schema:
        # Optional[X]: an absent field and null are the same to the API server, which drops nulls.
        (variant,) = (v for v in schema["anyOf"] if v.get("type") != "null")
        return structural(
            {**variant, **{k: v for k, v in schema.items() if k not in {"anyOf", "default"}}}, definitions
        )

    out: Schema = {k: v for k, v in schema.items() if k in KEPT or k.startswith("x-kubernetes-")}
    if "description" in out:
        out["description"] = " ".join(out["description"].split())
    if "const" in schema:
        out["enum"] = [schema["const"]]
    if "properties" in schema:
        out["properties"] = {name: structural(value, definitions) for name, value in schema["properties"].items()}
    if "items" in schema:
        out["items"] = structural(schema["items"], definitions)
        out.setdefault("x-kubernetes-list-type", "atomic")
    match out.get("type"):
        case "integer":
            out["format"] = "int64"
        case "number":
            out["format"] = "double"
        case "object" if "properties" not in out and "x-kubernetes-preserve-unknown-fields" not in out:
            out["additionalProperties"] = structural(_map_values(schema), definitions)
    return out


def _map_values(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    # Keys with a pattern come as patternProperties, which a structural schema may not have: CEL checks them.
    if "patternProperties" in schema:
        (values,) = schema["patternProperties"].values()
        return dict(values)
    return dict(schema["additionalProperties"])


def schema_of(model: type[BaseModel]) -> Schema:
    """Return a model's structural schema."""
    raw = model.model_json_schema(by_alias=True)
    return structural(raw, raw.get("$defs", {}))


def crd() -> Schema:
    """Return the CustomResourceDefinition."""
    columns = [
        {"name": name, "type": kind, "jsonPath": path, "priority": priority}
        for name, kind, path, priority in PRINTER_COLUMNS
    ]
    # A new object must not look observed before the operator has seen it (kstatus compares with generation).
    status = {**schema_of(LabeledDatasetStatus), "default": {"observedGeneration": -1}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{contract.PLURAL}.{contract.GROUP}"},
        "spec": {
            "group": contract.GROUP,
            "names": {
                "kind": contract.KIND,
                "listKind": f"{contract.KIND}List",
                "plural": contract.PLURAL,
                "singular": contract.KIND.lower(),
                "shortNames": ["lds"],
                "categories": ["all"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": contract.VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "description": " ".join((LabeledDataset.__doc__ or "").split()),
                            "required": ["spec"],
                            "properties": {
                                "apiVersion": {"type": "string"},
                                "kind": {"type": "string"},
                                # The name stands in labels and, shortened, in Jobs' names.
                                "metadata": {
                                    "type": "object",
                                    "properties": {"name": {"type": "string", "maxLength": 63}},
                                },
                                "spec": schema_of(LabeledDatasetSpec),
                                "status": status,
                            },
                        }
                    },
                }
            ],
        },
    }


def rows(path: str, model: type[BaseModel]) -> Iterator[tuple[str, str, str, str]]:
    """Yield (field path, type, default, description) for every field below a model."""
    raw = model.model_json_schema(by_alias=True)
    yield from _rows(path, raw, raw.get("$defs", {}))


def _rows(path: str, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    clean = structural(schema, definitions)
    raw = definitions[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
    for name, field in raw.get("properties", {}).items():
        here, shape = f"{path}.{name}", clean["properties"][name]
        default = "required" if name in raw.get("required", []) else _default(field)
        yield here, _type(shape), default, _bounds(shape)
        inner, suffix = field, ""
        for option in inner.get("anyOf", []):
            if "$ref" in option:
                inner = option
        if inner.get("type") == "array":
            inner, suffix = inner["items"], "[]"
        if "$ref" in inner:
            yield from _rows(here + suffix, inner, definitions)


def _default(field: Mapping[str, Any]) -> str:
    value = field.get("default")
    return (
        "" if value is None or value in ("", [], {}) else f"`{value}`".replace("True", "true").replace("False", "false")
    )


def _type(shape: Mapping[str, Any]) -> str:
    if shape.get("type") == "array":
        return f"{_type(shape['items'])}[]"
    if "additionalProperties" in shape:
        return f"map of {_type(shape['additionalProperties'])}"
    if "enum" in shape:
        return " \\| ".join(f"`{value}`" for value in shape["enum"])
    if "minimum" in shape and "pattern" in shape:
        return f"number \\| `{shape['pattern'].strip('^$')}`"
    return str(shape.get("type", "integer or string"))


def _bounds(shape: Mapping[str, Any]) -> str:
    parts = [str(shape.get("description", ""))]
    match shape.get("minimum"), shape.get("maximum"):
        case None, None:
            pass
        case low, None:
            parts.append(f"At least {low}.")
        case None, high:
            parts.append(f"At most {high}.")
        case low, high:
            parts.append(f"{low} to {high}.")
    if "maxItems" in shape:
        parts.append(f"{shape.get('minItems', 0)} to {shape['maxItems']} items.")
    return " ".join(filter(None, parts)).replace("|", "\\|")


def reference() -> str:
    """Return the API reference as Markdown."""
    lines = [
        "# API reference: LabeledDataset",
        "",
        f"Group `{contract.GROUP}`, version `{contract.VERSION}`, short name `lds`. Rendered from the models",
        "in `crds/src/diffugen_api/v1alpha1/` by `make generate`; do not edit.",
        "",
    ]
    for title, path, model in (
        ("Spec", "spec", LabeledDatasetSpec),
        ("Status", "status", LabeledDatasetStatus),
    ):
        lines += [f"## {title}", "", "| field | type | default | |", "| --- | --- | --- | --- |"]
        lines += [f"| `{a}` | {b} | {c} | {d} |" for a, b, c, d in rows(path, model)]
        lines.append("")
    lines += ["## Exit codes of a worker", "", "| code | name | meaning |", "| --- | --- | --- |"]
    meanings = {
        contract.ExitCode.DONE: "The step is done.",
        contract.ExitCode.BAD_SPEC: "Spec or model cannot work: the Job fails, the dataset is `Stalled`.",
        contract.ExitCode.BAD_SHARD: "This shard alone cannot work: its index fails.",
        contract.ExitCode.TRY_AGAIN: "Store unreachable, out of memory, or the pod was asked to stop: retried.",
        contract.ExitCode.REFUSED: "Credentials refused: the Job fails, the dataset is `Stalled`.",
    }
    lines += [f"| {code.value} | {code.name} | {meanings[code]} |" for code in contract.ExitCode]
    return "\n".join(lines) + "\n"


def rendered() -> dict[Path, str]:
    """Return every generated file and its text."""
    head = "# Rendered from crds/src/diffugen_api by `make generate`; do not edit.\n"
    text = head + yaml.safe_dump(crd(), sort_keys=False, width=120, allow_unicode=True)
    return {
        CRD_FILE: text,
        CHART_FILE: text,
        REFERENCE_FILE: reference(),
    }


def main() -> int:
    """Write the generated files, or with --check compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 and show the difference")
    check = parser.parse_args().check
    stale = 0
    for file, text in rendered().items():
        found = file.read_text() if file.exists() else ""
        if found == text:
            continue
        stale += 1
        if check:
            name = str(file.relative_to(ROOT))
            sys.stdout.writelines(
                difflib.unified_diff(found.splitlines(True), text.splitlines(True), name, f"{name} (rendered)")
            )
            sys.stdout.write(f"{name} is out of date: run `make generate`\n")
        else:
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
