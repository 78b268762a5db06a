"""`status`: what is, and how far it is."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from diffugen_api.v1alpha1.base import Model


class Condition(Model):
    """A condition, as metav1.Condition has it."""

    type: str = Field(max_length=63, description="The condition: Ready, Reconciling, Stalled, Queued or Suspended.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether the condition holds.")
    reason: str = Field(max_length=63, description="The cause, as one CamelCase word.")
    message: str = Field(
        default="", max_length=1024, description="The cause and, after a failure, the fix, in one sentence."
    )
    last_transition_time: str = Field(max_length=32, description="When `status` of the condition last changed.")
    observed_generation: int = Field(
        default=-1, description="The generation of the resource that the condition is about."
    )


class Summary(Model):
    """The line that `kubectl get lds` shows, and the one word that pipelines wait for."""

    state: Literal["Pending", "Running", "Succeeded", "Failed", "Suspended"] = Field(
        default="Pending",
        description="The dataset in one word. Pending: nothing runs yet, or everything waits in line. Succeeded: the "
        "dataset of this spec is published. Failed: nothing goes on before an edit or a retry.",
    )
    observed_generation: int = Field(default=-1, description="The generation of the spec that state speaks of.")
    stage: str = Field(
        default="", max_length=63, description="The step under way: planning, a stage's name, publishing."
    )
    progress: str = Field(default="", max_length=32, description="Samples done of all, as 1240/2400.")
    percent: int = Field(default=0, ge=0, le=100, description="Samples done, as a percentage.")
    images_per_second: str = Field(
        default="", max_length=16, description="Images drawn per second, all stages together."
    )
    eta_seconds: int | None = Field(default=None, description="Estimated seconds until all stages are done.")
    reason: str = Field(default="", max_length=63, description="The reason of the present state.")


class SampleCounts(Model):
    """A stage's samples."""

    total: int = Field(default=0, description="Samples of the stage.")
    done: int = Field(default=0, description="Samples that need nothing more.")
    reused: int = Field(default=0, description="Samples that needed nothing when the run was planned.")
    accepted: int | None = Field(default=None, description="Samples in the published dataset.")
    rejected: int | None = Field(default=None, description="Samples that the quality rules rejected.")


class ShardStatus(Model):
    """A stage's shards: the indexes of its Job."""

    total: int = Field(default=0, description="Shards of the stage.")
    succeeded: int = Field(default=0, description="Shards that are done.")
    failed: int = Field(default=0, description="Shards that failed for good.")


class StageStatus(Model):
    """One stage of the run."""

    name: str = Field(max_length=30, description="The stage's name.")
    kind: str = Field(max_length=30, description="The kind of the stage, such as txt2img.")
    state: Literal["Pending", "Queued", "Running", "Succeeded", "Failed"] = Field(
        default="Pending", description="The state of the stage."
    )
    job: str = Field(default="", max_length=63, description="The name of the stage's Job.")
    gpu: bool = Field(default=True, description="Whether the stage's pods ask for the resources of run.resources.")
    samples: SampleCounts = Field(default_factory=SampleCounts)
    shards: ShardStatus = Field(default_factory=ShardStatus)
    images_per_second: str = Field(
        default="", max_length=16, description="The stage's pace over the last minute, while it runs."
    )
    eta_seconds: int | None = Field(default=None, description="Seconds left at this pace.")
    start_time: str | None = Field(default=None, max_length=32, description="When the stage's Job started.")
    completion_time: str | None = Field(default=None, max_length=32, description="When the stage's Job ended.")
    message: str = Field(default="", max_length=128, description="Why the stage waits or failed.")


class DatasetStatus(Model):
    """The last good dataset. A new run never empties it."""

    uri: str = Field(max_length=1100, description="Where the dataset is.")
    revision: str = Field(max_length=63, description="The revision that was published.")
    samples: int = Field(description="Images in the dataset.")
    instances: int = Field(description="Labeled objects in the dataset.")
    manifest_sha256: str = Field(alias="manifestSHA256", max_length=64, description="SHA-256 of manifest.jsonl.gz.")
    published_at: str = Field(max_length=32, description="When it was published.")


class HistoryEntry(Model):
    """A revision that was published before and is in the store still."""

    revision: str = Field(max_length=63, description="The revision that was published.")
    uri: str = Field(
        default="",
        max_length=1100,
        description="Absent where the status would be too large: its folder lies beside that of the present revision.",
    )
    published_at: str = Field(max_length=32, description="When it was published.")
    samples: int = Field(description="Images in the dataset.")


class LabeledDatasetStatus(Model):
    """What is, and how far it is."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    observed_generation: int = Field(default=-1, description="The generation that the conditions speak of.")
    revision: str = Field(
        default="", max_length=63, description="What is wanted, as a hash over all that decides the content."
    )
    attempt: int = Field(default=0, description="Counts the runs: a new revision and a retry each begin one.")
    store: str = Field(default="", max_length=63, description="The store of this run, as a hash.")
    planned: bool = Field(default=False, description="Whether this attempt's plan is done.")
    replans: int = Field(
        default=0, description="How often it was planned anew by itself since something was published or asked for."
    )
    clean_up_start_time: str | None = Field(
        default=None, max_length=32, description="When the clean-up of the store began, after deletion."
    )
    last_handled_retry_at: str = Field(
        default="", max_length=64, description="The retry annotation that was last acted upon."
    )
    last_progress_time: str | None = Field(
        default=None, max_length=32, description="When a step, a stage or a sample last moved."
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
    dataset: DatasetStatus | None = None
    history: list[HistoryEntry] = Field(
        default_factory=list,
        max_length=10,
        description="What was published before and is in the store still, the latest first.",
    )
