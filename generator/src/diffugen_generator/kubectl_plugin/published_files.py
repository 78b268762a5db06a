"""Addresses of what a dataset has published, for a browser: the store's keys from the user's own right to read the
Secret, and a forwarded port where the store is a Service of the cluster."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from minio import Minio

from diffugen_api.contract import LABEL_DATASET, ORDER_KEY, ORDER_KEY_COMPRESSED
from diffugen_generator.kubectl_plugin.kubectl import Kubectl, KubectlError
from diffugen_generator.kubectl_plugin.report_server import Served, serving

Json = dict[str, Any]

VALID = timedelta(hours=1)
REPORT = "report.html"
_CLUSTER_SUFFIXES = (".svc", ".cluster.local")


@dataclass(frozen=True, slots=True)
class Address:
    """Where an object is in a store."""

    bucket: str
    key: str

    @classmethod
    def of(cls, dataset: Json, file: str) -> Address:
        """Return the address of a file of the published dataset. Raises KubectlError where none is published."""
        published = dataset.get("status", {}).get("dataset")
        if published is None:
            name = dataset["metadata"]["name"]
            raise KubectlError(f"{name} has published nothing yet: kubectl labeleddataset status {name}")
        uri = urlsplit(published["uri"])
        return cls(uri.netloc, f"{uri.path.strip('/')}/{file}")


@contextmanager
def browser_address(kubectl: Kubectl, dataset: Json, file: str) -> Iterator[tuple[str, str]]:
    """Yield an address for a browser, and why it ends with the context; empty where it does not.

    The report consists of many files, so the dataset is served on this machine. Any other file gets a signed address,
    which anybody can open for an hour.
    """
    address = Address.of(dataset, file)
    with _opened(kubectl, dataset, address) as (client, forwarded):
        if file != REPORT:
            signed = client.presigned_get_object(address.bucket, address.key, expires=VALID)
            yield str(signed), "The store's port is forwarded" if forwarded else ""
            return
        root, folder, rest = address.key.rpartition("revisions/")
        with serving(Served(client, address.bucket, root.strip("/"))) as served:
            yield f"{served}{folder}{rest}", "The dataset is served on this machine"


@contextmanager
def _opened(kubectl: Kubectl, dataset: Json, address: Address) -> Iterator[tuple[Minio, bool]]:
    """Yield a client of the dataset's store, and whether it uses a forwarded port."""
    s3 = dataset["spec"].get("output", {}).get("s3") or _default_store(kubectl, dataset)
    keys = _keys(kubectl, s3)
    endpoint = urlsplit(s3["endpoint"])
    service = service_of(s3["endpoint"], dataset["metadata"]["namespace"])
    if service is None:
        yield _client(endpoint.netloc, keys, s3, secure=endpoint.scheme == "https"), False
        return
    name, namespace, port = service
    s3 = {**s3, "addressingStyle": "path"}  # a host name of the bucket would not lead to the forwarded port
    with kubectl.port_forward(name, namespace, port) as local:
        yield _client(f"127.0.0.1:{local}", keys, s3, secure=endpoint.scheme == "https"), True


def _default_store(kubectl: Kubectl, dataset: Json) -> Json:
    """Return the operator's default store as `spec.output.s3` would name it, from the work order of the latest run."""
    orders = kubectl.items("configmaps", f"--selector={LABEL_DATASET}={dataset['metadata']['name']}")
    for order in sorted(orders, key=lambda each: str(each["metadata"]["creationTimestamp"]), reverse=True):
        text = order.get("data", {}).get(ORDER_KEY)
        if packed := order.get("binaryData", {}).get(ORDER_KEY_COMPRESSED):
            text = gzip.decompress(base64.b64decode(packed)).decode()
        if text and (s3 := json.loads(text)["spec"].get("output", {}).get("s3")):
            found: Json = s3
            return found
    raise KubectlError(
        "It is in the operator's default store, whose address is in no ConfigMap of the dataset any more: "
        f"diffugen view {dataset['status']['dataset']['uri']} --endpoint URL"
    )


def service_of(endpoint: str, namespace: str) -> tuple[str, str, int] | None:
    """Return name, namespace and port of the Service that an endpoint names; None for any other host."""
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    labels = host.split(".")
    if host == "localhost" or all(label.isdigit() for label in labels) or ":" in host:
        return None
    if len(labels) == 1:
        return labels[0], namespace, port
    if len(labels) == 2 or (host.endswith(_CLUSTER_SUFFIXES) and labels[2] == "svc"):
        return labels[0], labels[1], port
    return None


def _keys(kubectl: Kubectl, s3: Json) -> tuple[str, str, str]:
    secret = s3.get("secretRef", {}).get("name")
    if not secret:
        raise KubectlError("The dataset's pods have credentials of their own, with which nothing can be signed here.")
    data = kubectl.get("secret", secret).get("data", {})
    values = [base64.b64decode(data.get(key, "")).decode() for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    if not all(values):
        raise KubectlError(f"Secret {secret} lacks AWS_ACCESS_KEY_ID or AWS_SECRET_ACCESS_KEY: add both keys")
    return values[0], values[1], base64.b64decode(data.get("AWS_SESSION_TOKEN", "")).decode()


def _client(host: str, keys: tuple[str, str, str], s3: Json, *, secure: bool) -> Minio:
    access, secret, token = keys
    client = Minio(
        host,
        access_key=access,
        secret_key=secret,
        session_token=token or None,
        secure=secure,
        region=s3.get("region", "us-east-1"),
    )
    style = s3.get("addressingStyle", "auto")
    if style == "virtual":
        client.enable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
    elif style == "path":
        client.disable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
    return client
