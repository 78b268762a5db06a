"""The Jobs and the ConfigMap of a run, as manifests: pure functions.

The podFailurePolicy decides what an exit code (diffugen_api.contract.ExitCode) means. Disruptions and `try again` do
not count and are retried with the Job's back-off. A bad spec and refused credentials fail the Job at once. A bad shard
fails its index at once (for plan and publish: the Job). A crash counts towards the index's limit.

A failed shard does not stop the others: their images are kept, and a retry continues from there. If more than a tenth
of the shards fail, the cause is probably not in the shards, and the Job stops before it wastes more.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from diffugen_api import contract
from diffugen_api.addresses import address
from diffugen_api.contract import ExitCode, Step
from diffugen_api.model_images import ModelImage
from diffugen_api.model_uris import images_of, model_uris
from diffugen_api.orders import WorkOrder
from diffugen_api.v1alpha1 import LabeledDatasetSpec, Run, StageStatus
from diffugen_operator.manifests import names
from diffugen_operator.manifests.names import CONTAINER, RunKey
from diffugen_operator.manifests.pods import DEFAULT_HISTORY_LIMIT, DEFAULT_PROMPT_BYTES, Order, pod_template
from diffugen_operator.settings import Settings

Manifest = dict[str, Any]

CONFIG_MAP_BYTES = 2**20
"""The most bytes that a ConfigMap's values may have, by Kubernetes."""

_PLAIN_BYTES = 1_000_000
"""A longer work order is compressed. Shorter ones are not, so that every generator can read them."""

CRASHES = 3
"""How often a plan or publish pod may crash before its Job fails."""


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """A run, with everything that its manifests are built from."""

    key: RunKey
    spec: LabeledDatasetSpec
    settings: Settings

    @cached_property
    def order_text(self) -> str:
        """The work order, the same text for each Job of a run.

        So it has no field that can be edited during a run: only those of `revision_of` and `store_of`. What pods need
        of the others are environment variables (`pods._environment`).
        """
        s3 = self.spec.output.s3
        output = self.spec.output.model_copy(update={"s3": s3 and s3.model_copy(update={"secret_ref": None})})
        prompts = self.spec.prompts.model_copy(update={"max_bytes": DEFAULT_PROMPT_BYTES})
        fixed = {
            "run": Run(),
            "prompts": prompts,
            "output": output,
            "suspend": False,
            "deletion_policy": "Retain",
            "revision_history_limit": DEFAULT_HISTORY_LIMIT,
        }
        key, spec = self.key, self.spec.model_copy(update=fixed)
        return WorkOrder(namespace=key.namespace, name=key.name, revision=key.revision, spec=spec).dumps()

    @cached_property
    def order_sha256(self) -> str:
        """The SHA-256 of the work order, in hexadecimal digits; each Job of the run has it in its pod template."""
        return hashlib.sha256(self.order_text.encode()).hexdigest()

    @cached_property
    def is_compressed(self) -> bool:
        """Whether the work order is too long for a ConfigMap as it is."""
        return len(self.order_text.encode()) > _PLAIN_BYTES


def queue_of(spec: LabeledDatasetSpec, *, gpu: bool) -> str | None:
    """Return the Kueue queue of a Job that runs a model (`gpu`) or none; None if it starts at once."""
    return spec.run.queue_name if gpu else spec.run.cpu_queue_name or spec.run.queue_name


SETUP = "2-"
"""The prefix of present setup hashes; those of earlier operators have none."""

_SHARING = ("parallelism", "queueName", "cpuQueueName")
_OF_STAGES = ("minParallelism", "resources", "backoffLimitPerShard", "dtype", "batchSize", "compile")
_OF_OTHERS: Mapping[Step, tuple[str, ...]] = {
    Step.PLAN: (*_OF_STAGES, "samplesPerPublishShard"),
    Step.PUBLISH_SHARD: ("dtype", "batchSize", "compile", "samplesPerShard", "modelCache"),
    Step.PUBLISH: (*_OF_STAGES, "samplesPerShard", "modelCache"),
    Step.DELETE: (*_OF_STAGES, "samplesPerShard", "modelCache", "activeDeadlineSeconds", "samplesPerPublishShard"),
    Step.STAGE: ("samplesPerPublishShard",),
}
"""For each step, the fields of `run` that change nothing of its Job."""


