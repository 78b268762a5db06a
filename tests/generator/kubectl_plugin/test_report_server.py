"""The server behind `kubectl labeleddataset open`: only reads, only of the dataset, only for who knows the address."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
import urllib3
from minio import Minio
from minio.error import S3Error

from diffugen_generator.kubectl_plugin.report_server import Served, serving

OBJECTS = {
    "vision/shapes/revisions/0a/report.html": b"<!doctype html>",
    "vision/shapes/samples/base/ab/image.png": b"\x89PNG",
    "vision/other/secret.json": b"{}",
}


class _Store:
    """Answers as minio's client does."""

    def get_object(self, bucket: str, key: str) -> urllib3.HTTPResponse:
        assert bucket == "pictures"
        if key not in OBJECTS:
            raise S3Error(cast("Any", None), "NoSuchKey", "The key does not exist.", key, "", "")
        data = OBJECTS[key]
        headers = {"Content-Type": "text/html", "Content-Length": str(len(data))}
        return urllib3.HTTPResponse(io.BytesIO(data), headers=headers, status=200, preload_content=False)


@pytest.fixture
def root() -> Iterator[str]:
    with serving(Served(cast("Minio", _Store()), "pictures", "vision/shapes")) as address:
        yield address


def test_files_of_the_dataset_are_served(root: str) -> None:
    page = urllib3.request("GET", f"{root}revisions/0a/report.html")
    assert (page.status, page.data) == (200, b"<!doctype html>")
    assert page.headers["Content-Type"] == "text/html"
    assert urllib3.request("GET", f"{root}samples/base/ab/image.png").data == b"\x89PNG"
    assert urllib3.request("GET", f"{root}revisions/0a/gone.js").status == 404


def test_nothing_else_is_served(root: str) -> None:
    parts = urlsplit(root)
    assert parts.hostname == "127.0.0.1"
    host, word = f"http://{parts.netloc}", parts.path.strip("/")
    for path in (
        "/revisions/0a/report.html",
        "/x/revisions/0a/report.html",
        f"/{word}",
        f"/{word}/",
        f"/{word}/%2e%2e/other/secret.json",
        f"/{word}/..%2fother/secret.json",
        "/",
    ):
        assert urllib3.request("GET", host + path).status == 404, path
    assert urllib3.request("PUT", f"{root}revisions/0a/report.html", body=b"x").status == 501
    assert len(word) >= 24
