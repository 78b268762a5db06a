"""The private parts of MinIO's client that the store uses: this test fails if a release changes them."""

from __future__ import annotations

import inspect

from minio import Minio
from minio.error import InvalidResponseError

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
