"""How Argo CD, Flux and Argo Workflows judge an object, with real interpreters of Lua and CEL.

Each follows the part of its program that judges an object: argo-cd util/lua/lua.go (commit 00101b7), fluxcd/pkg
runtime/cel/status_evaluator.go (commit 62d235c, RFC 0009), argo-workflows workflow/executor/resource.go (commit
00b934b).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cel
import lupa
import yaml

ROOT = Path(__file__).parents[2]
ARGOCD = ROOT / "gitops" / "argocd" / "resource_customizations" / "diffugen.dev" / "LabeledDataset"
FLUX = ROOT / "gitops" / "flux" / "kustomization.yaml"
PIPELINES = ROOT / "gitops" / "pipelines"

Json = dict[str, Any]

_BASE = {
    "assert", "error", "ipairs", "next", "pairs", "pcall", "rawequal", "rawget", "rawset", "select", "setmetatable",
    "table", "tonumber", "tostring", "type", "unpack",
}  # fmt: skip
"""The libraries of Lua that a script may use: Argo CD opens the base and the table library, and no string library."""


def argocd_health(obj: Mapping[str, Any], script: str = "") -> tuple[str, str]:
    """Return status and message of the health that the Lua script finds."""
    lua = lupa.LuaRuntime(unpack_returned_tuples=True, register_eval=False, register_builtins=False)
    lua.globals()["obj"] = _table(lua, obj)
    allowed = _BASE | {"obj"}
    for name in [str(key) for key in lua.globals() if str(key) not in allowed]:
        lua.globals()[name] = None
    health = lua.execute(script or (ARGOCD / "health.lua").read_text())
    return str(health.status), str(health.message)


def _table(lua: Any, value: Any) -> Any:
    if isinstance(value, Mapping):
        return lua.table_from({key: _table(lua, inner) for key, inner in value.items()})
    if isinstance(value, list):
        return lua.table_from([_table(lua, inner) for inner in value])
    return value


def flux_status(obj: Mapping[str, Any], checks: Mapping[str, str]) -> str:
    """Return the status that Flux finds with these expressions: InProgress, Failed or Current."""
    observed = obj.get("status", {}).get("observedGeneration")
    if observed is not None and observed != obj["metadata"]["generation"]:
        return "InProgress"
    for name, status in (("inProgress", "InProgress"), ("failed", "Failed"), ("current", "Current")):
        if name in checks and cel.evaluate(checks[name], dict(obj)) is True:
            return status
    return "InProgress"


def judged(obj: Mapping[str, Any]) -> tuple[str, str]:
    """Return Argo CD's health, and Flux's status with the expressions that wait for the published dataset."""
    return argocd_health(obj)[0], flux_status(obj, dict(flux_checks())["datasets"])


def flux_checks() -> Iterator[tuple[str, Json]]:
    """Yield the name of each Kustomization that has health check expressions, and these."""
    for manifest in yaml.safe_load_all(FLUX.read_text()):
        for checks in manifest["spec"].get("healthCheckExprs", []):
            yield manifest["metadata"]["name"], checks


def argo_condition(obj: Mapping[str, Any], success: str, failure: str = "") -> str:
    """Return the result of a resource template that reads this object: Succeeded, Failed, or Waiting.

    Any requirement of the failure condition fails it; all of the success condition must hold.
    """
    if any(_holds(obj, requirement) for requirement in _requirements(failure)):
        return "Failed"
    return "Succeeded" if all(_holds(obj, requirement) for requirement in _requirements(success)) else "Waiting"


def _requirements(condition: str) -> list[tuple[str, str]]:
    parts = [part.split("==") for part in condition.split(",") if part.strip()]
    return [(path.strip(), value.strip()) for path, value in parts]


def _holds(obj: Mapping[str, Any], requirement: tuple[str, str]) -> bool:
    path, wanted = requirement
    value: Any = obj
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return False
        value = value[key]
    return str(value) == wanted
