"""The parts of a node of kind kubelet that need no root; the node itself is in tests/e2e."""

import hashlib
import json
import tarfile
from pathlib import Path

import pytest

from devcluster.cluster import Cluster, ClusterError
from devcluster.kubelet import network, requirements
from devcluster.kubelet.archives import write_image
from devcluster.kubelet.cgroups import cgroup_of
from devcluster.kubelet.configuration import NodeFiles, write_configuration
from devcluster.kubelet.network import NodeNetwork, choose_network


def test_a_name_always_gets_the_same_network_and_it_overlaps_no_route(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_routed", list)
    chosen = choose_network("a")
    assert choose_network("a") == chosen

    monkeypatch.setattr(network, "_routed", lambda: [f"{chosen.subnet}.0/30", "172.16.0.0/12"])
    other = choose_network("a")
    assert other.subnet != chosen.subnet

    monkeypatch.setattr(network, "_routed", lambda: ["10.0.0.0/8"])
    with pytest.raises(OSError, match="no free network"):
        choose_network("a")


def test_the_pods_are_in_the_second_half_of_the_nodes_network() -> None:
    of_a_node = NodeNetwork("10.200.7")

    assert (of_a_node.machine, of_a_node.node, of_a_node.pods) == ("10.200.7.1", "10.200.7.2", "10.200.7.128/25")
    assert len(cgroup_of("10.200.7").split("/")) == 1


def test_an_image_of_one_program(tmp_path: Path) -> None:
    program = tmp_path / "pause"
    program.write_bytes(b"a program")
    for name in ("one.tar", "two.tar"):
        write_image(tmp_path / name, reference="docker.io/a/b:1", files={"/pause": program}, entrypoint=["/pause"])
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()

    with tarfile.open(tmp_path / "one.tar") as archive:
        [manifest] = json.loads(_read(archive, "manifest.json"))
        config = json.loads(_read(archive, manifest["Config"]))
        [layer] = manifest["Layers"]
        content = _read(archive, layer)
    assert manifest["RepoTags"] == ["docker.io/a/b:1"]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(content).hexdigest()}"]
    assert config["config"] == {"Entrypoint": ["/pause"], "User": "65532:65532"}
    (tmp_path / "layer.tar").write_bytes(content)
    with tarfile.open(tmp_path / "layer.tar") as files:
        assert [(entry.name, entry.mode, entry.size) for entry in files] == [("pause", 0o755, len(b"a program"))]


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None
    return file.read()


def test_a_missing_program_is_named_by_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert requirements.missing_for_a_node() == "a node of kind kubelet needs root"

    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda program: None if program == "conntrack" else program)
    monkeypatch.setattr(requirements, "CNI_PLUGINS", tmp_path)
    assert requirements.missing_for_a_node().endswith("apt-get install conntrack containernetworking-plugins")

    (tmp_path / "bridge").touch()
    monkeypatch.setattr("shutil.which", lambda program: program)
    assert requirements.missing_for_a_node() == ""


def test_one_node_of_this_kind_makes_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devcluster.launching.missing_for_a_node", lambda: "")

    with pytest.raises(ClusterError, match="one node of kind kubelet, not 2"):
        Cluster.start(node_kind="kubelet", nodes=2)


def test_the_configuration_names_only_its_own_files_and_addresses(tmp_path: Path) -> None:
    files = NodeFiles(tmp_path / "node-0")
    write_configuration(files, name="node-0", network=NodeNetwork("10.200.7"), kubeconfig=tmp_path / "node.kubeconfig")

    kubelet = json.loads(files.kubelet.read_text())
    assert kubelet["clusterDNS"] == [kubelet["address"]] == ["10.200.7.2"]
    assert kubelet["containerRuntimeEndpoint"] == f"unix://{files.socket}"
    assert kubelet["cgroupRoot"] == f"/{cgroup_of('10.200.7')}"
    assert json.loads(files.proxy.read_text())["clusterCIDR"] == "10.200.7.128/25"
    assert "bind 10.200.7.2" in files.corefile.read_text()
    assert str(files.path) in files.containerd.read_text()
