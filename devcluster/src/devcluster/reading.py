"""Reads objects from the API server over a kept connection.

A test polls. One kubectl process per poll costs about a tenth of a second of CPU time, one request a thousandth.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
import yaml

from devcluster.ending import ClusterError
from devcluster.kubeapi import JsonObject

_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


@dataclass(frozen=True)
class _Kind:
    names: frozenset[str]
    """Plural, singular and short names, in lower case."""
    group_version: str
    kind: str
    plural: str
    namespaced: bool

    def path(self, namespace: str) -> str:
        root = "/apis/" if "/" in self.group_version else "/api/"
        inside = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{root}{self.group_version}{inside}/{self.plural}"


class ObjectReader:
    """Reads objects as the kubeconfig's only user; safe for several threads."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        self._server = config["clusters"][0]["cluster"]["server"]
        self._pool = urllib3.PoolManager(
            ca_certs=config["clusters"][0]["cluster"]["certificate-authority"],
            headers={"Authorization": f"Bearer {config['users'][0]['user']['token']}"},
            timeout=urllib3.Timeout(connect=5, read=60),
            retries=False,
        )
        self._kinds: dict[str, _Kind] = {}

    def get(self, resource: str, name: str, *, namespace: str) -> JsonObject:
        """Return one object. Raises `ClusterError` with the server's message."""
        kind = self._kind(resource)
        return self._read(f"{kind.path(namespace)}/{name}")

    def items(self, resource: str, *, namespace: str, selector: str) -> list[JsonObject]:
        """Return the objects of one namespace, or of all if `namespace` is empty. Raises `ClusterError`."""
        kind = self._kind(resource)
        fields = {"labelSelector": selector} if selector else {}
        found = self._read(kind.path(namespace), **fields)["items"]
        # In a list, only the list names the kind.
        return [{"apiVersion": kind.group_version, "kind": kind.kind, **each} for each in found]

    def _kind(self, resource: str) -> _Kind:
        if resource not in self._kinds:
            found = [*self._discovered("/api"), *self._discovered("/apis")]
            self._kinds = {name: kind for kind in reversed(found) for name in kind.names}
        if resource not in self._kinds:
            raise ClusterError(f"the server has no resource type {resource!r}")
        return self._kinds[resource]

    def _discovered(self, root: str) -> Iterator[_Kind]:
        for group in self._read(root, accept=_DISCOVERY)["items"]:
            preferred = group["versions"][0]
            prefix = f"{group['metadata']['name']}/" if group["metadata"].get("name") else ""
            for resource in preferred.get("resources", []):
                plural = resource["resource"]
                names = {plural, resource.get("singularResource") or plural, *resource.get("shortNames", [])}
                yield _Kind(
                    names=frozenset(names),
                    group_version=f"{prefix}{preferred['version']}",
                    kind=resource["responseKind"]["kind"],
                    plural=plural,
                    namespaced=resource["scope"] == "Namespaced",
                )

    def _read(self, path: str, *, accept: str = "application/json", **fields: str) -> JsonObject:
        try:
            response = self._pool.request("GET", self._server + path, fields=fields, headers=self._headers(accept))
        except urllib3.exceptions.HTTPError as error:
            raise ClusterError(f"GET {path}: {error}") from error
        body: Any = _json_of(response.data)
        if response.status != 200:
            raise ClusterError(f"GET {path}: {body.get('message', response.status)}")
        answer: JsonObject = body
        return answer

    def _headers(self, accept: str) -> dict[str, str]:
        return {**self._pool.headers, "Accept": accept}


def _json_of(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return {"message": data.decode(errors="replace")}
