"""The client of buckets: how requests name them, and the private parts of MinIO's client, which releases may change."""

from __future__ import annotations

import inspect
from typing import NoReturn

import pytest
import urllib3
from minio import Minio
from minio.credentials.providers import StaticProvider
from minio.error import InvalidResponseError

from diffugen_api.plan import SpecError
from diffugen_api.v1alpha1 import S3
from diffugen_generator.commands.locations import store_of
from diffugen_generator.failures import StoreUnreachable
from diffugen_generator.store.s3 import S3Store
from diffugen_generator.store.s3_client import status_of


def test_the_client_sends_a_signed_request_by_its_private_method() -> None:
    signature = inspect.signature(Minio._execute)

    bound = signature.bind(
        None, "GET", "bucket", "key", headers={"x-amz-copy-source": "/bucket/other"}, query_params={"list-type": "2"}
    )

    assert list(bound.arguments) == ["self", "method", "bucket_name", "object_name", "headers", "query_params"]
    assert signature.parameters["preload_content"].default is True, "the answer's body is read"


def test_the_error_for_a_response_that_is_not_xml_has_its_status() -> None:
    assert status_of(InvalidResponseError(503, "text/html", "<html>")) == 503


@pytest.mark.parametrize(
    ("endpoint", "style", "url"),
    [
        ("http://minio:9000", "auto", "http://minio:9000/data/team/a"),
        ("http://minio:9000", "virtual", "http://data.minio:9000/team/a"),
        ("https://s3.eu-west-1.amazonaws.com", "auto", "https://data.s3.eu-west-1.amazonaws.com/team/a"),
        ("https://s3.eu-west-1.amazonaws.com", "path", "https://s3.eu-west-1.amazonaws.com/data/team/a"),
    ],
)
def test_a_bucket_is_named_by_path_or_by_host(
    endpoint: str, style: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def urlopen(_: object, method: str, address: str, **__: object) -> NoReturn:
        asked.append(f"{method} {address.partition('?')[0]}")
        raise urllib3.exceptions.HTTPError

    monkeypatch.setattr(urllib3.PoolManager, "urlopen", urlopen)
    where = {"endpoint": endpoint, "bucket": "data", "region": "eu-west-1", "addressingStyle": style}
    store = S3Store(S3.model_validate(where), "team", credentials=StaticProvider("access", "secret-of-it"))

    with pytest.raises(StoreUnreachable):
        store.read("a")

    assert asked == [f"GET {url}"]


def test_an_unknown_style_is_refused_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUGEN_S3_ADDRESSING_STYLE", "host")

    with pytest.raises(SpecError, match="DIFFUGEN_S3_ADDRESSING_STYLE is 'host': set it to auto, path or virtual"):
        store_of("s3://data/team", "http://minio:9000")
