"""How `run.podTemplate` is merged into the generated pod template.

Like kubectl's strategic merge, without its directives:

- Maps are merged key by key; `null` removes a key.
- Lists whose items have a key (containers, volumes, env by `name`, mounts by `mountPath`,
  ports by `containerPort`, host aliases by `ip`) are merged item by item: an item of the same key is
  merged, other items are appended. The generated container is the one named `generator`.
- Tolerations and spread constraints are appended to the existing ones.
- Any other value replaces the former one, of any type. Templates are not checked here: the API server refuses
  an invalid one, and its message is reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeDevices": "devicePath",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "resourceClaims": "name",
}
_ADDED = frozenset({"tolerations", "topologySpreadConstraints", "envFrom"})


def overlaid(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `overlay` merged into it; neither is changed."""
    merged = dict(base)
    for key, value in overlay.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _value(key, merged.get(key), value)
    return merged


def _value(key: str, old: Any, new: Any) -> Any:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return overlaid(old, new)
    if isinstance(old, list) and isinstance(new, list):
        if key in _KEYS:
            return _items(_KEYS[key], old, new)
        if key in _ADDED:
            return old + [item for item in new if item not in old]
    return new


def _items(key: str, old: list[Any], new: list[Any]) -> list[Any]:
    merged = list(old)
    places = {item[key]: place for place, item in enumerate(old)}
    for item in new:
        place = places.get(item.get(key)) if isinstance(item, Mapping) and _hashable(item.get(key)) else None
        if place is None:
            merged.append(item)
        else:
            merged[place] = overlaid(merged[place], item)
    return merged


def _hashable(key: Any) -> bool:
    return isinstance(key, str | int)
