"""A container's environment, resolved and expanded as the kubelet does it.

First `envFrom`, then `env` in order. `$(NAME)` refers to an earlier variable. An unknown name is not replaced, and
`$$(NAME)` means the text `$(NAME)`.
"""

import re
from collections.abc import Mapping

from devcluster.kubeapi import JsonObject
from devcluster.node.paths import PathMap
from devcluster.node.sources import Sources, field_of, resource_of

_REFERENCE = re.compile(r"\$\$|\$\(([^()]+)\)")


async def container_environment(
    container: JsonObject, pod: JsonObject, *, sources: Sources, paths: PathMap, base: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment; every container gets `base`. Raises `MissingError` if a reference names nothing."""
    environment = dict(base)
    for entry in container.get("envFrom") or []:
        environment |= await _whole(entry, sources)
    for entry in container.get("env") or []:
        name, origin = entry["name"], entry.get("valueFrom")
        if origin is None:
            environment[name] = paths.rewrite(expand(entry.get("value", ""), environment))
        elif (value := await _referred(origin, container, pod, sources)) is not None:
            environment[name] = value
    return environment


def expand(text: str, environment: Mapping[str, str]) -> str:
    """Return the text with each `$(NAME)` replaced."""

    def replacement(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return environment.get(match[1], match[0])

    return _REFERENCE.sub(replacement, text)


async def _whole(entry: JsonObject, sources: Sources) -> dict[str, str]:
    if "secretRef" in entry:
        reference, read = entry["secretRef"], sources.secret
    else:
        reference, read = entry["configMapRef"], sources.config_map
    content = await read(reference.get("name", ""), optional=reference.get("optional", False))
    prefix = entry.get("prefix", "")
    return {prefix + key: value.decode() for key, value in content.items()}


async def _referred(origin: JsonObject, container: JsonObject, pod: JsonObject, sources: Sources) -> str | None:
    if "fieldRef" in origin:
        return field_of(pod, origin["fieldRef"]["fieldPath"])
    if "resourceFieldRef" in origin:
        return resource_of(container, origin["resourceFieldRef"])
    if "secretKeyRef" in origin:
        content = await sources.key_of("Secret", origin["secretKeyRef"])
    else:
        content = await sources.key_of("ConfigMap", origin["configMapKeyRef"])
    return None if content is None else content.decode()
