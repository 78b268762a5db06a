"""`status`: the observed state and its progress."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from diffugen_api.contract import MAX_SHARDS, MOST_SAMPLES
from diffugen_api.v1alpha1.base import Model

MOST_ATTEMPTS = 1_000_000
"""Upper bound of the number of a run; the next one is 1 again."""


class StatusModel(Model):
    """Base of all parts of the status. Fields of a later version are ignored, so that a rollback can read them.

    Every value has bounds. So a value that somebody else wrote cannot make a status that the API server refuses. A
    required text has at least one character: the operator does not write empty values, so the field would be missing.
    """

    model_config = ConfigDict(extra="ignore")


class Condition(StatusModel):
    """A condition, as metav1.Condition has it."""

    type: str = Field(
        min_length=1, max_length=63, description="The condition: Ready, Reconciling, Stalled, Queued or Suspended."
    )
    status: Literal["True", "False", "Unknown"] = Field(description="Whether the condition holds.")
    reason: str = Field(min_length=1, max_length=63, description="The cause, as one CamelCase word.")
    message: str = Field(
        default="", max_length=1024, description="The cause and, after a failure, the fix, in one sentence."
    )
    last_transition_time: str = Field(
        min_length=1, max_length=32, description="When `status` of the condition last changed."
    )
    observed_generation: int = Field(
        default=-1, description="The generation of the resource that the condition is about."
    )


class Summary(StatusModel):
    """The values that `kubectl get lds` shows, and the state that pipelines wait for."""

    state: Literal["Pending", "Running", "Succeeded", "Failed", "Suspended"] = Field(
        default="Pending",
        description="The state of the dataset. Pending: nothing runs yet, or all Jobs are queued. Succeeded: the "
        "dataset of this spec is published. Failed: the run stops until an edit or a retry.",
    )
    observed_generation: int = Field(default=-1, description="The generation of the spec that `state` is about.")
    stage: str = Field(
        default="", max_length=63, description="The running step: planning, the name of a stage, or publishing."
    )
    progress: str = Field(default="", max_length=32, description="Finished and all samples, such as 1240/2400.")
    percent: int = Field(default=0, ge=0, le=100, description="Finished samples, in percent.")
    images_per_second: str = Field(
        default="", max_length=16, description="Images drawn per second, all stages together."
    )
    eta_seconds: int | None = Field(default=None, description="Estimated seconds until all stages are done.")
    reason: str = Field(default="", max_length=63, description="The reason of the current state.")


class SampleCounts(StatusModel):
    """A stage's samples."""

    total: int = Field(default=0, ge=0, le=MOST_SAMPLES, description="Samples of the stage.")
    done: int = Field(default=0, ge=0, le=MOST_SAMPLES, description="Finished samples.")
    reused: int = Field(
        default=0, ge=0, le=MOST_SAMPLES, description="Samples that were complete when the run was planned."
    )
    accepted: int | None = Field(default=None, ge=0, le=MOST_SAMPLES, description="Samples in the published dataset.")
    rejected: int | None = Field(
        default=None, ge=0, le=MOST_SAMPLES, description="Samples that the quality rules rejected."
    )


class ShardStatus(StatusModel):
    """The shards of a stage or of the publication: the indexes of its Job."""

    total: int = Field(default=0, ge=0, le=MAX_SHARDS, description="All shards.")
    succeeded: int = Field(default=0, ge=0, le=MAX_SHARDS, description="Shards that are done.")
    failed: int = Field(default=0, ge=0, le=MAX_SHARDS, description="Shards that failed for good.")


