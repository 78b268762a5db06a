"""Three planted faults: with each of them the end-to-end test must fail, else it would prove nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.images import VERSION, bring, buildah, built, derived
from tests.e2e.installation import CHART, SYSTEM, Installation, NotReadyError, small


@pytest.fixture
def empty(operator_only: Installation) -> Iterator[Installation]:
    """The installation without a release."""
    yield operator_only
    operator_only.uninstall()


def test_a_chart_whose_rights_lack_a_verb(empty: Installation, tmp_path: Path) -> None:
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart)
    rules = chart / "templates" / "_rules.tpl"
    before = rules.read_text()
    rules.write_text(_without_create(before))
    empty.add_namespace("no-verb")
    empty.install("no-verb", chart=chart)
    empty.cluster.apply(small("no-verb", "shapes"))

    with pytest.raises(NotReadyError):
        empty.wait_ready("no-verb", "shapes", within_s=30)

    assert "jobs.batch is forbidden" in empty.operator_log()


def _without_create(rules: str) -> str:
    """Take `create` from the rule on Jobs."""
    head, mark, tail = rules.partition("resources: [jobs]")
    assert mark, "the chart has no rule on jobs"
    assert "create" in tail
    return head + mark + tail.replace("create, ", "", 1)


def test_a_pod_that_breaks_the_restricted_standard(empty: Installation) -> None:
    empty.add_namespace("not-restricted")
    empty.install("not-restricted", podTemplatePolicy="any")
    as_root = {"spec": {"securityContext": {"runAsNonRoot": False, "runAsUser": 0}}}
    empty.cluster.apply(small("not-restricted", "shapes", run={"podTemplate": as_root}))

    with pytest.raises(NotReadyError, match='violates PodSecurity "restricted'):
        empty.wait_ready("not-restricted", "shapes", within_s=60)


def test_an_image_that_needs_a_writable_root(empty: Installation, tmp_path: Path) -> None:
    program = tmp_path / "diffugen-operator"
    program.write_text('#!/bin/sh\nmkdir /state && exec python -m diffugen_operator "$@"\n')
    program.chmod(0o755)
    name = "localhost/diffugen/operator-with-state:e2e"
    with derived(built("operator"), name) as container:
        buildah("copy", container, str(program), "/opt/diffugen/app/bin/diffugen-operator")
    try:
        bring(empty.cluster, name, f"docker.io/diffugen/operator-with-state:{VERSION}")
    finally:
        buildah("rmi", name)
    empty.add_namespace("writable")

    with pytest.raises(NotReadyError):
        empty.install("writable", operator="diffugen/operator-with-state", wait="40s")

    log = empty.cluster.kubectl("logs", "-n", SYSTEM, "-l", "app.kubernetes.io/name=diffugen-operator", "--tail=5")
    assert "Read-only file system" in log
