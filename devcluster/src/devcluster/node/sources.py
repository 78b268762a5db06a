"""Reads what a pod refers to in the API: ConfigMaps, Secrets, its own fields, a service-account token.

Errors have the kubelet's texts, because users and operators look for these in a pod's status.
"""

import base64
import re
from fractions import Fraction
from math import ceil
from pathlib import Path

from devcluster.kubeapi import ApiError, JsonObject, KubeApi

_SUFFIXES = {
    **{suffix: Fraction(1024) ** power for power, suffix in enumerate(["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"], start=1)},
    **{suffix: Fraction(1000) ** power for power, suffix in enumerate(["k", "M", "G", "T", "P", "E"], start=1)},
    "m": Fraction(1, 1000),
    "": Fraction(1),
}
_FIELD_WITH_KEY = re.compile(r"^metadata\.(labels|annotations)\['(.+)'\]$")


class MissingError(RuntimeError):
    """An object that the pod refers to does not exist (yet); the message is the kubelet's."""


class Sources:
    """Reads for one namespace."""

    def __init__(self, api: KubeApi, namespace: str) -> None:
        self._api = api
        self._namespace = namespace

    async def config_map(self, name: str, *, optional: bool = False) -> dict[str, bytes]:
        """Key to content; nothing when it is optional and missing."""
        found = await self._read("configmaps", name, optional=optional)
        text = {key: value.encode() for key, value in (found.get("data") or {}).items()}
        return text | _decoded(found.get("binaryData"))

    async def secret(self, name: str, *, optional: bool = False) -> dict[str, bytes]:
        """Key to content; nothing when it is optional and missing."""
        return _decoded((await self._read("secrets", name, optional=optional)).get("data"))

    async def key_of(self, kind: str, selector: JsonObject) -> bytes | None:
        """Return the value that a `configMapKeyRef` or `secretKeyRef` names; None if it is optional and missing."""
        name, key, optional = selector.get("name", ""), selector["key"], selector.get("optional", False)
        read = self.secret if kind == "Secret" else self.config_map
        content = await read(name, optional=optional)
        if key not in content and not optional:
            raise MissingError(f"couldn't find key {key} in {kind} {self._namespace}/{name}")
        return content.get(key)

    async def token(self, service_account: str, projection: JsonObject, pod: JsonObject) -> str:
        """Return a service-account token bound to the pod."""
        bound_to = {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": pod["metadata"]["name"],
            "uid": pod["metadata"]["uid"],
        }
        audience = projection.get("audience")
        spec = {
            "audiences": [audience] if audience else [],
            "expirationSeconds": projection.get("expirationSeconds", 3600),
            "boundObjectRef": bound_to,
        }
        path = f"/api/v1/namespaces/{self._namespace}/serviceaccounts/{service_account}/token"
        review = await self._api.create(path, {"spec": spec})
        return str(review["status"]["token"])

    async def claimed(self, claim: str) -> Path:
        """Return the directory of a bound PersistentVolumeClaim; its volume is a `hostPath`."""
        found = await self._read("persistentvolumeclaims", claim, optional=False)
        volume = found["spec"].get("volumeName")
        if not volume or found.get("status", {}).get("phase") != "Bound":
            raise MissingError(f'persistentvolumeclaim "{claim}" is not bound')
        directory = (await self._api.get(f"/api/v1/persistentvolumes/{volume}"))["spec"].get("hostPath")
        if directory is None:
            raise MissingError(f'this node has no persistent volumes but of kind hostPath, and "{volume}" is none')
        return Path(directory["path"])

    async def _read(self, plural: str, name: str, *, optional: bool) -> JsonObject:
        try:
            return await self._api.get(f"/api/v1/namespaces/{self._namespace}/{plural}/{name}")
        except ApiError as error:
            if error.status != 404:
                raise
            if optional:
                return {}
            raise MissingError(f'{plural.removesuffix("s")} "{name}" not found') from None


def field_of(pod: JsonObject, path: str) -> str:
    """Return the value that a `fieldRef` names."""
    if match := _FIELD_WITH_KEY.match(path):
        return str((pod["metadata"].get(match[1]) or {}).get(match[2], ""))
    section, name = path.split(".", 1)
    if path in {"metadata.labels", "metadata.annotations"}:
        return "\n".join(f'{key}="{value}"' for key, value in sorted((pod["metadata"].get(name) or {}).items()))
    value = pod[section].get(name, "")
    if path in {"status.podIPs", "status.hostIPs"}:
        return ",".join(entry["ip"] for entry in value)
    return str(value)


def resource_of(container: JsonObject, selector: JsonObject) -> str:
    """Return the value that a `resourceFieldRef` names, in units of its divisor."""
    section, name = selector["resource"].split(".", 1)
    resources = container.get("resources", {})
    amount = resources.get(section, {}).get(name) or resources.get("limits", {}).get(name) or "0"
    divisor = selector.get("divisor", "1")
    return str(ceil(quantity(amount) / (quantity(divisor) or 1)))


def quantity(text: str) -> Fraction:
    """Return the number of a quantity such as 500m or 2Gi."""
    match = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?)([A-Za-z]*)", text)
    if match is None:
        raise MissingError(f"cannot read the quantity {text!r}")
    return Fraction(match[1]) * _SUFFIXES[match[2]]


def _decoded(data: JsonObject | None) -> dict[str, bytes]:
    return {key: base64.b64decode(value) for key, value in (data or {}).items()}