class StageStatus(StatusModel):
    """One stage of the run."""

    name: str = Field(min_length=1, max_length=30, description="The stage's name.")
    kind: str = Field(min_length=1, max_length=30, description="The kind of the stage, such as txt2img.")
    state: Literal["Pending", "Queued", "Running", "Succeeded", "Failed"] = Field(
        default="Pending", description="The state of the stage."
    )
    job: str = Field(default="", max_length=63, description="The name of the stage's Job.")
    gpu: bool = Field(default=True, description="Whether the stage's pods request run.resources.")
    samples: SampleCounts = Field(default_factory=SampleCounts)
    shards: ShardStatus = Field(default_factory=ShardStatus)
    images_per_second: str = Field(
        default="", max_length=16, description="Images per second over the last minute, while the stage runs."
    )
    eta_seconds: int | None = Field(default=None, description="Estimated seconds until the stage is done.")
    start_time: str | None = Field(default=None, max_length=32, description="When the stage's Job started.")
    completion_time: str | None = Field(default=None, max_length=32, description="When the stage's Job ended.")
    message: str = Field(default="", max_length=128, description="Why the stage waits or failed.")


class DatasetStatus(StatusModel):
    """The published dataset. It stays until a new run publishes another one."""

    uri: str = Field(min_length=1, max_length=1100, description="Where the dataset is.")
    revision: str = Field(min_length=1, max_length=63, description="The revision that was published.")
    samples: int = Field(ge=0, le=MOST_SAMPLES, description="Images in the dataset.")
    instances: int = Field(ge=0, le=MOST_SAMPLES, description="Labeled objects in the dataset.")
    manifest_sha256: str = Field(
        alias="manifestSHA256", min_length=1, max_length=64, description="SHA-256 of manifest.jsonl.gz."
    )
    published_at: str = Field(min_length=1, max_length=32, description="When it was published.")


class HistoryEntry(StatusModel):
    """A revision that was published earlier and is still in the store."""

    revision: str = Field(min_length=1, max_length=63, description="The revision that was published.")
    uri: str = Field(
        default="",
        max_length=1100,
        description="Left out if the status would be too large; the folder is beside that of the current revision.",
    )
    published_at: str = Field(min_length=1, max_length=32, description="When it was published.")
    samples: int = Field(ge=0, le=MOST_SAMPLES, description="Images in the dataset.")


class LabeledDatasetStatus(StatusModel):
    """The observed state of the dataset, and its progress."""

    observed_generation: int = Field(default=-1, description="The generation that the conditions are about.")
    revision: str = Field(
        default="", max_length=63, description="The wanted revision: a hash over everything that decides the content."
    )
    attempt: int = Field(
        default=0,
        ge=0,
        le=MOST_ATTEMPTS,
        description="Number of the run; a new revision or a retry starts the next one.",
    )
    resource_uid: str = Field(
        default="",
        alias="resourceUID",
        max_length=63,
        description="The uid of the resource that the run belongs to; another one means that the status was restored.",
    )
    store: str = Field(default="", max_length=63, description="The store of this run, as a hash.")
    planned: bool = Field(default=False, description="Whether this attempt's plan is done.")
    warnings: list[Annotated[str, Field(max_length=300)]] = Field(
        default_factory=list,
        max_length=5,
        description="Valid settings of the spec that have no effect, or that are a risk, as the plan found them.",
    )
    replans: int = Field(
        default=0,
        ge=0,
        le=MOST_ATTEMPTS,
        description="Number of automatic new plans since the last publication, edit or retry.",
    )
    clean_up_start_time: str | None = Field(
        default=None, max_length=32, description="When the clean-up of the store began, after deletion."
    )
    last_handled_retry_at: str = Field(
        default="", max_length=64, description="The value of the last retry annotation that started a run."
    )
    last_progress_time: str | None = Field(
        default=None, max_length=32, description="When a step, a stage or a sample last made progress."
    )
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        description="The state of the resource, as the conditions of kstatus.",
    )
    summary: Summary = Field(default_factory=Summary)
    stages: list[StageStatus] = Field(
        default_factory=list,
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        description="The stages of the run.",
    )
    publish_shards: ShardStatus | None = Field(
        default=None, description="The shards in which this attempt publishes; absent where one pod publishes all."
    )
    dataset: DatasetStatus | None = None
    history: list[HistoryEntry] = Field(
        default_factory=list,
        max_length=10,
        description="Revisions that were published earlier and are still in the store, the latest first.",
    )
