"""What the chart renders from its values."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from version import UNRELEASED

from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_operator.settings import Settings
from tests.chart.helm import CHART, NAMESPACE, RELEASE, ROOT, VARIANTS, Json, of_kind, one, render

CRD = ROOT / "crds" / "diffugen.dev_labeleddatasets.yaml"
META: Json = yaml.safe_load((CHART / "Chart.yaml").read_text())


def settings_of(manifests: list[Json], name: str = RELEASE) -> Settings:
    """Return the settings that the operator reads from the flags of the Deployment."""
    (container,) = one(manifests, "Deployment", name)["spec"]["template"]["spec"]["containers"]
    flags: dict[str, str | None] = {}
    for argument in container["args"]:
        name, _, value = argument.removeprefix("--").partition("=")
        flags["namespaces" if name == "all-namespaces" else name.replace("-", "_")] = value
    known = set(Settings.model_fields)
    assert flags.keys() <= known, f"no settings: {flags.keys() - known}"
    return Settings.read(flags)


def test_it_serves_its_own_namespace_with_a_lease_there() -> None:
    settings = settings_of(render())

    assert settings.namespaces == (NAMESPACE,)
    assert (settings.lease_namespace, settings.lease_name) == (NAMESPACE, RELEASE)
    assert settings.http_port == 8080
    assert settings.generator_image == f"ghcr.io/diffugen/generator:{META['appVersion']}"
    assert settings.light_image == f"ghcr.io/diffugen/generator-light:{META['appVersion']}"
    assert settings.default_store is None


def test_cluster_wide_it_serves_all_namespaces() -> None:
    assert settings_of(render({"clusterWide": True, "namespaces": ["vision"]})).namespaces == ()


def test_a_named_default_store_precedes_minio() -> None:
    values = {**VARIANTS["MinIO for trials"], **VARIANTS["a default store"]}

    store = settings_of(render(values)).default_store
    assert store is not None
    assert (store.endpoint, store.bucket, store.prefix) == ("https://s3.example", "data", "team")
    assert store.secret_ref is not None
    assert store.secret_ref.name == "keys"


def test_minio_becomes_the_default_store_with_its_keys_in_every_served_namespace() -> None:
    manifests = render(VARIANTS["MinIO with a volume"])
    store = settings_of(manifests).default_store
    service = one(manifests, "Service", f"{RELEASE}-minio")

    assert store is not None
    assert store.endpoint == f"http://{service['metadata']['name']}.{NAMESPACE}:9000"
    assert store.bucket == "datasets"
    secrets = of_kind(manifests, "Secret")
    assert {secret["metadata"]["namespace"] for secret in secrets} == {NAMESPACE, "vision", "audio"}
    assert store.secret_ref is not None
    assert {secret["metadata"]["name"] for secret in secrets} == {store.secret_ref.name}
    assert {tuple(secret["stringData"].items()) for secret in secrets} == {
        (("AWS_ACCESS_KEY_ID", "access"), ("AWS_SECRET_ACCESS_KEY", "secret-of-it"))
    }
    (container,) = one(manifests, "Deployment", f"{RELEASE}-minio")["spec"]["template"]["spec"]["containers"]
    references = {entry["valueFrom"]["secretKeyRef"]["name"] for entry in container["env"] if "valueFrom" in entry}
    assert references == {store.secret_ref.name}


def test_minios_keys_are_random_and_long() -> None:
    secrets = [
        one(render({"minio": {"enabled": True, "bucket": bucket}}), "Secret")["stringData"] for bucket in ("one", "two")
    ]

    assert len({secret["AWS_SECRET_ACCESS_KEY"] for secret in secrets}) == 2
    assert all(len(secret["AWS_SECRET_ACCESS_KEY"]) == 40 for secret in secrets)


def test_only_the_trial_minio_makes_a_secret() -> None:
    with_secrets = {variant for variant, values in VARIANTS.items() if of_kind(render(values), "Secret")}

    assert with_secrets == {"MinIO for trials", "MinIO with a volume"}


def test_settings_become_flags_and_integers_stay_integers() -> None:
    settings = settings_of(render(VARIANTS["pods placed and labeled"]), "drawers")

    assert (settings.job_ttl, settings.no_progress_after, settings.workers) == (1_000_000, 0.0, 4)
    assert (settings.log_level, settings.log_format) == ("DEBUG", "json")


def test_pod_templates_are_restricted_where_nobody_chose() -> None:
    assert settings_of(render()).pod_template_policy == "restricted"
    chosen = render({"settings": {"podTemplatePolicy": "any"}})
    assert settings_of(chosen).pod_template_policy == "any"


def test_certificates_and_images_reach_the_operator() -> None:
    assert settings_of(render(VARIANTS["certificates of its own"])).ca_config_map == "team-ca"
    settings = settings_of(render(VARIANTS["images by digest from a mirror"]))
    assert re.fullmatch(r"mirror\.example/diffugen/generator@sha256:[0-9a-f]{64}", settings.generator_image)
    assert re.fullmatch(r"mirror\.example/diffugen/generator-light@sha256:[0-9a-f]{64}", settings.light_image)


def test_the_crd_is_the_rendered_one_and_is_kept() -> None:
    crd, source = one(render(), "CustomResourceDefinition"), yaml.safe_load(CRD.read_text())

    assert crd["spec"] == source["spec"]
    assert crd["metadata"]["name"] == source["metadata"]["name"]
    assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert len(yaml.safe_dump(crd)) < 200_000
    assert "annotations" not in one(render({"crds": {"keep": False}}), "CustomResourceDefinition")["metadata"]
    assert not of_kind(render({"crds": {"enabled": False}}), "CustomResourceDefinition")


def test_one_replica_has_no_disruption_budget_that_would_block_drains() -> None:
    assert of_kind(render(), "PodDisruptionBudget")
    assert not of_kind(render(VARIANTS["one replica"]), "PodDisruptionBudget")


@pytest.mark.parametrize("variant", VARIANTS)
def test_everything_is_named_placed_and_labeled(variant: str) -> None:
    manifests = render(VARIANTS[variant])
    identities = [(m["kind"], m["metadata"].get("namespace"), m["metadata"]["name"]) for m in manifests]

    assert len(set(identities)) == len(identities)
    for manifest in manifests:
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == RELEASE
        assert labels["app.kubernetes.io/part-of"] == "diffugen"
        assert labels["app.kubernetes.io/version"] == META["appVersion"]
        assert all(0 < len(str(value)) <= 63 for value in labels.values())


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_pod_selector_matches_the_operators_pods(variant: str) -> None:
    manifests = render(VARIANTS[variant])
    name = one(manifests, "ServiceAccount")["metadata"]["name"] if of_kind(manifests, "ServiceAccount") else "given"
    (deployment,) = (m for m in of_kind(manifests, "Deployment") if not m["metadata"]["name"].endswith("-minio"))
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    service = one(manifests, "Service", deployment["metadata"]["name"])

    selectors: list[Any] = [deployment["spec"]["selector"]["matchLabels"], service["spec"]["selector"]]
    selectors += [budget["spec"]["selector"]["matchLabels"] for budget in of_kind(manifests, "PodDisruptionBudget")]
    assert all(selector.items() <= labels.items() for selector in selectors)
    assert deployment["spec"]["template"]["spec"]["serviceAccountName"] == name
    minio = [m for m in of_kind(manifests, "Deployment") if m is not deployment]
    assert not any(selectors[1].items() <= m["spec"]["template"]["metadata"]["labels"].items() for m in minio)


def test_artifact_hubs_annotations_name_what_the_chart_installs() -> None:
    annotations = {key.removeprefix("artifacthub.io/"): value for key, value in META["annotations"].items()}
    settings, (operator,) = (
        settings_of(render()),
        one(render(), "Deployment")["spec"]["template"]["spec"]["containers"],
    )

    images = {entry["name"]: entry["image"] for entry in yaml.safe_load(annotations["images"])}
    assert images == {
        "operator": operator["image"],
        "generator": settings.generator_image,
        "generator-light": settings.light_image,
    }
    (crd,) = yaml.safe_load(annotations["crds"])
    source = yaml.safe_load(CRD.read_text())
    assert (crd["name"], crd["kind"]) == (source["metadata"]["name"], source["spec"]["names"]["kind"])
    assert crd["version"] == source["spec"]["versions"][0]["name"]
    for example in yaml.safe_load(annotations["crdsExamples"]):
        LabeledDatasetSpec.model_validate(example["spec"])
    # A release writes its own version into the chart (charts/release.py).
    assert META["version"] == META["appVersion"]
    assert f"{META['version']}.dev0" == UNRELEASED
