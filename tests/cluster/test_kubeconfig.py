"""The operator works as the user of exactly the kubeconfig that it is given, here by an exec plugin."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.operator_process import OperatorProcess
from tests.cluster.world import World

API_VERSION = "client.authentication.k8s.io/v1"


@pytest.fixture
def operated(world: World) -> Iterator[World]:
    """The world; its operator and namespace are deleted in the end."""
    yield world
    world.operator.end()
    world.kubectl("delete", "namespace", world.namespace, "--wait=false")


def by_plugin(world: World, folder: Path) -> Path:
    """Write a kubeconfig whose user is an exec plugin that prints the operator's token."""
    config: dict[str, Any] = yaml.safe_load(world.cluster.operator_kubeconfig.read_text())
    (user,) = config["users"]
    credential = {"apiVersion": API_VERSION, "kind": "ExecCredential", "status": {"token": user["user"]["token"]}}
    plugin = folder / "bin" / "plugin"
    plugin.parent.mkdir()
    plugin.write_text(f"#!/bin/sh\necho ran >> {folder}/runs\ncat <<'EOF'\n{json.dumps(credential)}\nEOF\n")
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    user["user"] = {"exec": {"command": "./bin/plugin", "apiVersion": API_VERSION, "interactiveMode": "Never"}}
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return file


def test_only_the_exec_plugin_of_the_named_file_is_used(operated: World, tmp_path: Path) -> None:
    world = operated
    world.operator = OperatorProcess(
        kubeconfig=by_plugin(world, tmp_path),
        namespace=world.namespace,
        log=world.operator.log,
        environment={"KUBECONFIG": str(world.cluster.kubeconfig)},  # an administrator's
    )
    world.operator.start()
    world.apply(suspend=True)
    world.wait("suspended", lambda dataset: world.condition("Suspended", dataset)["status"] == "True")

    writers = {
        event["user"]["username"]
        for event in world.cluster.audit_events()
        if event["userAgent"].startswith("diffugen-operator/")
        and event["objectRef"].get("namespace") == world.namespace
    }
    assert writers == {"operator"}
    assert (tmp_path / "runs").read_text().split() == ["ran"]
