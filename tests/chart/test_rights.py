"""Rights: exactly those of the files in operator/. tests/cluster checks that they suffice and that none is unused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from tests.chart.helm import NAMESPACE, RELEASE, ROOT, VARIANTS, Json, of_kind, one, render

ROLES = ("Role", "ClusterRole")


def shipped(file: str, kind: str, name: str) -> list[Json]:
    rules: list[Json] = one(yaml.safe_load_all((ROOT / "operator" / file).read_text()), kind, name)["rules"]
    return rules


def test_in_single_namespaces_the_rules_are_the_shipped_ones() -> None:
    roles = {
        (role["metadata"]["namespace"], role["metadata"]["name"]): role["rules"]
        for role in of_kind(render({"namespaces": ["vision", "audio"]}), "Role")
    }
    rules = shipped("rbac-namespaced.yaml", "Role", "diffugen-operator")

    assert roles == {
        ("vision", RELEASE): rules,
        ("audio", RELEASE): rules,
        (NAMESPACE, f"{RELEASE}-leader"): shipped("rbac-namespaced.yaml", "Role", "diffugen-operator-leader"),
    }


def test_cluster_wide_the_rules_are_the_shipped_ones() -> None:
    manifests = render({"clusterWide": True})

    assert one(manifests, "ClusterRole", RELEASE)["rules"] == shipped("rbac.yaml", "ClusterRole", "diffugen-operator")
    assert one(manifests, "Role")["rules"] == shipped("rbac.yaml", "Role", "diffugen-operator")


@pytest.mark.parametrize(
    ("wide", "kind", "file"),
    [(True, "ClusterRole", "rbac-kueue.yaml"), (False, "Role", "rbac-kueue-namespaced.yaml")],
)
def test_kueues_rule_is_the_shipped_one(wide: bool, kind: str, file: str) -> None:
    without, with_it = (
        one(render({"clusterWide": wide, "rbac": {"kueue": on}}), kind, RELEASE) for on in (False, True)
    )

    extra = [rule for rule in with_it["rules"] if rule not in without["rules"]]
    assert extra == shipped(file, kind, "diffugen-operator-kueue")
    assert extra == [{"apiGroups": ["kueue.x-k8s.io"], "resources": ["workloads"], "verbs": ["list", "watch"]}]


def test_a_namespaced_installation_gives_the_operator_no_cluster_wide_right() -> None:
    manifests = render()
    bound = {
        (b["roleRef"]["kind"], b["roleRef"]["name"]) for b in of_kind(manifests, "RoleBinding", "ClusterRoleBinding")
    }

    assert {kind for kind, _ in bound} == {"Role"}
    assert not of_kind(manifests, "ClusterRoleBinding")
    for file in ("rbac-namespaced.yaml", "rbac-kueue-namespaced.yaml"):
        objects = yaml.safe_load_all((ROOT / "operator" / file).read_text())
        assert {each["kind"] for each in objects} == {"Role", "RoleBinding"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_role_reads_secrets_or_has_wildcards(variant: str) -> None:
    for rule in rules_of(render(VARIANTS[variant])):
        assert "secrets" not in rule["resources"]
        assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]]
        assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_binding_binds_the_operators_account_to_an_existing_role(variant: str) -> None:
    manifests = render(VARIANTS[variant])
    accounts = of_kind(manifests, "ServiceAccount")
    roles = {(r["kind"], r["metadata"].get("namespace"), r["metadata"]["name"]) for r in of_kind(manifests, *ROLES)}

    for binding in of_kind(manifests, "RoleBinding", "ClusterRoleBinding"):
        reference, (subject,) = binding["roleRef"], binding["subjects"]
        where = binding["metadata"].get("namespace") if reference["kind"] == "Role" else None
        assert (reference["kind"], where, reference["name"]) in roles
        assert (subject["kind"], subject["namespace"]) == ("ServiceAccount", NAMESPACE)
        assert [subject["name"]] == [account["metadata"]["name"] for account in accounts]


def test_users_with_the_built_in_roles_can_use_datasets() -> None:
    viewer, editor = (one(render(), "ClusterRole", f"{RELEASE}-{who}") for who in ("viewer", "editor"))

    def joins(role: Json) -> set[str]:
        prefix = "rbac.authorization.k8s.io/aggregate-to-"
        return {label.removeprefix(prefix) for label in role["metadata"]["labels"] if label.startswith(prefix)}

    assert joins(viewer) == {"view", "edit", "admin"}
    assert joins(editor) == {"edit", "admin"}
    assert {verb for rule in viewer["rules"] for verb in rule["verbs"]} == {"get", "list", "watch"}
    assert {resource for rule in editor["rules"] for resource in rule["resources"]} == {"labeleddatasets"}


def rules_of(manifests: list[Json]) -> Iterator[Json]:
    for role in of_kind(manifests, *ROLES):
        yield from role["rules"]
