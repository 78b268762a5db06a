"""The status that is written: the run's ledger and its phase, for users.

It has at most 8 kB, because etcd, watches and every `kubectl get -o yaml` carry it. A status that does not fit is
shortened, messages first.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import orjson

from diffugen_api.v1alpha1 import LabeledDatasetStatus, StageStatus, Summary
from diffugen_operator import reasons
from diffugen_operator.observed.dataset import Dataset, Wanted
from diffugen_operator.observed.progress import Pace, eta_seconds
from diffugen_operator.status.conditions import STALLED, Kind, Phase, conditions_of, cut, find

STATUS_BYTES = 8000

# Smaller and smaller limits for (a stage's message, a condition's message, URIs of former revisions and warnings),
# until it fits.
_ROOM = ((128, 1024, True), (64, 512, True), (64, 512, False), (24, 256, False), (0, 128, False), (0, 32, False))


def presented(
    dataset: Dataset,
    ledger: LabeledDatasetStatus,
    phase: Phase,
    *,
    now: datetime,
    pace: Pace | None = None,
) -> LabeledDatasetStatus:
    """Return the ledger with the conditions and the summary of the phase, within the size limit."""
    suspended = isinstance(dataset.wanted, Wanted) and dataset.wanted.spec.suspend
    status = ledger.model_copy(
        update={
            "observed_generation": dataset.generation,
            "conditions": conditions_of(
                phase,
                suspended=suspended,
                generation=dataset.generation,
                former=dataset.status.conditions,
                now=now,
            ),
            "summary": _summary(
                ledger.stages, phase, pace.whole if pace is not None else None, generation=dataset.generation
            ),
            "stages": [_paced(stage, phase, pace or Pace()) for stage in ledger.stages],
        }
    )
    return fitted(status)


def is_stalled(status: LabeledDatasetStatus) -> bool:
    """Whether the run is reported as stalled."""
    return find(status.conditions, STALLED) is not None


def is_halted(status: LabeledDatasetStatus) -> bool:
    """Whether the run has stopped until an edit or a retry begins it again."""
    condition = find(status.conditions, STALLED)
    return condition is not None and condition.reason != reasons.NO_PROGRESS


def _summary(stages: list[StageStatus], phase: Phase, pace: float | None, *, generation: int) -> Summary:
    total = sum(stage.samples.total for stage in stages)
    # Somebody else may have written the counts.
    done = sum(min(stage.samples.done, stage.samples.total) for stage in stages)
    running = phase.kind is Kind.WORKING and any(stage.state == "Running" for stage in stages)
    return Summary(
        state=_state(phase),
        observed_generation=generation,
        stage=phase.step,
        progress=f"{done}/{total}" if stages else "",
        percent=100 * done // total if total else 0,
        images_per_second=_rate(pace) if running and pace else "",
        eta_seconds=eta_seconds(total - done, pace) if running else None,
        reason=cut(phase.reason, 63),
    )


def _state(phase: Phase) -> Literal["Pending", "Running", "Succeeded", "Failed", "Suspended"]:
    """Return the phase as the state that pipelines wait for: Failed only if the run cannot continue by itself."""
    match phase.kind:
        case Kind.PUBLISHED:
            return "Succeeded"
        case Kind.SUSPENDED:
            return "Suspended"
        case Kind.STALLED:
            return "Running" if phase.reason == reasons.NO_PROGRESS else "Failed"
        case Kind.WORKING:
            return "Pending" if phase.reason in (reasons.ACCEPTED, reasons.QUEUED) else "Running"


def _paced(stage: StageStatus, phase: Phase, pace: Pace) -> StageStatus:
    running = phase.kind is Kind.WORKING and stage.state == "Running"
    own = pace.stages.get(stage.name) if running else None
    left = eta_seconds(stage.samples.total - stage.samples.done, own)
    return stage.model_copy(update={"images_per_second": _rate(own) if own else "", "eta_seconds": left})


def _rate(pace: float) -> str:
    return f"{pace:.0f}" if pace >= 100 else f"{pace:.2g}" if pace < 1 else f"{pace:.1f}"


def fitted(status: LabeledDatasetStatus) -> LabeledDatasetStatus:
    """Return the status with its messages shortened until it fits."""
    for stage_room, condition_room, places in _ROOM:
        shortened = _shortened(status, stage_room, condition_room, places=places)
        if size_of(shortened) <= STATUS_BYTES:
            return shortened
    # For sixteen stages with the longest names: a stage's Job is found by its labels, and the Job has its times.
    gone = {"job": "", "start_time": None, "completion_time": None, "images_per_second": "", "eta_seconds": None}
    stages = [stage.model_copy(update=gone) for stage in shortened.stages]
    return shortened.model_copy(update={"stages": stages})


def _shortened(
    status: LabeledDatasetStatus, stage_room: int, condition_room: int, *, places: bool
) -> LabeledDatasetStatus:
    stages = [
        stage.model_copy(update={"message": cut(stage.message, stage_room) if stage_room else ""})
        for stage in status.stages
    ]
    conditions = [
        condition.model_copy(update={"message": cut(condition.message, condition_room)})
        for condition in status.conditions
    ]
    history = status.history if places else [entry.model_copy(update={"uri": ""}) for entry in status.history]
    warnings = status.warnings if places else []  # Their Events have them too.
    return status.model_copy(
        update={"stages": stages, "conditions": conditions, "history": history, "warnings": warnings}
    )


def size_of(status: LabeledDatasetStatus) -> int:
    """Return the size of the status in bytes."""
    return len(orjson.dumps(dumped(status)))


def dumped(status: LabeledDatasetStatus) -> dict[str, Any]:
    """Return the status in the form of the API; empty values are left out, as Kubernetes does."""
    data: dict[str, Any] = _filled(status.model_dump(mode="json", by_alias=True, exclude_none=True))
    return data


def _filled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner) for key, inner in value.items() if inner != ""}
    return [_filled(inner) for inner in value] if isinstance(value, list) else value


def merge_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON merge patch (RFC 7386) that turns `old` into `new`; lists are replaced whole."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        if key not in old:
            patch[key] = value
        elif isinstance(value, Mapping) and isinstance(old[key], Mapping):
            if inner := merge_patch(old[key], value):
                patch[key] = inner
        elif value != old[key]:
            patch[key] = value
    return patch