def is_current(setup: str, spec: LabeledDatasetSpec, step: Step, *, gpu: bool) -> bool:
    """Whether a Job with this setup hash would be built in the same way from this spec."""
    return setup == (setup_of(spec, step, gpu=gpu) if setup.startswith(SETUP) else _former_setup_of(spec))


def setup_of(spec: LabeledDatasetSpec, step: Step, *, gpu: bool) -> str:
    """Return a hash of the fields of a spec that are fixed in a Job of this step, except revision and store.

    Neither defaults nor the operator's settings are in it: a newer operator computes the same hash. `parallelism` is
    not in it: a Job without a queue is resized, and one in a queue keeps its place (see `runs.why_begin_again`).
    """
    run = spec.run.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    without = (*_SHARING, *_OF_OTHERS[step], *(() if gpu else ("resources",)))
    fixed = {name: value for name, value in run.items() if name not in without}
    parts = {"run": fixed, "queue": queue_of(spec, gpu=gpu), "secret": _secret_of(spec)}
    return SETUP + address({**parts, **_bounds_of(spec, step)}, 10)


def _bounds_of(spec: LabeledDatasetSpec, step: Step) -> dict[str, int]:
    """Return the bounds outside `run` that the Job of this step applies, where they are not the default."""
    if step is Step.PLAN and spec.prompts.max_bytes != DEFAULT_PROMPT_BYTES:
        return {"maxBytes": spec.prompts.max_bytes}
    if step is Step.PUBLISH and spec.revision_history_limit != DEFAULT_HISTORY_LIMIT:
        return {"revisionHistoryLimit": spec.revision_history_limit}
    return {}


def _former_setup_of(spec: LabeledDatasetSpec) -> str:
    """Return the hash that earlier operators wrote to all Jobs of a run."""
    run = spec.run.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    if spec.run.queue_name is None:  # Such a Job can be resized; only Kueue may resize a queued one.
        run.pop("parallelism", None)
    return address({"run": run, "secret": _secret_of(spec)}, 10)


def _secret_of(spec: LabeledDatasetSpec) -> str:
    s3 = spec.output.s3
    return s3.secret_ref.name if s3 is not None and s3.secret_ref is not None else ""


def work_order(run: RunPlan) -> Manifest:
    """Return the immutable ConfigMap with the work order: what decides content and store."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(run, names.work_order_name(run.key), {}),
        "immutable": True,
        **_order_data(run),
    }


def _order_data(run: RunPlan) -> Manifest:
    if not run.is_compressed:
        return {"data": {contract.ORDER_KEY: run.order_text}}
    packed = gzip.compress(run.order_text.encode(), mtime=0)
    return {"binaryData": {contract.ORDER_KEY_COMPRESSED: base64.b64encode(packed).decode()}}


def excess_of(order: Manifest, spec: LabeledDatasetSpec) -> str | None:
    """Return why no ConfigMap can hold this work order, with the field that makes it large; None if one can."""
    packed = order.get("binaryData") or {}
    size = sum(len(key) + len(base64.b64decode(value)) for key, value in packed.items())
    if size <= CONFIG_MAP_BYTES:
        return None
    field, length = _largest_field(spec.model_dump(mode="json", by_alias=True, exclude_defaults=True), "spec")
    return (
        f"The work order has {size:,} bytes even when it is compressed, and a ConfigMap holds {CONFIG_MAP_BYTES:,}. "
        f"The largest field is {field} ({length:,} bytes of JSON): shorten it, or split the dataset."
    )


def _largest_field(value: Any, path: str) -> tuple[str, int]:
    """Return the innermost field that has more than half of a value's JSON, and its size."""
    size = len(json.dumps(value))
    inner: list[tuple[str, Any]] = []
    if isinstance(value, Mapping):
        inner = [(f"{path}.{name}", each) for name, each in value.items()]
    elif isinstance(value, list):
        inner = [(f"{path}[{place}]", each) for place, each in enumerate(value)]
    name, largest = max(inner, key=lambda pair: len(json.dumps(pair[1])), default=("", None))
    return _largest_field(largest, name) if 2 * len(json.dumps(largest)) > size else (path, size)


