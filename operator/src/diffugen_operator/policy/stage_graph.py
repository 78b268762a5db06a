"""In which order stages begin: each as soon as what it comes from is done.

What a stage does is all the same here. One that fails stops only those that come from it, however far down; the
others are finished first, so that a retry finds as much as there can be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diffugen_api.v1alpha1 import Stage, StageStatus

Sources = Mapping[str, tuple[str, ...]]
"""For each stage, by its name, the stages that it comes from."""


def sources(stage: Stage) -> tuple[str, ...]:
    """Return the names of the stages that have to be done before this one can begin."""
    return () if stage.source is None else (stage.source,)


def ready(stages: Sequence[StageStatus], comes_from: Sources) -> list[str]:
    """Return the pending stages that can begin now, in the spec's order."""
    done = {stage.name for stage in stages if stage.state == "Succeeded"}
    return [stage.name for stage in stages if stage.state == "Pending" and done.issuperset(comes_from[stage.name])]


def blocked(stages: Sequence[StageStatus], comes_from: Sources) -> dict[str, str]:
    """Return the pending stages that cannot begin, each with the failed stage that it comes from."""
    state = {stage.name: stage.state for stage in stages}
    found = {}
    for stage in stages:
        failed = _failed(stage.name, state, comes_from) if stage.state == "Pending" else None
        if failed is not None:
            found[stage.name] = failed
    return found


def _failed(name: str, state: Mapping[str, str], comes_from: Sources) -> str | None:
    # The API refuses circles, so this comes to an end.
    for source in comes_from[name]:
        failed = source if state[source] == "Failed" else _failed(source, state, comes_from)
        if failed is not None:
            return failed
    return None
