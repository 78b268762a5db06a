"""The publish step: it turns drawn and labeled samples into a published dataset."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from diffugen_api.contract import Outcome, Published, Step
from diffugen_api.v1alpha1 import LabeledDatasetStatus, StageStatus
from diffugen_operator import reasons
from diffugen_operator.manifests import jobs
from diffugen_operator.manifests.jobs import Division
from diffugen_operator.observed.outcomes import dataset_of, history_of
from diffugen_operator.policy.pod_steps import SinglePodStep

PUBLISH = SinglePodStep(
    step=Step.PUBLISH,
    shown="publishing",
    working=reasons.PUBLISHING,
    message="The publish step merges and filters the samples, writes the formats, and moves the pointer last.",
    failed=reasons.PUBLISH_FAILED,
    manifest=jobs.publish_job,
    answers=lambda outcome, _: outcome.published is not None,
)


def publish_step(division: Division | None) -> SinglePodStep:
    """Return the publish step; with a division, it joins the shards."""
    if division is None:
        return PUBLISH
    return replace(
        PUBLISH,
        message="The publish step joins the shards, and moves the pointer last.",
        manifest=partial(jobs.publish_job, division=division),
    )


def published(ledger: LabeledDatasetStatus, outcome: Outcome, at: str) -> LabeledDatasetStatus:
    """Return the ledger with the published dataset; `at` is when the step ended."""
    result = outcome.published
    if result is None:
        return ledger
    stages = [_with_verdicts(stage, result) for stage in ledger.stages]
    update = {"dataset": dataset_of(result, at), "stages": stages, "history": history_of(result), "replans": 0}
    return ledger.model_copy(update=update)


def message(ledger: LabeledDatasetStatus) -> str:
    """Return the message of a published dataset: its revision, its size and its URI."""
    dataset = ledger.dataset
    if dataset is None:
        return "Published."
    return f"Revision {dataset.revision}: {dataset.samples} samples, {dataset.instances} instances at {dataset.uri}."


def _with_verdicts(stage: StageStatus, result: Published) -> StageStatus:
    accepted = result.accepted_by_stage.get(stage.name, 0)
    rejected = result.rejected_by_stage.get(stage.name, 0)
    samples = stage.samples.model_copy(update={"accepted": accepted, "rejected": rejected})
    return stage.model_copy(update={"samples": samples})
