"""Which fields of `run.podTemplate` the policy `restricted` allows.

A user who may write datasets can define pods by this field: privileged ones, with the host's files, another service
account, or any Secret of the namespace. With the policy `restricted`, a template may choose where pods run, what they
request, and plain environment variables. It has no other field, so it cannot undo what the operator sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from diffugen_api import contract
from diffugen_operator.manifests.names import CONTAINER

_Check = Callable[[Any, str], Iterator[str]]
_FIX = "the operator's --pod-template-policy is restricted: remove it"


def fault_of(template: Mapping[str, Any]) -> str | None:
    """Return what the policy `restricted` refuses in a `run.podTemplate`, as a sentence; None if nothing."""
    return next(_fields({"metadata": _metadata, "spec": _pod})(template, "spec.run.podTemplate"), None)


def _anything(value: Any, path: str) -> Iterator[str]:
    yield from ()


def _only(*allowed: Any) -> _Check:
    def check(value: Any, path: str) -> Iterator[str]:
        if value not in allowed:
            words = " or ".join(str(each).lower() if isinstance(each, bool) else str(each) for each in allowed)
            yield f"{path} may only be {words}, because {_FIX}, or set it to that."

    return check


def _from_1(value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        yield f"{path} may only be an id above 0, because {_FIX}, or set it to that."


def _fields(allowed: Mapping[str, _Check]) -> _Check:
    def check(value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, Mapping):
            yield f"{path} may only be an object, because {_FIX}."
            return
        for name, inner in value.items():
            if name not in allowed:
                yield f"{path}.{name} is not allowed, because {_FIX}. Allowed are {', '.join(allowed)}."
            elif inner is None:  # It would remove what the operator sets.
                yield f"{path}.{name} may not be null, because {_FIX}."
            else:
                yield from allowed[name](inner, f"{path}.{name}")

    return check


def _each(item: _Check) -> _Check:
    def check(value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, Sequence) or isinstance(value, str):
            yield f"{path} may only be a list, because {_FIX}."
            return
        for place, inner in enumerate(value):
            yield from item(inner, f"{path}[{place}]")

    return check


def _variable(value: Any, path: str) -> Iterator[str]:
    """A plain value, or the token of a model hub, from a Secret's key of the same name."""
    key = value.get("valueFrom", {}) if isinstance(value, Mapping) else {}
    if isinstance(key, Mapping) and isinstance(key.get("secretKeyRef"), Mapping):
        if (value.get("name"), key["secretKeyRef"].get("key")) != (HUB_TOKEN, HUB_TOKEN):
            yield (
                f"{path} may read no Secret but the key {HUB_TOKEN} as the variable {HUB_TOKEN}, because {_FIX}, or "
                "give it a value."
            )
            return
        reference = _fields({"name": _anything, "key": _anything, "optional": _anything})
        yield from _fields({"name": _anything, "valueFrom": _fields({"secretKeyRef": reference})})(value, path)
        return
    yield from _fields({"name": _unreserved, "value": _anything})(value, path)


def _unreserved(value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{path} may only be a text, because {_FIX}."
    elif value in _RESERVED:
        yield f"{path} is {value}, which the operator sets: {_FIX}."


HUB_TOKEN = "HF_TOKEN"  # noqa: S105 - a name, not a secret
_RESERVED = frozenset(
    {
        contract.ENV_ORDER,
        contract.ENV_ORDER_SHA256,
        contract.ENV_DATASET,
        contract.ENV_POD_NAMESPACE,
        contract.ENV_POD_IP,
        contract.ENV_TERMINATION_LOG,
    }
)
"""Variables by which a pod knows its work order."""


def _annotations(value: Any, path: str) -> Iterator[str]:
    for name in value if isinstance(value, Mapping) else ():
        if "apparmor" in name or "seccomp" in name:  # The former form of fields of a security context.
            yield f"{path} may not have {name!r}, because {_FIX}."


_metadata = _fields({"labels": _anything, "annotations": _annotations})
_container = _fields(
    {
        "name": _only(CONTAINER),
        "resources": _anything,
        "env": _each(_variable),
        "imagePullPolicy": _anything,
        "volumeMounts": _anything,
    }
)
_pod = _fields(
    {
        "nodeSelector": _anything,
        "affinity": _anything,
        "tolerations": _anything,
        "topologySpreadConstraints": _anything,
        "priorityClassName": _anything,
        "schedulerName": _anything,
        "runtimeClassName": _anything,
        "resourceClaims": _anything,
        "imagePullSecrets": _anything,
        "hostUsers": _only(False),
        "securityContext": _fields(
            {
                "runAsUser": _from_1,
                "runAsGroup": _from_1,
                "fsGroup": _from_1,
                "fsGroupChangePolicy": _anything,
                "supplementalGroups": _each(_from_1),
            }
        ),
        "containers": _each(_container),
        "volumes": _each(_fields(dict.fromkeys(("name", "emptyDir", "persistentVolumeClaim", "image"), _anything))),
    }
)
