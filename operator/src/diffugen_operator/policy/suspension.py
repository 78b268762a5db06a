"""What ends while a run is held: the last pods of a step may have done their work before they could be stopped.

Nothing is begun meanwhile. But a finished Job is collected when its time to live is over, and with it goes all that
tells that the step is done; so it enters the ledger as it would in a run that goes on, and is not run again afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from diffugen_api.contract import StagePlan
from diffugen_api.v1alpha1 import LabeledDatasetSpec, LabeledDatasetStatus
from diffugen_operator.manifests.names import RunKey
from diffugen_operator.observed.situation import Observed
from diffugen_operator.policy import publish_step
from diffugen_operator.policy.plan_step import PLAN, planned
from diffugen_operator.policy.pod_steps import result_of
from diffugen_operator.policy.stages import with_finished
from diffugen_operator.status.conditions import Phase


@dataclass(frozen=True, slots=True)
class SuspendedRun:
    """A run that is held, with what has ended all the same."""

    ledger: LabeledDatasetStatus
    phase: Phase
    """Suspended; or published, where its last step is done, and nothing is left to be held."""
    plan: Sequence[StagePlan] = ()
    """What the plan step found, where it has just ended."""


def suspended_run(
    key: RunKey, ledger: LabeledDatasetStatus, spec: LabeledDatasetSpec | None, observed: Observed, now: datetime
) -> SuspendedRun:
    """Return the run with all that is done in its ledger; without a spec, a plan cannot be read."""
    found: Sequence[StagePlan] = ()
    if not ledger.planned and spec is not None and (result := result_of(PLAN, key, observed, now)) is not None:
        ledger, found = planned(ledger, spec, result.outcome), result.outcome.plan or ()
    ledger = with_finished(key, ledger, observed, now)
    if (result := result_of(publish_step.PUBLISH, key, observed, now)) is None:
        return SuspendedRun(ledger, Phase.suspended(ledger.summary.stage), found)
    ledger = publish_step.published(ledger, result.outcome, result.at)
    return SuspendedRun(ledger, Phase.published(publish_step.message(ledger)), found)
