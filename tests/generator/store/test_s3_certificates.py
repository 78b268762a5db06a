"""Which certificates of authorities the bucket store trusts."""

import certifi
import pytest
from minio.credentials.providers import StaticProvider

from diffugen_api.v1alpha1 import S3
from diffugen_generator.store.s3 import S3Store


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, certifi.where()),
        ({"AWS_CA_BUNDLE": "/own/aws.pem"}, "/own/aws.pem"),
        ({"SSL_CERT_FILE": "/own/ssl.pem"}, "/own/ssl.pem"),
        ({"AWS_CA_BUNDLE": "/own/aws.pem", "SSL_CERT_FILE": "/own/ssl.pem"}, "/own/ssl.pem"),
    ],
)
def test_a_bundle_of_ones_own_is_trusted(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    store = S3Store(S3(endpoint="https://store:9000", bucket="data"), "", credentials=StaticProvider("key", "secret"))

    assert store._client._http.connection_pool_kw["ca_certs"] == expected
