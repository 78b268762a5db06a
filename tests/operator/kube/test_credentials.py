"""The service account in a token: it owns the operator's Lease."""

from __future__ import annotations

import base64
import json

import pytest

from diffugen_operator.kube.credentials import Credential, ServiceAccount, service_account_of


def bearer(claims: object) -> Credential:
    parts = [json.dumps({"alg": "RS256"}), json.dumps(claims), "signature"]
    token = ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)
    return Credential(authorization=f"Bearer {token}")


def test_a_token_of_kubernetes_names_its_service_account() -> None:
    # The claims of a token that the kubelet mounts.
    claims = {
        "aud": ["https://kubernetes.default.svc"],
        "kubernetes.io": {
            "namespace": "system",
            "pod": {"name": "operator-0", "uid": "5d"},
            "serviceaccount": {"name": "diffugen-operator", "uid": "9f"},
        },
        "sub": "system:serviceaccount:system:diffugen-operator",
    }

    found = service_account_of(bearer(claims))

    assert found == ServiceAccount(namespace="system", name="diffugen-operator", uid="9f")


@pytest.mark.parametrize(
    "credential",
    [
        Credential(),
        Credential(authorization="Basic YTpi"),
        Credential(authorization="Bearer opaque"),
        Credential(authorization="Bearer a.b.c"),
        Credential(authorization="Bearer ä.ö.ü"),
        bearer({}),
        bearer([]),
        bearer({"kubernetes.io": {"namespace": "system"}}),
        bearer({"kubernetes.io": {"namespace": "system", "serviceaccount": None}}),
    ],
)
def test_other_credentials_have_none(credential: Credential) -> None:
    assert service_account_of(credential) is None
