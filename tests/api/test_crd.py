"""The rendered CRD as a document. tests/cluster tests it on a real API server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

CRD = Path(__file__).parents[2] / "crds" / "diffugen.dev_labeleddatasets.yaml"
VERSION: dict[str, Any] = yaml.safe_load(CRD.read_text())["spec"]["versions"][0]
SCHEMA: dict[str, Any] = VERSION["schema"]["openAPIV3Schema"]["properties"]


def nodes(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, value in schema.get("properties", {}).items():
        yield from nodes(value, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from nodes(schema["additionalProperties"], f"{path}{{}}")


ALL = [*nodes(SCHEMA["spec"], "spec"), *nodes(SCHEMA["status"], "status")]


def test_it_fits_into_the_annotation_of_client_side_apply() -> None:
    assert len(CRD.read_bytes()) < 200_000


@pytest.mark.parametrize(("path", "node"), ALL, ids=[path for path, _ in ALL])
def test_every_string_list_and_map_is_bounded(path: str, node: dict[str, Any]) -> None:
    match node.get("type"):
        case "string":
            assert "maxLength" in node or "enum" in node
        case "array":
            assert "maxItems" in node
            assert "x-kubernetes-list-type" in node
        case "object" if "additionalProperties" in node:
            assert "maxProperties" in node


def test_no_default_is_written_into_users_objects() -> None:
    assert {path for path, node in ALL if "default" in node} == {"status"}
    assert SCHEMA["status"]["default"] == {"observedGeneration": -1}


def test_each_printer_column_reads_an_existing_field() -> None:
    paths = {column["name"]: column["jsonPath"] for column in VERSION["additionalPrinterColumns"]}

    always = ["Stage", "Progress", "Samples", "Ready", "Reason", "Age"]
    assert list(paths) == [*always, "Revision", "URI", "Images/s", "Seconds Left"]
    known = {path for path, _ in ALL}
    for name in paths.keys() - {"Ready", "Age"}:
        assert paths[name].removeprefix(".") in known


@pytest.mark.parametrize(("path", "node"), ALL, ids=[path for path, _ in ALL])
def test_every_field_has_a_description(path: str, node: dict[str, Any]) -> None:
    if not path.endswith(("[]", "{}")):
        assert node.get("description"), "kubectl explain shows it"
