"""`run`: how the work runs. Nothing here changes the dataset."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from diffugen_api.v1alpha1.base import Model

Quantity = Annotated[str | int, Field(json_schema_extra={"x-kubernetes-int-or-string": True})]


class Resources(Model):
    """Container resources, as Kubernetes has them."""

    limits: dict[str, Quantity] = Field(
        default_factory=dict,
        max_length=16,
        description="The most that the container may use, such as nvidia.com/gpu: 1.",
    )
    requests: dict[str, Quantity] = Field(
        default_factory=dict,
        max_length=16,
        description="What the scheduler reserves for the container, such as cpu: 4.",
    )


class ModelCache(Model):
    """A volume that keeps fetched models."""

    persistent_volume_claim: str = Field(
        min_length=1,
        max_length=253,
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        description="A PersistentVolumeClaim of the namespace; ReadWriteMany where pods run on several nodes.",
    )


MOST_LEVELS = 64
"""How deep a pod template may be nested: several times as deep as any real one."""


def _not_too_deep(template: dict[str, Any]) -> dict[str, Any]:
    """Refuse what is nested so deep that it cannot be merged, hashed or sent."""
    level: list[Any] = [template]
    for _ in range(MOST_LEVELS):
        inner = [each for value in level for each in (value.values() if isinstance(value, dict) else value)]
        level = [value for value in inner if isinstance(value, dict | list)]
    if level:
        raise ValueError(f"must be nested at most {MOST_LEVELS} levels deep: simplify it")
    return template


class Run(Model):
    """How the work runs. Nothing here changes the dataset."""

    samples_per_shard: int = Field(
        default=200,
        ge=1,
        le=10_000,
        description="Images for each index of a stage's Job.",
    )
    samples_per_publish_shard: int = Field(
        default=50_000,
        ge=1,
        le=1_000_000,
        description="Samples that one pod publishes; a larger dataset is published in shards, at most parallelism at "
        "the same time, and then joined.",
    )
    parallelism: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="Most pods at the same time, over all stages; a change also applies to running Jobs.",
    )
    queue_name: str | None = Field(
        default=None,
        min_length=1,
        max_length=63,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        description="Kueue's LocalQueue in which every Job of the dataset waits; without it, Jobs start at once.",
    )
    cpu_queue_name: str | None = Field(
        default=None,
        min_length=1,
        max_length=63,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        description="The LocalQueue of Jobs that run no model: plan, publish, clean-up, deciding labels again; "
        "queueName where absent.",
    )
    min_parallelism: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="With Kueue, the fewest pods with which a stage may be admitted; all of them where absent.",
    )
    workload_priority_class: str | None = Field(
        default=None,
        min_length=1,
        max_length=63,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        description="Kueue's WorkloadPriorityClass of every Job of the dataset.",
    )
    resources: Resources = Field(
        default_factory=lambda: Resources(limits={"nvidia.com/gpu": 1}),
        description="The resources of pods that run a model; one GPU where absent.",
    )
    image: str | None = Field(
        default=None,
        min_length=1,
        max_length=512,
        description="Generator image; the operator's own default where absent.",
    )
    pod_template: Annotated[dict[str, Any], AfterValidator(_not_too_deep)] = Field(
        default_factory=dict,
        json_schema_extra={"x-kubernetes-preserve-unknown-fields": True},
        description="A PodTemplateSpec, merged over the generated one, such as nodeSelector, tolerations or env.",
    )
    backoff_limit_per_shard: int = Field(default=3, ge=0, le=100, description="Retries of one index before it fails.")
    active_deadline_seconds: int | None = Field(
        default=None, ge=1, le=31_536_000, description="Longest run time of each Job, in seconds."
    )
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        default="auto",
        description="The floating-point type of the models; auto is bfloat16 on a GPU and float32 on a CPU.",
    )
    batch_size: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Images in one batch; depends on the device where absent. Halved if memory runs out.",
    )
    compile: bool = Field(
        default=False,
        description="Compile the model's repeated blocks with torch.compile. A pod's first batch then takes longer; "
        "the others may take less time on a GPU. The image needs a C compiler.",
    )
    model_cache: ModelCache | None = Field(
        default=None,
        description="A volume for fetched models that all pods share; without it, each pod fetches its models.",
    )
