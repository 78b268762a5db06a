"""`python -m devcluster.kubelet DIRECTORY NAME`, in its own namespaces: starts a node and runs it.

Order matters. The veth pair exists before the API server starts, because the server listens at its end of the pair.
containerd has the pause image before the kubelet starts a pod. When one of the node's processes ends, the node ends.
"""

import asyncio
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path

from devcluster import kernel
from devcluster.children import Child, end_all_children
from devcluster.kubeapi import UNREACHABLE, ApiError, KubeApi
from devcluster.kubelet.archives import write_image
from devcluster.kubelet.configuration import PAUSE_IMAGE, NodeFiles, write_configuration
from devcluster.kubelet.network import NodeNetwork, connect, hide_the_machines_state
from devcluster.layout import ClusterSpec, StateDirectory

log = logging.getLogger(__name__)

_POLL_S = 0.2


class Node:
    """One node's processes."""

    def __init__(self, directory: StateDirectory, name: str) -> None:
        self._directory = directory
        self._name = name
        self._spec: ClusterSpec = directory.read_spec()
        self._network = NodeNetwork(self._spec.subnet)
        self._files = NodeFiles(directory.path / name)
        self._kubeconfig = directory.kubeconfig_of("node")
        self._children: dict[str, Child] = {}

    async def run(self) -> None:
        """Start all processes, report that the node is ready, and return when one of them has ended."""
        write_configuration(self._files, name=self._name, network=self._network, kubeconfig=self._kubeconfig)
        self._directory.network_ready.write_text(self._network.subnet)
        self._start("containerd", "--config", str(self._files.containerd))
        await self._until_containerd_answers()
        await self._import_pause()
        await self._until_api_answers()
        for program, arguments in (
            ("coredns", ["-conf", str(self._files.corefile)]),
            ("kube-proxy", [f"--config={self._files.proxy}"]),
            ("kubelet", self._kubelet_flags()),
        ):
            self._start(program, *arguments)
        async with KubeApi.from_kubeconfig(self._kubeconfig) as api:
            await self._until_ready(api)
            await self._pretend_gpus(api)
        self._directory.node_ready(self._name).write_text(self._name)
        await asyncio.wait(
            [asyncio.create_task(child.wait()) for child in self._children.values()],
            return_when=asyncio.FIRST_COMPLETED,
        )
        ended = [program for program, child in self._children.items() if not child.running]
        log.error("%s ended; see its log", ", ".join(ended))

    def _kubelet_flags(self) -> list[str]:
        return [
            f"--config={self._files.kubelet}",
            f"--kubeconfig={self._kubeconfig}",
            f"--hostname-override={self._name}",
            f"--node-ip={self._network.node}",
            f"--root-dir={self._files.path / 'kubelet'}",
            f"--cert-dir={self._files.path / 'pki'}",
        ]

    def _start(self, program: str, *arguments: str) -> None:
        shims = Path(self._spec.binaries["containerd"]).parent
        self._children[program] = Child.start(
            [self._spec.binaries[program], *arguments],
            environment={**os.environ, "PATH": f"{shims}:{os.environ['PATH']}"},
            log=self._directory.log_of(f"{self._name}-{program}"),
            working_directory=self._files.path,
        )

    async def _until_containerd_answers(self) -> None:
        while await self._ctr("version") != 0:  # noqa: ASYNC110  (a socket sends no event)
            await asyncio.sleep(_POLL_S)

    async def _import_pause(self) -> None:
        archive = self._files.path / "pause.tar"
        write_image(
            archive,
            reference=f"docker.io/{PAUSE_IMAGE}",
            files={"/pause": Path(self._spec.binaries["pause"])},
            entrypoint=["/pause"],
        )
        if await self._ctr("--namespace=k8s.io", "images", "import", str(archive)) != 0:
            raise RuntimeError("containerd does not take the pause image")

    async def _ctr(self, *arguments: str) -> int:
        child = Child.start(
            [self._spec.binaries["ctr"], f"--address={self._files.socket}", *arguments],
            environment=os.environ,
            log=self._directory.log_of(f"{self._name}-ctr"),
            working_directory=self._files.path,
        )
        return await child.wait()

    async def _until_api_answers(self) -> None:
        certificate = self._directory.certificates / "apiserver.crt"
        while not (certificate.exists() and certificate.stat().st_size):  # noqa: ASYNC110  (nor does a file)
            await asyncio.sleep(_POLL_S)
        async with KubeApi.from_kubeconfig(self._kubeconfig) as api:
            while True:
                with suppress(ApiError, *UNREACHABLE):
                    await api.text("/readyz")
                    return
                await asyncio.sleep(_POLL_S)

    async def _until_ready(self, api: KubeApi) -> None:
        while True:
            with suppress(ApiError, *UNREACHABLE):
                node = await api.get(f"/api/v1/nodes/{self._name}")
                conditions = {each["type"]: each["status"] for each in node["status"].get("conditions", [])}
                if conditions.get("Ready") == "True":
                    return
            await asyncio.sleep(_POLL_S)

    async def _pretend_gpus(self, api: KubeApi) -> None:
        """Report GPUs without a device plugin or a device: the scheduler counts what a node reports."""
        # A kubelet that cannot measure its disk (localStorageCapacityIsolation) does not report the disk.
        gpus = {"nvidia.com/gpu": str(self._spec.gpus), "ephemeral-storage": "1Ti"}
        await api.patch(f"/api/v1/nodes/{self._name}/status", {"status": {"capacity": gpus, "allocatable": gpus}})


def main() -> None:
    """Connect the network, then run; all started processes end with this one."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    directory, name = StateDirectory(Path(sys.argv[1])), sys.argv[2]
    kernel.become_subreaper()
    connect(NodeNetwork(directory.read_spec().subnet), os.getppid())
    hide_the_machines_state()
    try:
        asyncio.run(Node(directory, name).run())
    finally:
        end_all_children()
    sys.exit(1)


if __name__ == "__main__":
    main()
