"""In which order stages begin: each as soon as its source stages are done.

The kind of a stage does not matter here. A failed stage stops only the stages that depend on it, directly or not. All
others are finished first, so that a retry finds as much done as possible.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diffugen_api.v1alpha1 import Stage, StageStatus

Sources = Mapping[str, tuple[str, ...]]
"""For each stage name, the names of the stages that it depends on."""


def sources(stage: Stage) -> tuple[str, ...]:
    """Return the names of the stages that must be done before this one can begin."""
    return stage.depends_on


def ready(stages: Sequence[StageStatus], depends_on: Sources) -> list[str]:
    """Return the pending stages that can begin now, in the spec's order."""
    done = {stage.name for stage in stages if stage.state == "Succeeded"}
    return [stage.name for stage in stages if stage.state == "Pending" and done.issuperset(depends_on[stage.name])]


def blocked(stages: Sequence[StageStatus], depends_on: Sources) -> dict[str, str]:
    """Return the pending stages that cannot begin, each with the failed stage that it depends on."""
    state = {stage.name: stage.state for stage in stages}
    found = {}
    for stage in stages:
        failed = _failed(stage.name, state, depends_on) if stage.state == "Pending" else None
        if failed is not None:
            found[stage.name] = failed
    return found


def _failed(name: str, state: Mapping[str, str], depends_on: Sources) -> str | None:
    # The API refuses cycles, so the recursion ends.
    for source in depends_on[name]:
        failed = source if state[source] == "Failed" else _failed(source, state, depends_on)
        if failed is not None:
            return failed
    return None
