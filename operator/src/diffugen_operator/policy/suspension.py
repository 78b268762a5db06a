"""What is recorded while a run is suspended: the last pods of a step may finish before they can be stopped.

Nothing new starts while a run is suspended. But Kubernetes removes a finished Job when its time to live is over, and
with it the only evidence that the step is done. So the result is recorded as in a run that continues, and the step does
not run again afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diffugen_api.contract import StagePlan
from diffugen_api.v1alpha1 import LabeledDatasetStatus
from diffugen_operator.observed.dataset import Wanted
from diffugen_operator.observed.situation import Situation
from diffugen_operator.policy import publish_step, runs
from diffugen_operator.policy.plan_step import PLAN, planned
from diffugen_operator.policy.pod_steps import result_of
from diffugen_operator.policy.publish_shards import with_finished_shards
from diffugen_operator.policy.stages import with_finished
from diffugen_operator.status.conditions import Phase


@dataclass(frozen=True, slots=True)
class SuspendedRun:
    """A suspended run, with the results of steps that finished anyway."""

    ledger: LabeledDatasetStatus
    phase: Phase
    """Suspended; or published, if the publish step is done and nothing is left to suspend."""
    plan: Sequence[StagePlan] = ()
    """The result of the plan step, if it has just ended."""
    warnings: Sequence[str] = ()
    """Its warnings."""


def suspended_run(situation: Situation, ledger: LabeledDatasetStatus) -> SuspendedRun:
    """Return the run with all finished steps in its ledger; without a valid spec, a plan cannot be read."""
    dataset = situation.dataset
    found: Sequence[StagePlan] = ()
    warnings: Sequence[str] = ()
    key = runs.run_key(dataset)
    spec = dataset.wanted.spec if isinstance(dataset.wanted, Wanted) else None
    if not ledger.planned and spec is not None and (result := result_of(PLAN, spec, key, situation)) is not None:
        ledger, found = planned(ledger, spec, result.outcome), result.outcome.plan or ()
        warnings = result.outcome.warnings
    ledger = with_finished_shards(key, with_finished(key, ledger, situation), situation)
    if (result := result_of(publish_step.PUBLISH, spec, key, situation)) is None:
        return SuspendedRun(ledger, Phase.suspended(ledger.summary.stage), found, warnings)
    ledger = publish_step.published(ledger, result.outcome, result.at)
    return SuspendedRun(ledger, Phase.published(publish_step.message(ledger)), found, warnings)
