"""The pods of every step: one template, PSA-restricted, without a Kubernetes token.

A pod gets its work order as a file, its shard's number and its own address as environment variables, the
store's credentials from the user's Secret (which the operator never reads), and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffugen_api import contract
from diffugen_api.model_images import ModelImage
from diffugen_api.v1alpha1 import LabeledDatasetSpec, Prompts, Resources, Run
from diffugen_operator.manifests.devices import without_devices
from diffugen_operator.manifests.names import CONTAINER
from diffugen_operator.manifests.overlays import overlaid
from diffugen_operator.settings import Settings

ORDER_VOLUME = "order"
CACHE_VOLUME = "models"
CA_VOLUME = "authorities"
CACHE_GROUP = 65532
"""The group that the model cache belongs to: the conventional "nonroot" group."""

DEFAULT_PROMPT_BYTES: int = Prompts.model_fields["max_bytes"].default
DEFAULT_HISTORY_LIMIT: int = LabeledDatasetSpec.model_fields["revision_history_limit"].default

_LIGHT_RESOURCES = Resources(requests={"cpu": "100m", "memory": "256Mi"})
"""For pods that run no model: a realistic request for the scheduler, and no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The work order of a pod."""

    config_map: str
    """The ConfigMap that holds it."""
    file: str
    """Its key there, and so the name of the mounted file."""
    sha256: str
    """The digest of its text. Another user can create a ConfigMap of this name first, so the Job has the digest."""
    dataset: str


def pod_template(
    spec: LabeledDatasetSpec,
    settings: Settings,
    *,
    command: list[str],
    labels: Mapping[str, str],
    order: Order,
    gpu: bool,
    models: bool = True,
    images: Sequence[ModelImage] = (),
) -> dict[str, Any]:
    """Return the pod template of a step, with the user's overlay on it.

    Steps that read `models` share the cache of them, if there is one, and mount `images`, in which there are models. A
    pod that runs no model claims no device under any overlay, and our labels are always kept, because the pods are
    found by them.
    """
    run = spec.run
    generated = _generated(spec, settings, command=command, order=order, gpu=gpu)
    if models and run.model_cache is not None:
        _add_cache(generated["spec"], run.model_cache.persistent_volume_claim)
    if images:
        _add_images(generated["spec"], images)
    if settings.ca_config_map:
        _add_authorities(generated["spec"], settings.ca_config_map)
    template = overlaid(generated, run.pod_template)
    if not gpu:
        template["spec"] = without_devices(template.get("spec"), run.resources)
    return overlaid(template, {"metadata": {"labels": dict(labels)}})


def _generated(
    spec: LabeledDatasetSpec, settings: Settings, *, command: list[str], order: Order, gpu: bool
) -> dict[str, Any]:
    resources = spec.run.resources if gpu else _LIGHT_RESOURCES
    container = {
        "name": CONTAINER,
        "image": spec.run.image or (settings.generator_image if gpu else settings.light_image),
        "command": command,
        "env": _environment(spec, order),
        "ports": [{"name": "metrics", "containerPort": contract.METRICS_PORT}],
        "resources": resources.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        "volumeMounts": [
            {"name": ORDER_VOLUME, "mountPath": contract.ORDER_MOUNT, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own
        ],
        "terminationMessagePolicy": "File",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }
    return {
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": settings.termination_grace,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [
                {"name": ORDER_VOLUME, "configMap": {"name": order.config_map}},
                {"name": "tmp", "emptyDir": {}},
            ],
        }
    }


def _add_cache(pod: dict[str, Any], claim: str) -> None:
    (container,) = pod["containers"]
    container["env"].append({"name": contract.ENV_MODEL_CACHE, "value": contract.MODEL_CACHE_MOUNT})
    container["volumeMounts"].append({"name": CACHE_VOLUME, "mountPath": contract.MODEL_CACHE_MOUNT})
    pod["volumes"].append({"name": CACHE_VOLUME, "persistentVolumeClaim": {"claimName": claim}})
    # A new volume usually belongs to root; with this group a pod of any other user can write to it.
    pod["securityContext"] |= {"fsGroup": CACHE_GROUP, "fsGroupChangePolicy": "OnRootMismatch"}


def _add_images(pod: dict[str, Any], images: Sequence[ModelImage]) -> None:
    (container,) = pod["containers"]
    folders = {image.digest: f"{contract.MODEL_IMAGES_MOUNT}/{image.digest.replace(':', '-')}" for image in images}
    value = ",".join(f"{digest}={folder}" for digest, folder in folders.items())
    container["env"].append({"name": contract.ENV_MODEL_IMAGES, "value": value})
    for image in images:
        # A volume's name has at most 63 characters, which is less than a digest.
        name = f"image-{image.digest.removeprefix('sha256:')[:40]}"
        container["volumeMounts"].append({"name": name, "mountPath": folders[image.digest], "readOnly": True})
        source = {"reference": image.reference, "pullPolicy": "IfNotPresent"}
        pod["volumes"].append({"name": name, "image": source})


def image_volumes(pod: Mapping[str, Any]) -> dict[str, str]:
    """Return the image of each image volume of a pod's spec, by the volume's name."""
    return {
        volume["name"]: volume["image"].get("reference", "")
        for volume in pod.get("volumes") or ()
        if volume.get("image") is not None
    }


def _add_authorities(pod: dict[str, Any], config_map: str) -> None:
    (container,) = pod["containers"]
    file = f"{contract.CA_MOUNT}/{contract.CA_KEY}"
    # The variables that OpenSSL, Python's ssl and minio read, and the one that requests reads.
    container["env"] += [{"name": name, "value": file} for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")]
    container["volumeMounts"].append({"name": CA_VOLUME, "mountPath": contract.CA_MOUNT, "readOnly": True})
    items = [{"key": contract.CA_KEY, "path": contract.CA_KEY}]
    pod["volumes"].append({"name": CA_VOLUME, "configMap": {"name": config_map, "items": items}})


def _environment(spec: LabeledDatasetSpec, order: Order) -> list[dict[str, Any]]:
    env: list[dict[str, Any]] = [
        {"name": contract.ENV_ORDER, "value": f"{contract.ORDER_MOUNT}/{order.file}"},
        {"name": contract.ENV_ORDER_SHA256, "value": order.sha256},
        {"name": contract.ENV_DATASET, "value": order.dataset},
        {"name": contract.ENV_POD_NAMESPACE, "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        {"name": contract.ENV_POD_IP, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        # The root file system is read-only; libraries write their files for the home directory to /tmp.
        {"name": "HOME", "value": "/tmp"},  # noqa: S108 - the pod's own
    ]
    if spec.output.s3 is not None and spec.output.s3.secret_ref is not None:
        secret = spec.output.s3.secret_ref.name
        env += [
            _from_secret(contract.ENV_ACCESS_KEY, secret),
            _from_secret(contract.ENV_SECRET_KEY, secret),
            _from_secret(contract.ENV_SESSION_TOKEN, secret, optional=True),
        ]
    if spec.run.samples_per_shard != Run().samples_per_shard:
        env.append({"name": contract.ENV_SAMPLES_PER_SHARD, "value": str(spec.run.samples_per_shard)})
    if spec.prompts.max_bytes != DEFAULT_PROMPT_BYTES:
        env.append({"name": contract.ENV_MAX_PROMPT_BYTES, "value": str(spec.prompts.max_bytes)})
    if spec.revision_history_limit != DEFAULT_HISTORY_LIMIT:
        env.append({"name": contract.ENV_REVISION_HISTORY_LIMIT, "value": str(spec.revision_history_limit)})
    if spec.run.dtype != "auto":
        env.append({"name": contract.ENV_DTYPE, "value": spec.run.dtype})
    if spec.run.batch_size is not None:
        env.append({"name": contract.ENV_BATCH_SIZE, "value": str(spec.run.batch_size)})
    if spec.run.compile:
        env.append({"name": contract.ENV_COMPILE, "value": "true"})
    return env


def _from_secret(name: str, secret: str, *, optional: bool = False) -> dict[str, Any]:
    reference: dict[str, Any] = {"name": secret, "key": name}
    if optional:
        reference["optional"] = True
    return {"name": name, "valueFrom": {"secretKeyRef": reference}}
