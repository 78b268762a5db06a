"""The plan step: it turns the spec into stages with samples and shards."""

from __future__ import annotations

from diffugen_api.contract import Outcome, StagePlan, Step
from diffugen_api.v1alpha1 import (
    LabeledDatasetSpec,
    LabeledDatasetStatus,
    SampleCounts,
    ShardStatus,
    StageStatus,
)
from diffugen_operator import reasons
from diffugen_operator.manifests import jobs
from diffugen_operator.policy.pod_steps import SinglePodStep

PLAN = SinglePodStep(
    step=Step.PLAN,
    shown="planning",
    working=reasons.PLANNING,
    message="The plan step checks spec, store and models, and finds out what the store already holds.",
    failed=reasons.PLAN_FAILED,
    manifest=jobs.plan_job,
    answers=lambda outcome, spec: spec is not None and _covers(outcome, spec),
    work_order=jobs.work_order,
)


def planned(ledger: LabeledDatasetStatus, spec: LabeledDatasetSpec, outcome: Outcome) -> LabeledDatasetStatus:
    """Return the ledger with the planned stages, in the spec's order."""
    plans = {plan.name: plan for plan in outcome.plan or ()}
    stages = [_stage(plans[stage.name], stage.kind) for stage in spec.stages if stage.name in plans]
    return ledger.model_copy(update={"planned": True, "stages": stages, "warnings": outcome.warnings})


def _covers(outcome: Outcome, spec: LabeledDatasetSpec) -> bool:
    """Whether the outcome plans each stage of the spec once, and work wherever samples are missing."""
    plans = outcome.plan
    if plans is None or sorted(plan.name for plan in plans) != sorted(stage.name for stage in spec.stages):
        return False
    return all(bool(plan.shards) == (plan.total > plan.reused) for plan in plans)


def _stage(plan: StagePlan, kind: str) -> StageStatus:
    return StageStatus(
        name=plan.name,
        kind=kind,
        state="Pending" if plan.shards else "Succeeded",
        gpu=plan.gpu,
        samples=SampleCounts(total=plan.total, done=plan.reused, reused=plan.reused),
        shards=ShardStatus(total=plan.shards),
    )
