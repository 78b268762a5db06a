"""The manifests of a run: what the API server and the pods receive."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from diffugen_api.contract import Step
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import revision_of, store_of
from diffugen_api.recipes import _CONTENT_FIELDS
from diffugen_api.v1alpha1 import LabeledDatasetSpec, Run, ShardStatus, StageStatus
from diffugen_operator.manifests import jobs, names
from diffugen_operator.manifests.jobs import RunPlan
from diffugen_operator.manifests.names import RunKey
from diffugen_operator.settings import Settings
from tests.operator.lives import spec_data


def a_run(*stages: str, **changes: Any) -> RunPlan:
    key = RunKey(uid="u-1", namespace="vision", name="shapes", revision="3f9a1c07de", store="0011223344", attempt=2)
    spec = LabeledDatasetSpec.model_validate(spec_data(*stages, **changes))
    return RunPlan(key=key, spec=spec, settings=Settings(generator_image="heavy:1", light_image="light:1"))


def a_stage(shards: int = 12, *, gpu: bool = True) -> StageStatus:
    return StageStatus(name="base", kind="txt2img", gpu=gpu, shards=ShardStatus(total=shards))


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = job["spec"]["template"]["spec"]
    return spec


def generator_of(job: dict[str, Any]) -> dict[str, Any]:
    return next(c for c in pod_of(job)["containers"] if c["name"] == "generator")


def test_a_stage_is_an_indexed_job_with_an_index_for_each_shard() -> None:
    spec = jobs.stage_job(a_run(run={"backoffLimitPerShard": 5}), a_stage(12), 4)["spec"]

    assert spec["completionMode"] == "Indexed"
    assert (spec["completions"], spec["parallelism"]) == (12, 4)
    assert spec["backoffLimitPerIndex"] == 5
    assert spec["podReplacementPolicy"] == "Failed"
    assert "suspend" not in spec


@pytest.mark.parametrize(("shards", "bound"), [(1, 1), (9, 1), (20, 2), (10_000, 1000)])
def test_a_tenth_of_the_shards_may_fail_before_the_others_are_stopped(shards: int, bound: int) -> None:
    assert jobs.stage_job(a_run(), a_stage(shards), 1)["spec"]["maxFailedIndexes"] == bound


@pytest.mark.parametrize(
    ("job", "on_bad_shard"),
    [
        (jobs.stage_job(a_run(), a_stage(), 1), "FailIndex"),
        (jobs.plan_job(a_run()), "FailJob"),
        (jobs.publish_job(a_run()), "FailJob"),
    ],
)
def test_how_the_end_of_a_pod_counts(job: dict[str, Any], on_bad_shard: str) -> None:
    rules = job["spec"]["podFailurePolicy"]["rules"]

    assert [(rule["action"], rule.get("onExitCodes", {}).get("values")) for rule in rules] == [
        ("Ignore", None),  # disruptions
        ("FailJob", [64, 77]),
        ("Ignore", [75]),
        (on_bad_shard, [65]),
    ]
    assert rules[0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]


@pytest.mark.parametrize("build", [jobs.plan_job, jobs.publish_job])
def test_plan_and_publish_are_one_light_pod_each(build: Any) -> None:
    job = build(a_run(run={"resources": {"limits": {"nvidia.com/gpu": 2}}}))

    assert "completionMode" not in job["spec"]
    assert generator_of(job)["image"] == "light:1"
    assert "nvidia.com/gpu" not in json.dumps(job)


@pytest.mark.parametrize(
    ("job", "command"),
    [
        (jobs.plan_job(a_run()), ["diffugen", "worker", "plan"]),
        (jobs.stage_job(a_run(), a_stage(), 1), ["diffugen", "worker", "stage", "--stage", "base"]),
        (jobs.publish_job(a_run()), ["diffugen", "worker", "publish"]),
    ],
)
def test_what_each_pod_runs(job: dict[str, Any], command: list[str]) -> None:
    assert generator_of(job)["command"] == command


def test_a_drawing_pod_gets_the_gpu_and_the_heavy_image() -> None:
    generator = generator_of(jobs.stage_job(a_run(), a_stage(), 1))

    assert generator["resources"] == {"limits": {"nvidia.com/gpu": 1}}
    assert generator["image"] == "heavy:1"


def test_a_pod_that_only_decides_labels_requests_no_gpu_under_any_overlay() -> None:
    overlay = {"spec": {"containers": [{"name": "generator", "resources": {"limits": {"nvidia.com/gpu": 1}}}]}}
    job = jobs.stage_job(a_run(run={"podTemplate": overlay}), a_stage(gpu=False), 1)

    assert "nvidia.com/gpu" not in json.dumps(job)
    assert generator_of(job)["image"] == "light:1"


def image_of(letter: str, path: str = "") -> str:
    return f"oci://registry.example/models/{letter}:v1@sha256:{letter * 64}{path}"


def mounted_images(job: dict[str, Any]) -> dict[str, str]:
    """Return the image of each folder that a pod reads models from."""
    volumes = {each["name"]: each["image"] for each in pod_of(job)["volumes"] if "image" in each}
    mounts = {each["name"]: each for each in generator_of(job)["volumeMounts"] if each["name"] in volumes}
    assert mounts.keys() == volumes.keys()
    assert all(each["readOnly"] for each in mounts.values())
    assert all(each["pullPolicy"] == "IfNotPresent" for each in volumes.values())
    return {mounts[name]["mountPath"]: image["reference"] for name, image in volumes.items()}


def test_models_in_images_are_mounted_where_they_are_read() -> None:
    stages: list[dict[str, Any]] = [
        {"name": "base", "txt2img": {"model": image_of("a"), "loras": [{"uri": image_of("b", "#/fog.safetensors")}]}},
        {"name": "redrawn", "img2img": {"from": "base", "variables": {"object": ["ball"]}}},
        {"name": "other", "txt2img": {"model": image_of("c")}},
        {
            "name": "word",
            "textualInversion": {
                "model": image_of("d"),
                "images": "s3://pictures/few",
                "token": "<x>",
                "initializer": "ball",
            },
        },
    ]
    detector = {"type": "transformers", "model": image_of("e", "#/segmenter")}
    run = a_run(stages=stages, labeling={"detector": detector})

    def images_of(stage: str) -> set[str]:
        status = StageStatus(name=stage, kind="txt2img", gpu=True, shards=ShardStatus(total=1))
        return {reference[-1] for reference in mounted_images(jobs.stage_job(run, status, 1)).values()}

    assert {reference[-1] for reference in mounted_images(jobs.plan_job(run)).values()} == set("abcde")
    assert images_of("base") == images_of("redrawn") == set("abe")
    assert images_of("other") == set("ce")
    assert images_of("word") == {"d"}
    assert mounted_images(jobs.publish_job(run)) == mounted_images(jobs.delete_job(run)) == {}


def test_a_pod_finds_the_folder_of_each_image_by_its_digest() -> None:
    digest = "a" * 64
    loras = [{"uri": image_of("a", "#/fog.safetensors")}, {"uri": image_of("b", "#/fog.safetensors")}]
    stages = [{"name": "base", "txt2img": {"model": image_of("a", "#/sd15"), "loras": loras}}]
    job = jobs.stage_job(a_run(stages=stages), a_stage(), 1)

    env = {each["name"]: each.get("value") for each in generator_of(job)["env"]}
    named = dict(pair.split("=") for pair in str(env["DIFFUGEN_MODEL_IMAGES"]).split(","))
    assert mounted_images(job)[named[f"sha256:{digest}"]] == f"registry.example/models/a@sha256:{digest}"
    assert len(named) == 2
    assert all(len(each["name"]) <= 63 for each in pod_of(job)["volumes"])


def test_without_a_model_in_an_image_a_pod_is_as_before() -> None:
    for job in (jobs.plan_job(a_run()), jobs.stage_job(a_run(), a_stage(), 1)):
        assert mounted_images(job) == {}
        assert "DIFFUGEN_MODEL_IMAGES" not in json.dumps(job)


GPUS = {"limits": {"nvidia.com/gpu": 1, "memory": "1Gi"}}


@pytest.mark.parametrize(
    "overlay",
    [
        {"containers": [{"name": "generator", "resources": GPUS}]},
        {"containers": [{"name": "beside", "resources": GPUS}]},
        {"initContainers": [{"name": "fetch", "resources": GPUS}]},
        {"resources": GPUS},
    ],
)
@pytest.mark.parametrize("build", [jobs.plan_job, jobs.publish_job])
def test_a_pod_without_a_model_requests_no_gpu_in_any_field(build: Any, overlay: dict[str, Any]) -> None:
    job = json.dumps(build(a_run(run={"podTemplate": {"spec": overlay}})))

    assert "nvidia.com/gpu" not in job
    assert '"memory": "1Gi"' in job


@pytest.mark.parametrize("spec", [{"initContainers": "none"}, {"resources": 1}, {"containers": None}])
def test_an_invalid_overlay_is_left_to_the_api_server(spec: dict[str, Any]) -> None:
    jobs.plan_job(a_run(run={"podTemplate": {"spec": spec}}))


@pytest.mark.parametrize(
    "build", [jobs.plan_job, lambda run: jobs.stage_job(run, a_stage(), 1), jobs.publish_job, jobs.delete_job]
)
def test_a_finished_job_is_kept_for_the_configured_time(build: Callable[[RunPlan], dict[str, Any]]) -> None:
    run = a_run()

    assert build(run)["spec"]["ttlSecondsAfterFinished"] == 3600
    assert build(replace(run, settings=Settings(job_ttl=0)))["spec"]["ttlSecondsAfterFinished"] == 0


def test_an_image_of_the_users_own_is_used_throughout() -> None:
    run = a_run(run={"image": "mine:3"})

    assert {generator_of(job)["image"] for job in (jobs.plan_job(run), jobs.stage_job(run, a_stage(), 1))} == {"mine:3"}


def test_pods_meet_the_restricted_pod_security_standard() -> None:
    pod = pod_of(jobs.stage_job(a_run(), a_stage(), 1))
    container = pod["containers"][0]

    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert {volume["name"] for volume in pod["volumes"]} == {"order", "tmp"}


def test_the_steps_that_read_models_share_their_cache_and_stay_restricted() -> None:
    run = a_run(run={"modelCache": {"persistentVolumeClaim": "models"}})

    for job in (jobs.plan_job(run), jobs.stage_job(run, a_stage(), 1)):
        pod, container = pod_of(job), generator_of(job)
        (mount,) = (each for each in container["volumeMounts"] if each["name"] == "models")
        assert {"name": "models", "persistentVolumeClaim": {"claimName": "models"}} in pod["volumes"]
        assert {"name": "DIFFUGEN_MODEL_CACHE", "value": mount["mountPath"]} in container["env"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["fsGroup"] == 65532
    assert "persistentVolumeClaim" not in json.dumps(jobs.publish_job(run))


def test_every_pod_trusts_the_authorities_that_the_operator_names() -> None:
    run = a_run()
    run = replace(run, settings=run.settings.model_copy(update={"ca_config_map": "team-ca"}))

    for job in (jobs.plan_job(run), jobs.stage_job(run, a_stage(), 1), jobs.publish_job(run), jobs.delete_job(run)):
        pod, container = pod_of(job), generator_of(job)
        volume = next(each for each in pod["volumes"] if each.get("configMap", {}).get("name") == "team-ca")
        mount = next(each for each in container["volumeMounts"] if each["name"] == volume["name"])
        file = f"{mount['mountPath']}/ca.crt"
        assert volume["configMap"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]
        assert mount["readOnly"] is True
        assert {"name": "SSL_CERT_FILE", "value": file} in container["env"]
        assert {"name": "REQUESTS_CA_BUNDLE", "value": file} in container["env"]
    assert "SSL_CERT_FILE" not in json.dumps(jobs.plan_job(a_run()))


def test_how_stages_compute_is_passed_where_it_is_set() -> None:
    names = {"DIFFUGEN_DTYPE", "DIFFUGEN_BATCH_SIZE", "DIFFUGEN_COMPILE"}

    def said(run: dict[str, Any]) -> dict[str, str]:
        env = generator_of(jobs.stage_job(a_run(run=run), a_stage(), 1))["env"]
        return {each["name"]: each["value"] for each in env if each["name"] in names}

    assert said({}) == {}
    assert said({"dtype": "float16", "batchSize": 8, "compile": True}) == dict(
        zip(sorted(names), ["8", "true", "float16"], strict=True)
    )


def test_pods_hold_store_credentials_by_reference_and_no_kubernetes_token() -> None:
    pod = pod_of(jobs.plan_job(a_run()))
    env = {variable["name"]: variable for variable in pod["containers"][0]["env"]}

    assert pod["automountServiceAccountToken"] is False
    assert env["AWS_ACCESS_KEY_ID"]["valueFrom"]["secretKeyRef"] == {"name": "store", "key": "AWS_ACCESS_KEY_ID"}
    assert env["AWS_SESSION_TOKEN"]["valueFrom"]["secretKeyRef"]["optional"] is True
    assert env["DIFFUGEN_ORDER"]["value"] == "/etc/diffugen/order.json"
    assert env["DIFFUGEN_POD_IP"]["valueFrom"]["fieldRef"]["fieldPath"] == "status.podIP"


def test_without_a_secret_the_stores_own_chain_of_credentials_is_used() -> None:
    run = a_run(output={"s3": {"endpoint": "http://minio:9000", "bucket": "pictures"}})

    assert "secretKeyRef" not in json.dumps(jobs.plan_job(run))


def test_jobs_and_pods_are_labeled_alike_and_owned_by_the_dataset() -> None:
    job = jobs.stage_job(a_run(), a_stage(), 1)

    assert job["metadata"]["labels"] == job["spec"]["template"]["metadata"]["labels"]
    assert job["metadata"]["labels"] == {
        "app.kubernetes.io/managed-by": "diffugen-operator",
        "app.kubernetes.io/name": "diffugen",
        "app.kubernetes.io/instance": "shapes",
        "app.kubernetes.io/component": "stage",
        "diffugen.dev/dataset": "shapes",
        "diffugen.dev/step": "stage",
        "diffugen.dev/stage": "base",
        "diffugen.dev/revision": "3f9a1c07de",
        "diffugen.dev/attempt": "2",
    }
    (owner,) = job["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("LabeledDataset", "shapes", "u-1")
    assert owner["controller"] is owner["blockOwnerDeletion"] is True


def test_an_overlay_cannot_change_the_labels_by_which_pods_are_found() -> None:
    overlay = {"metadata": {"labels": {"team": "vision", "diffugen.dev/attempt": "9"}}}
    labels = jobs.plan_job(a_run(run={"podTemplate": overlay}))["spec"]["template"]["metadata"]["labels"]

    assert (labels["team"], labels["diffugen.dev/attempt"]) == ("vision", "2")


def test_the_deadline_applies_to_each_job() -> None:
    assert jobs.plan_job(a_run(run={"activeDeadlineSeconds": 60}))["spec"]["activeDeadlineSeconds"] == 60
    assert "activeDeadlineSeconds" not in jobs.plan_job(a_run())["spec"]


def test_the_setup_annotation_does_not_depend_on_the_operators_settings() -> None:
    newer = Settings(generator_image="heavy:2", light_image="light:2", termination_grace=9, job_ttl=9)
    run = a_run(run={"image": "mine:1", "parallelism": 3})

    for made in (run, replace(run, settings=newer), replace(run, spec=a_run(run={"image": "mine:1"}).spec)):
        assert jobs.plan_job(made)["metadata"]["annotations"] == {"diffugen.dev/setup": "2-dc24ef11da"}
        assert "annotations" not in jobs.plan_job(made)["spec"]["template"]["metadata"]


def test_the_order_holds_content_and_store_and_no_run_settings() -> None:
    run = a_run(run={"samplesPerShard": 7, "parallelism": 9, "podTemplate": {"spec": {"x": 1}}}, suspend=True)
    order = jobs.work_order(run)

    assert order["immutable"] is True
    said = WorkOrder.model_validate_json(order["data"]["order.json"])
    assert (said.namespace, said.name, said.revision) == ("vision", "shapes", "3f9a1c07de")
    assert (said.spec.run, said.spec.suspend) == (Run(), False)
    assert revision_of(said.spec) == revision_of(run.spec)


def test_a_job_names_its_orders_digest_and_dataset_after_any_edit() -> None:
    s3 = {"endpoint": "http://minio:9000", "bucket": "pictures"}
    former, later = (
        a_run(run={"samplesPerShard": size}, output={"s3": {**s3, "secretRef": {"name": secret}}})
        for size, secret in ((7, "store"), (200, "other"))
    )
    text = jobs.work_order(former)["data"]["order.json"]
    env = {each["name"]: each for each in generator_of(jobs.plan_job(former))["env"]}

    assert env["DIFFUGEN_ORDER_SHA256"]["value"] == hashlib.sha256(text.encode()).hexdigest()
    assert env["DIFFUGEN_DATASET"]["value"] == "shapes"
    assert env["DIFFUGEN_POD_NAMESPACE"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.namespace"
    assert env["DIFFUGEN_SAMPLES_PER_SHARD"]["value"] == "7"
    edited = generator_of(jobs.stage_job(later, a_stage(), 1))["env"]
    assert env["DIFFUGEN_ORDER_SHA256"] in edited
    assert "DIFFUGEN_SAMPLES_PER_SHARD" not in {each["name"] for each in edited}


EDITS: dict[str, dict[str, Any]] = {
    "prompts": {"prompts": {**spec_data()["prompts"], "maxBytes": 30_000}},
    "revisionHistoryLimit": {"revisionHistoryLimit": 9},
    "deletionPolicy": {"deletionPolicy": "Delete"},
    "suspend": {"suspend": True},
    "run": {"run": {"samplesPerShard": 7, "dtype": "float32", "batchSize": 2, "compile": True, "image": "mine:1"}},
    "output": {"output": {"s3": {**spec_data()["output"]["s3"], "secretRef": {"name": "other"}}}},
}
"""For each field of the spec that is not, or not wholly, part of the revision: an edit that begins no other run."""


@pytest.mark.parametrize("field", EDITS)
def test_an_edit_that_begins_no_other_run_leaves_the_order_as_it_is(field: str) -> None:
    former, later = a_run(), a_run(**EDITS[field])

    assert later.spec != former.spec
    assert (revision_of(later.spec), store_of(later.spec)) == (revision_of(former.spec), store_of(former.spec))
    assert jobs.work_order(later) == jobs.work_order(former)


def test_every_field_outside_the_revision_is_among_those_edits() -> None:
    fields = {info.alias or name for name, info in LabeledDatasetSpec.model_fields.items()}

    assert fields - set(_CONTENT_FIELDS) == set(EDITS) - {"prompts"}


def test_pods_are_told_the_bounds_that_can_be_edited_during_a_run() -> None:
    run = a_run(**EDITS["prompts"], **EDITS["revisionHistoryLimit"])
    bounds = {"DIFFUGEN_MAX_PROMPT_BYTES": "30000", "DIFFUGEN_REVISION_HISTORY_LIMIT": "9"}

    for job in (jobs.plan_job(run), jobs.stage_job(run, a_stage(), 1), jobs.publish_job(run)):
        env = {each["name"]: each.get("value") for each in generator_of(job)["env"]}
        assert bounds.items() <= env.items()
    assert not bounds.keys() & {each["name"] for each in generator_of(jobs.plan_job(a_run()))["env"]}


@pytest.mark.parametrize(("field", "step"), [("prompts", Step.PLAN), ("revisionHistoryLimit", Step.PUBLISH)], ids=str)
def test_a_waiting_job_is_outdated_only_by_an_edit_of_the_bound_that_it_applies(field: str, step: Step) -> None:
    former, later = a_run().spec, a_run(**EDITS[field]).spec

    for each in Step:
        changed = jobs.setup_of(former, each, gpu=False) != jobs.setup_of(later, each, gpu=False)
        assert changed == (each is step), each


def test_pods_mount_the_runs_own_order() -> None:
    run = a_run()
    volumes = pod_of(jobs.plan_job(run))["volumes"]

    assert {"name": "order", "configMap": {"name": names.work_order_name(run.key)}} in volumes
    assert jobs.work_order(run)["metadata"]["name"] == names.work_order_name(run.key)


def test_a_job_has_the_name_by_which_it_is_looked_up() -> None:
    run = a_run()

    assert jobs.plan_job(run)["metadata"]["name"] == names.job_name(run.key, Step.PLAN)
    assert jobs.stage_job(run, a_stage(), 1)["metadata"]["name"] == names.job_name(run.key, Step.STAGE, "base")


GPU_OVERLAY = {
    "spec": {
        "hostUsers": False,
        "schedulerName": "volcano",
        "runtimeClassName": "nvidia",
        "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}],
        "nodeSelector": {"cloud.google.com/gke-accelerator": "nvidia-l4", "example.com/pool": "g", "zone": "a"},
        "tolerations": [
            {"key": "nvidia.com/gpu", "operator": "Exists"},
            {"key": "example.com/busy", "operator": "Exists"},
            {"key": "team", "value": "vision"},
            {"operator": "Exists", "effect": "NoExecute"},
        ],
        "affinity": {
            "podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []},
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {
                            "matchExpressions": [
                                {"key": "nvidia.com/gpu.product", "operator": "In", "values": ["L4"]},
                                {"key": "zone", "operator": "In", "values": ["a"]},
                            ]
                        }
                    ]
                },
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 1, "preference": {"matchExpressions": [{"key": "gpu-tier", "operator": "Exists"}]}}
                ],
            },
        },
        "containers": [{"name": "generator", "resources": {"claims": [{"name": "gpu"}]}}],
    }
}


@pytest.mark.parametrize("build", [jobs.plan_job, jobs.publish_job, jobs.delete_job])
def test_a_step_without_a_model_claims_no_device_and_no_node_with_one(build: Any) -> None:
    run = {"resources": {"limits": {"example.com/fpga": 1}}, "podTemplate": GPU_OVERLAY}

    pod = pod_of(build(a_run(run=run)))

    assert "resourceClaims" not in pod
    assert "runtimeClassName" not in pod
    assert "claims" not in generator_of(build(a_run(run=run)))["resources"]
    assert pod["nodeSelector"] == {"zone": "a"}
    assert pod["tolerations"] == GPU_OVERLAY["spec"]["tolerations"], "all nodes may have such a taint"
    node = pod["affinity"]["nodeAffinity"]
    (term,) = node["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert [each["key"] for each in term["matchExpressions"]] == ["zone"]
    assert node["preferredDuringSchedulingIgnoredDuringExecution"] == []
    assert "podAffinity" in pod["affinity"]
    assert (pod["hostUsers"], pod["schedulerName"]) == (False, "volcano")


@pytest.mark.parametrize(
    ("key", "names_a_device"),
    [
        ("example.com/output", False),
        ("throughput", False),
        ("kubernetes.io/arch", False),
        ("cloud.google.com/gke-tpu-topology", True),
        ("tpu", True),
        ("example.com/TPU", True),
        ("multiGPU", True),
        ("aws.amazon.com/neuron.count", True),
    ],
)
def test_which_node_labels_name_a_device(key: str, names_a_device: bool) -> None:
    pod = pod_of(jobs.plan_job(a_run(run={"podTemplate": {"spec": {"nodeSelector": {key: "x"}}}})))

    assert pod["nodeSelector"] == ({} if names_a_device else {key: "x"})


def test_a_required_node_with_a_device_and_nothing_else_leaves_any_node() -> None:
    terms = [{"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}, {"matchExpressions": [{"key": "zone"}]}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    run = {"podTemplate": {"spec": {"affinity": {"nodeAffinity": required}}}}

    assert pod_of(jobs.plan_job(a_run(run=run)))["affinity"]["nodeAffinity"] == {}


def test_a_stage_with_a_model_keeps_all_of_the_template() -> None:
    pod = pod_of(jobs.stage_job(a_run(run={"podTemplate": GPU_OVERLAY}), a_stage(), 1))

    for field in ("resourceClaims", "nodeSelector", "tolerations", "affinity", "runtimeClassName", "hostUsers"):
        assert pod[field] == GPU_OVERLAY["spec"][field], field
    assert pod["schedulerName"] == "volcano"
