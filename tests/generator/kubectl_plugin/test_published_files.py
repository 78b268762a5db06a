"""Where a published file is, and which stores are Services of the cluster."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import pytest

from diffugen_generator.kubectl_plugin.kubectl import Kubectl, KubectlError
from diffugen_generator.kubectl_plugin.published_files import Address, browser_address, service_of
from tests.operator.lives import a_life

Json = dict[str, Any]
OBJECTS: list[Json] = []


@pytest.mark.parametrize(
    ("endpoint", "service"),
    [
        ("http://minio:9000", ("minio", "vision", 9000)),
        ("http://minio.storage:9000", ("minio", "storage", 9000)),
        ("http://minio.storage.svc:9000", ("minio", "storage", 9000)),
        ("https://minio.storage.svc.cluster.local", ("minio", "storage", 443)),
        ("https://s3.eu-west-1.amazonaws.com", None),
        ("https://play.min.io", None),
        ("http://127.0.0.1:9000", None),
        ("http://localhost:9000", None),
        ("http://[::1]:9000", None),
    ],
)
def test_which_endpoints_are_services(endpoint: str, service: tuple[str, str, int] | None) -> None:
    assert service_of(endpoint, "vision") == service


def test_the_address_of_a_file_of_the_published_dataset() -> None:
    assert Address.of(a_life().until_published().raw, "report.html") == Address("pictures", "vision/shapes/report.html")


def test_nothing_published_yet() -> None:
    with pytest.raises(KubectlError, match="shapes has published nothing yet"):
        Address.of(a_life().until_drawing().raw, "report.html")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What kubectl is asked for; it has one Secret, and the objects of `OBJECTS`."""
    asked: list[tuple[str, ...]] = []
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    secret = {"data": {name: base64.b64encode(value.encode()).decode() for name, value in keys.items()}}

    def items(_: Kubectl, *arguments: str) -> list[Json]:
        asked.append(arguments)
        return OBJECTS

    def get(_: Kubectl, *arguments: str) -> Json:
        asked.append(arguments)
        return secret

    monkeypatch.setattr(Kubectl, "items", items)
    monkeypatch.setattr(Kubectl, "get", get)
    OBJECTS.clear()
    return asked


def a_work_order(created: str, endpoint: str, *, compressed: bool) -> Json:
    """The ConfigMap of a run, as the operator makes it."""
    s3 = {"endpoint": endpoint, "bucket": "pictures", "prefix": "", "secretRef": {"name": "store"}}
    text = json.dumps({"name": "shapes", "spec": {"output": {"s3": s3}}})
    packed = base64.b64encode(gzip.compress(text.encode())).decode()
    content = {"binaryData": {"order.json.gz": packed}} if compressed else {"data": {"order.json": text}}
    return {"metadata": {"name": f"order-{created}", "creationTimestamp": created}, **content}


def in_the_default_store() -> Json:
    life = a_life().until_published()
    life.raw["spec"]["output"] = {}
    return dict(life.raw)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_dataset_in_the_operators_default_store_is_found_by_its_work_order(
    asked: list[tuple[str, ...]], compressed: bool
) -> None:
    OBJECTS[:] = [
        a_work_order("2026-11-01T00:00:00Z", "https://former.example.com", compressed=compressed),
        a_work_order("2026-11-02T00:00:00Z", "https://store.example.com", compressed=compressed),
        {"metadata": {"name": "another", "creationTimestamp": "2026-11-03T00:00:00Z"}, "data": {"key": "value"}},
    ]

    with browser_address(Kubectl(), in_the_default_store(), "contact-sheet.png") as (address, ends):
        assert address.startswith("https://store.example.com/pictures/vision/shapes/contact-sheet.png?")

    assert ends == ""
    assert ("configmaps", "--selector=diffugen.dev/dataset=shapes") in asked
    assert ("secret", "store") in asked


@pytest.mark.usefixtures("asked")
def test_without_a_work_order_the_user_names_the_store() -> None:
    with (
        pytest.raises(KubectlError, match="diffugen view s3://pictures/vision/shapes --endpoint URL"),
        browser_address(Kubectl(), in_the_default_store(), "report.html"),
    ):
        pass


def test_flags_of_the_user_are_passed_to_kubectl() -> None:
    kubectl = Kubectl(namespace="vision", context="kind", kubeconfig="/k")

    assert kubectl.command("get", "pods") == [
        "kubectl",
        "--namespace=vision",
        "--context=kind",
        "--kubeconfig=/k",
        "get",
        "pods",
    ]


def test_without_kubectl_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(KubectlError, match="kubectl is not on the PATH"):
        Kubectl().run("version")
