"""What a pod that runs no model does not get of `run.podTemplate`: everything that claims a device, or a node with one.

- Extended resources (`nvidia.com/gpu`) in requests and limits.
- Dynamic resource allocation: the pod's `resourceClaims`, and the `claims` of containers.
- Node selectors, and required and preferred node affinity, whose key names a device, and a runtime class that names
  one. A key names a device if it has one of the words in WORDS (`nvidia.com/gpu.product`,
  `cloud.google.com/gke-accelerator`), or the domain of an extended resource that `run.resources` requests.

Tolerations are kept: they claim nothing, and where all nodes have a taint for a device, pods need them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from diffugen_api.v1alpha1 import Resources

WORDS = re.compile(r"gpu|accelerator|nvidia|habana|(?<![a-z])tpu|neuron")
"""Words of labels and runtime classes that name a device, in lower case; `output` has no `tpu`."""

_Names = Callable[[Any], bool]


def without_devices(spec: Any, resources: Resources) -> Any:
    """Return a pod's spec without what claims a device; `resources` are those of pods that run a model."""
    if not isinstance(spec, Mapping):
        return spec
    names = _naming(resources)
    plain = dict(_plain(spec))  # a pod may have resources as a whole
    plain.pop("resourceClaims", None)
    for kind in ("initContainers", "containers"):
        if isinstance(plain.get(kind), list):
            plain[kind] = [_plain(container) for container in plain[kind]]
    if isinstance(plain.get("nodeSelector"), Mapping):
        plain["nodeSelector"] = {key: value for key, value in plain["nodeSelector"].items() if not names(key)}
    if names(plain.get("runtimeClassName")):
        del plain["runtimeClassName"]
    if isinstance(plain.get("affinity"), Mapping):
        plain["affinity"] = _affinity(plain["affinity"], names)
    return plain


def _naming(resources: Resources) -> _Names:
    requested = {*resources.limits, *resources.requests}
    domains = tuple(f"{name.partition('/')[0]}/" for name in requested if "/" in name)

    def names(key: Any) -> bool:
        return isinstance(key, str) and (key.startswith(domains) or WORDS.search(key.lower()) is not None)

    return names


def _key_of(item: Any) -> Any:
    return item.get("key") if isinstance(item, Mapping) else None


def _plain(holder: Any) -> Any:
    # Extended resources are those with a domain: nvidia.com/gpu, amd.com/gpu, …
    if not isinstance(holder, Mapping) or not isinstance(holder.get("resources"), Mapping):
        return holder
    resources = {
        part: {name: amount for name, amount in amounts.items() if "/" not in name}
        if isinstance(amounts, Mapping)
        else amounts
        for part, amounts in holder["resources"].items()
        if part != "claims"
    }
    return {**holder, "resources": resources}


def _affinity(affinity: Mapping[str, Any], names: _Names) -> dict[str, Any]:
    """Return the affinity without node terms about devices; a required term of nothing else allows every node."""
    kept = dict(affinity)
    node = kept.get("nodeAffinity")
    if not isinstance(node, Mapping):
        return kept
    node = dict(node)
    required = node.get("requiredDuringSchedulingIgnoredDuringExecution")
    if isinstance(required, Mapping) and isinstance(required.get("nodeSelectorTerms"), list):
        terms = [_term(term, names) for term in required["nodeSelectorTerms"]]
        node["requiredDuringSchedulingIgnoredDuringExecution"] = {**required, "nodeSelectorTerms": terms}
        if not all(terms):  # Terms are alternatives.
            del node["requiredDuringSchedulingIgnoredDuringExecution"]
    preferred = node.get("preferredDuringSchedulingIgnoredDuringExecution")
    if isinstance(preferred, list):
        looked = [{**each, "preference": _term(each.get("preference"), names)} for each in preferred if _is_map(each)]
        node["preferredDuringSchedulingIgnoredDuringExecution"] = [each for each in looked if each["preference"]]
    kept["nodeAffinity"] = node
    return kept


def _is_map(value: Any) -> bool:
    return isinstance(value, Mapping)


def _term(term: Any, names: _Names) -> Any:
    if not isinstance(term, Mapping):
        return term
    kept = dict(term)
    if isinstance(kept.get("matchExpressions"), list):
        kept["matchExpressions"] = [each for each in kept["matchExpressions"] if not names(_key_of(each))]
        if not kept["matchExpressions"]:
            del kept["matchExpressions"]
    return kept