def clean_up_work_order(run: RunPlan) -> Manifest:
    """Return the clean-up's ConfigMap."""
    return _not_blocking(work_order(run))


def plan_job(run: RunPlan) -> Manifest:
    """Return the Job of the plan step."""
    return _single(run, Step.PLAN)


@dataclass(frozen=True, slots=True)
class Division:
    """How the samples of a publication are divided into shards."""

    count: int
    size: int
    """Samples of a shard; the last one has all that follow."""

    @property
    def arguments(self) -> list[str]:
        """The options of the worker."""
        return ["--shards", str(self.count), "--samples-per-shard", str(self.size)]


def publish_job(run: RunPlan, division: Division | None = None) -> Manifest:
    """Return the Job of the publish step; with a division, it joins the shards."""
    return _single(run, Step.PUBLISH, division.arguments if division is not None else ())


def publish_shard_job(run: RunPlan, division: Division, parallelism: int) -> Manifest:
    """Return the Indexed Job of the shards of a publication."""
    # Work that is missing from the store is not found by a retry of the pod, nor by the other shards.
    rule = _on_exit("FailJob", ExitCode.BAD_SHARD)
    command = ["diffugen", "worker", Step.PUBLISH_SHARD.value, *division.arguments]
    indexed = _indexed(run, division.count, parallelism, rule)
    return _job(run, Step.PUBLISH_SHARD, indexed, command=command, stage="", gpu=False)


def delete_job(run: RunPlan) -> Manifest:
    """Return the Job of the clean-up."""
    return _not_blocking(_single(run, Step.DELETE))


def stage_job(run: RunPlan, stage: StageStatus, parallelism: int) -> Manifest:
    """Return the Indexed Job of a stage: one index for each shard, so many pods at once."""
    indexed = _indexed(run, stage.shards.total, parallelism, _on_exit("FailIndex", ExitCode.BAD_SHARD))
    command = ["diffugen", "worker", "stage", "--stage", stage.name]
    return _job(run, Step.STAGE, indexed, command=command, stage=stage.name, gpu=stage.gpu)


