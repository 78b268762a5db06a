"""Writes the configuration files of containerd, CNI, the kubelet, kube-proxy and CoreDNS."""

import json
from dataclasses import dataclass
from pathlib import Path

from devcluster.kubelet.cgroups import cgroup_of
from devcluster.kubelet.network import NodeNetwork
from devcluster.kubelet.requirements import CNI_PLUGINS

PAUSE_IMAGE = "devcluster/pause:1"


@dataclass(frozen=True)
class NodeFiles:
    """The paths of the node's files."""

    path: Path

    @property
    def socket(self) -> Path:
        """Containerd's socket."""
        return self.path / "containerd.sock"

    @property
    def containerd(self) -> Path:
        """Containerd's configuration."""
        return self.path / "containerd.toml"

    @property
    def kubelet(self) -> Path:
        """The kubelet's configuration."""
        return self.path / "kubelet.json"

    @property
    def proxy(self) -> Path:
        """kube-proxy's configuration."""
        return self.path / "kube-proxy.json"

    @property
    def corefile(self) -> Path:
        """CoreDNS's configuration."""
        return self.path / "Corefile"


def write_configuration(files: NodeFiles, *, name: str, network: NodeNetwork, kubeconfig: Path) -> None:
    """Write all configuration files."""
    cni = files.path / "cni"
    cni.mkdir(parents=True)
    (cni / "10-bridge.conflist").write_text(json.dumps(_cni(network)))
    files.containerd.write_text(_containerd(files, cni))
    files.kubelet.write_text(json.dumps(_kubelet(files, network)))
    files.proxy.write_text(json.dumps(_proxy(name, network, kubeconfig)))
    files.corefile.write_text(_corefile(network, kubeconfig))


def _cni(network: NodeNetwork) -> dict[str, object]:
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "hairpinMode": True,
        "ipMasq": False,  # the machine has a route to the pods
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": network.pods}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": "/run/cni-addresses",
        },
    }
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, {"type": "loopback"}]}


def _containerd(files: NodeFiles, cni: Path) -> str:
    # Snapshots are in the cluster's folder. Sockets and the state of shims are where the end of the namespace removes
    # them.
    return f"""\
version = 3
root = "{files.path / "containerd"}"
state = "/run/containerd-state"

[grpc]
  address = "{files.socket}"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "docker.io/{PAUSE_IMAGE}"

[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{CNI_PLUGINS}"]
    conf_dir = "{cni}"
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"""


def _kubelet(files: NodeFiles, network: NodeNetwork) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": network.node,
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},  # only this machine has a route to it
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup_of(network.subnet)}",
        "cgroupsPerQOS": False,
        "clusterDNS": [network.node],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": f"unix://{files.socket}",
        "enforceNodeAllocatable": [],
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "failCgroupV1": False,
        "failSwapOn": False,
        "featureGates": {},
        "imageGCHighThresholdPercent": 100,  # removed images could not be pulled again: there is no registry
        "imageGCLowThresholdPercent": 99,
        "localStorageCapacityIsolation": False,
        "oomScoreAdj": 0,
        "podLogsDir": str(files.path / "pod-logs"),
        "registerNode": True,
        "resolvConf": "",
        "syncFrequency": "10s",
    }


def _proxy(name: str, network: NodeNetwork, kubeconfig: Path) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "bindAddress": network.node,
        "hostnameOverride": name,
        "clusterCIDR": network.pods,
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        # The bridge forwards answers between pods without iptables (br_netfilter may be missing), so answers must go
        # through the node.
        "iptables": {"masqueradeAll": True, "minSyncPeriod": "0s", "syncPeriod": "10s"},
    }


def _corefile(network: NodeNetwork, kubeconfig: Path) -> str:
    return f"""\
.:53 {{
  bind {network.node}
  errors
  kubernetes cluster.local in-addr.arpa ip6.arpa {{
    kubeconfig {kubeconfig}
  }}
  cache 5
}}
"""
