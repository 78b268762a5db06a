"""Where a published file is, and which stores are Services of the cluster."""

from __future__ import annotations

import pytest

from diffugen_generator.kubectl_plugin.kubectl import Kubectl, KubectlError
from diffugen_generator.kubectl_plugin.published_files import Address, browser_address, service_of
from tests.operator.lives import a_life


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


def test_a_dataset_in_the_operators_default_store_is_opened_by_its_address() -> None:
    life = a_life().until_published()
    life.raw["spec"]["output"] = {}

    with (
        pytest.raises(KubectlError, match="diffugen view s3://pictures/vision/shapes --endpoint URL"),
        browser_address(Kubectl(), life.raw, "report.html"),
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