def _indexed(run: RunPlan, shards: int, parallelism: int, rule: Manifest) -> Manifest:
    return {
        "completionMode": "Indexed",
        "completions": shards,
        "parallelism": parallelism,
        "backoffLimitPerIndex": run.spec.run.backoff_limit_per_shard,
        "maxFailedIndexes": min(shards, max(1, shards // 10)),
        # No retry may start before the former pod is gone, so that an index never has two pods.
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": [*_common_rules(), rule]},
    }


def _single(run: RunPlan, step: Step, arguments: Sequence[str] = ()) -> Manifest:
    spec = {
        "backoffLimit": CRASHES,
        "podReplacementPolicy": "Failed",
        # A retry of the pod does not find work that is missing from the store: only another attempt plans it.
        "podFailurePolicy": {"rules": [*_common_rules(), _on_exit("FailJob", ExitCode.BAD_SHARD)]},
    }
    return _job(run, step, spec, command=["diffugen", "worker", step.value, *arguments], stage="", gpu=False)


def _job(run: RunPlan, step: Step, spec: Mapping[str, Any], *, command: list[str], stage: str, gpu: bool) -> Manifest:
    labels = _labels(run, step, stage)
    deadline = run.spec.run.active_deadline_seconds
    queue = queue_of(run.spec, gpu=gpu)
    of_kueue, annotations = _for_kueue(run, queue, spec) if queue else ({}, {})
    metadata = _metadata(run, names.job_name(run.key, step, stage), {**labels, **of_kueue})
    annotations[contract.ANNOTATION_SETUP] = setup_of(run.spec, step, gpu=gpu)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {**metadata, "annotations": annotations},
        "spec": {
            **spec,
            # Kueue decides when it runs: it sets `suspend`, and owns `parallelism` and the pod template.
            **({"suspend": True} if queue else {}),
            "ttlSecondsAfterFinished": run.settings.job_ttl,
            **({"activeDeadlineSeconds": deadline} if deadline is not None else {}),
            "template": pod_template(
                run.spec,
                run.settings,
                command=command,
                labels={**_common_labels(run), **labels},
                order=Order(
                    config_map=names.work_order_name(run.key),
                    file=contract.ORDER_KEY_COMPRESSED if run.is_compressed else contract.ORDER_KEY,
                    sha256=run.order_sha256,
                    dataset=run.key.name,
                ),
                gpu=gpu,
                models=step in {Step.PLAN, Step.STAGE},
                images=_images(run, step, stage),
            ),
        },
    }


def _images(run: RunPlan, step: Step, stage: str) -> list[ModelImage]:
    """Return the images with models that the pods of a step read: the plan all, a stage its own, other steps none."""
    if step is Step.PLAN:
        return images_of(model_uris(run.spec).values())
    if step is not Step.STAGE:
        return []
    own = next(each for each in run.spec.stages if each.name == stage)
    return images_of(model_uris(run.spec, own).values())


def _for_kueue(run: RunPlan, queue: str, job: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the labels and annotations of a Job in a Kueue queue."""
    labels = {contract.LABEL_QUEUE: queue}
    if (priority := run.spec.run.workload_priority_class) is not None:
        labels[contract.LABEL_PRIORITY] = priority
    if "parallelism" not in job:  # It is one pod.
        return labels, {}
    annotations = {contract.ANNOTATION_PARALLELISM: str(run.spec.run.parallelism)}
    fewest = run.spec.run.min_parallelism
    if fewest is not None and fewest < job["parallelism"]:  # Kueue refuses an equal or larger one.
        annotations[contract.ANNOTATION_MIN_PARALLELISM] = str(fewest)
    return labels, annotations


def _common_rules() -> list[Manifest]:
    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        _on_exit("FailJob", ExitCode.BAD_SPEC, ExitCode.REFUSED),
        # Ignored failures still lengthen the Job's back-off (kubernetes#130881), which is right here.
        _on_exit("Ignore", ExitCode.TRY_AGAIN),
    ]


def _on_exit(action: str, *codes: ExitCode) -> Manifest:
    return {
        "action": action,
        "onExitCodes": {
            "containerName": CONTAINER,
            "operator": "In",
            "values": [int(code) for code in codes],
        },
    }


def _metadata(run: RunPlan, name: str, labels: Mapping[str, str]) -> Manifest:
    owner = {
        "apiVersion": f"{contract.GROUP}/{contract.VERSION}",
        "kind": contract.KIND,
        "name": run.key.name,
        "uid": run.key.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "name": name,
        "namespace": run.key.namespace,
        "labels": {**_common_labels(run), **labels},
        "ownerReferences": [owner],
    }


def _not_blocking(manifest: Manifest) -> Manifest:
    """Return the manifest of an object that survives a foreground deletion of its owner.

    In a foreground deletion, Kubernetes deletes at once the objects that block the owner's deletion; but the owner is
    kept until this object has done its work.
    """
    owners = [{**owner, "blockOwnerDeletion": False} for owner in manifest["metadata"]["ownerReferences"]]
    return {**manifest, "metadata": {**manifest["metadata"], "ownerReferences": owners}}


def _common_labels(run: RunPlan) -> dict[str, str]:
    dataset = names.label_value(run.key.name)
    return {
        contract.LABEL_MANAGED_BY: contract.MANAGED_BY,
        "app.kubernetes.io/name": "diffugen",
        "app.kubernetes.io/instance": dataset,
        contract.LABEL_DATASET: dataset,
        contract.LABEL_REVISION: run.key.revision,
        contract.LABEL_ATTEMPT: str(run.key.attempt),
    }


def _labels(run: RunPlan, step: Step, stage: str) -> dict[str, str]:
    labels = {contract.LABEL_STEP: step.value, "app.kubernetes.io/component": step.value}
    return {**labels, contract.LABEL_STAGE: stage} if stage else labels
