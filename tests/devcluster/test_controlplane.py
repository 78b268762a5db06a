"""The environment of the processes of a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from devcluster.binaries import cache_directory
from devcluster.controlplane import GOGC, MinioKeys, Ports, ProcessSpec, process_specs
from devcluster.layout import ClusterSpec, StateDirectory

PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "minio")


def specs(folder: Path) -> dict[str, ProcessSpec]:
    spec = ClusterSpec(name="test", binaries={name: str(cache_directory() / name) for name in PROGRAMS})
    ports = Ports(etcd=1, etcd_peer=2, apiserver=3, minio=4)
    return {each.name: each for each in process_specs(spec, StateDirectory(folder), ports, MinioKeys.random())}


@pytest.mark.parametrize(("given", "used"), [(None, GOGC), ("50", "50")])
def test_the_control_plane_collects_its_garbage_seldom_unless_the_user_says_how_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None, used: str
) -> None:
    monkeypatch.delenv("GOGC", raising=False)
    if given:
        monkeypatch.setenv("GOGC", given)

    found = {name: each.environment.get("GOGC") for name, each in specs(tmp_path).items()}

    of_go = ["etcd", "apiserver", "controller-manager", "scheduler", "minio"]
    assert found == {**dict.fromkeys(of_go, used), "node-0": None}
    assert "MINIO_ROOT_USER" in specs(tmp_path)["minio"].environment
