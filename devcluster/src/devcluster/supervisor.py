"""The supervisor: the process that starts, watches and ends a cluster's processes.

It is a child of the guard. It ends the cluster on request (control socket, SIGTERM) or when the owner has ended. The
guard then makes sure that nothing is left. The supervisor writes its progress to standard output, one JSON line for
each step, until the line `ready` or `failed`. After that line nobody reads its output.
"""

import asyncio
import json
import logging
import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import aiohttp

from devcluster import control, kernel
from devcluster.children import Child, end_all_children
from devcluster.controlplane import MinioKeys, Ports, ProcessSpec, process_specs
from devcluster.credentials import write_kubeconfigs, write_tokens
from devcluster.guard import bury
from devcluster.kubeapi import UNREACHABLE, ApiError, KubeApi
from devcluster.kubelet.network import NodeNetwork
from devcluster.layout import ClusterSpec, Description, StateDirectory
from devcluster.ports import free_ports

log = logging.getLogger(__name__)

_READY_WITHIN_S = 120.0
_ATTEMPTS = 3
_POLL_S = 0.05


class StartError(RuntimeError):
    """A process of the cluster ended, or was not ready in time; the message has the end of its log."""


class PortTakenError(StartError):
    """Another process took a port first."""


class Supervisor:
    """One cluster's processes."""

    def __init__(self, directory: StateDirectory) -> None:
        self._directory = directory
        self._spec: ClusterSpec = directory.read_spec()
        self._specs: dict[str, ProcessSpec] = {}
        self._children: dict[str, Child] = {}
        self._up: dict[str, asyncio.Event] = {}
        self._keys = MinioKeys.random()
        self._watches: set[asyncio.Task[None]] = set()
        self._down = asyncio.Event()

    async def run(self) -> None:
        """Start the cluster and serve requests until one asks for its end."""
        began = time.monotonic()
        loop = asyncio.get_running_loop()
        for ending in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(ending, self._down.set)
        if self._spec.owner_pid is not None:
            self._watch_owner(self._spec.owner_pid)
        starting = asyncio.create_task(self._start())
        stopped = asyncio.create_task(self._down.wait())
        await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
        if self._down.is_set():
            starting.cancel()
            return
        ports = await starting
        with control.short_path(self._directory.control) as path:
            server = await asyncio.start_unix_server(self._serve, path)
        self._directory.write_description(self._describe(ports, time.monotonic() - began))
        _report("ready")
        async with server:
            await stopped

    async def _start(self) -> Ports:
        for attempt in range(1, _ATTEMPTS + 1):
            ports = self._prepare()
            try:
                await asyncio.wait_for(self._start_all(), _READY_WITHIN_S)
            except PortTakenError as error:
                log.warning("attempt %s: %s", attempt, error)
                await asyncio.gather(*(child.kill() for child in self._children.values()))
                continue
            except TimeoutError:
                raise StartError(f"not ready within {_READY_WITHIN_S:.0f} s\n{self._tails()}") from None
            return ports
        raise StartError(f"lost the race for a port {_ATTEMPTS} times")

    def _prepare(self) -> Ports:
        self._children.clear()
        shutil.rmtree(self._directory.data)
        self._directory.data.mkdir()
        numbers = free_ports(4)
        ports = Ports(
            etcd=numbers[0],
            etcd_peer=numbers[1],
            apiserver=numbers[2],
            minio=numbers[3],
            address=NodeNetwork(self._spec.subnet).machine if self._spec.subnet else "127.0.0.1",
        )
        self._directory.network_ready.unlink(missing_ok=True)
        tokens = write_tokens(self._directory.path / "tokens.csv")
        write_kubeconfigs(self._directory, server=ports.server, tokens=tokens)
        specs = process_specs(self._spec, self._directory, ports, self._keys)
        self._specs = {spec.name: spec for spec in specs}
        self._up = {spec.name: asyncio.Event() for spec in specs}
        return ports

    async def _start_all(self) -> None:
        failing = asyncio.create_task(self._fail_when_one_ends())
        starting = asyncio.create_task(self._start_every())
        try:
            ended, _ = await asyncio.wait([failing, starting], return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                await task
        finally:
            failing.cancel()
            starting.cancel()

    async def _start_every(self) -> None:
        await asyncio.gather(*map(self._start_one, self._specs))
        await self._until_usable()

    async def _start_one(self, name: str) -> None:
        spec = self._specs[name]
        if spec.needs is not None:
            await _until_written(spec.needs)
        if spec.after is not None:
            await self._up[spec.after].wait()
        if spec.ready is not None:
            spec.ready.unlink(missing_ok=True)
        child = self._children[name] = Child.start(
            spec.command,
            environment={**os.environ, **spec.environment},
            log=self._directory.log_of(name),
            working_directory=self._directory.path,
        )
        self._watches.add(asyncio.create_task(self._clean_up_after(child)))
        await self._until_up(name)
        self._up[name].set()
        log.info("%s is up", name)

    async def _clean_up_after(self, child: Child) -> None:
        """Kill the orphaned descendants of a child that has ended; they are children of this process now."""
        await child.wait()
        end_all_children(spare=frozenset(other.pid for other in self._children.values() if other.running))

    async def _until_up(self, name: str) -> None:
        spec = self._specs[name]
        if name == "apiserver":
            await self._until_apiserver_ready()
        elif spec.ready is not None:
            await _until_written(spec.ready)
        elif spec.health is not None:
            await _until_healthy(spec.health)

    async def _until_apiserver_ready(self) -> None:
        await _until_written(self._directory.certificates / "apiserver.key")
        async with KubeApi.from_kubeconfig(self._directory.kubeconfig) as api:
            while True:
                with suppress(ApiError, *UNREACHABLE):
                    await api.text("/readyz")
                    return
                await asyncio.sleep(_POLL_S)

    async def _until_usable(self) -> None:
        """Wait until a pod can be created (its namespace has a service account) and scheduled (the node is Ready)."""
        paths = ["/api/v1/namespaces/default/serviceaccounts/default"]
        async with KubeApi.from_kubeconfig(self._directory.kubeconfig) as api:
            while paths:
                with suppress(ApiError, *UNREACHABLE):
                    await api.get(paths[0])
                    paths.pop(0)
                    continue
                await asyncio.sleep(_POLL_S)

    async def _fail_when_one_ends(self) -> None:
        while True:
            for name, child in self._children.items():
                if not child.running:
                    tail = self._tail(name)
                    kind = PortTakenError if "address already in use" in tail else StartError
                    raise kind(f"{name} ended with {await child.wait()}\n{tail}")
            await asyncio.sleep(_POLL_S)

    def _describe(self, ports: Ports, ready_after_s: float) -> Description:
        return Description(
            name=self._spec.name,
            supervisor_pid=os.getpid(),
            owner_pid=self._spec.owner_pid,
            server=ports.server,
            minio_endpoint=ports.minio_endpoint,
            minio_access_key=self._keys.access_key,
            minio_secret_key=self._keys.secret_key,
            nodes=self._spec.nodes,
            gpus=self._spec.gpus,
            ready_after_s=round(ready_after_s, 2),
        )

    def _watch_owner(self, pid: int) -> None:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._down.set()
            return
        asyncio.get_running_loop().add_reader(pidfd, self._down.set)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = json.loads(await reader.readline())
        try:
            answer = {"ok": await self._answer(request["verb"], request["process"])}
        except (KeyError, ValueError, OSError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        writer.write(json.dumps(answer).encode() + b"\n")
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()

    async def _answer(self, verb: str, name: str | None) -> object:
        log.info("asked to %s %s", verb, name or "")
        if verb == "down":
            self._down.set()
            return None
        if verb == "pids":
            return {name: child.pid if child.running else None for name, child in self._children.items()}
        child = self._children[name or ""]
        match verb:
            case "kill":
                await child.kill()
                await self._clean_up_after(child)
            case "start":
                if not child.running:
                    await self._start_one(name or "")
            case "pause":
                os.kill(child.pid, signal.SIGSTOP)
            case "resume":
                os.kill(child.pid, signal.SIGCONT)
            case _:
                raise ValueError(f"no such verb: {verb}")
        return None

    def _tails(self) -> str:
        return "\n".join(f"--- {name}\n{self._tail(name)}" for name in self._specs)

    def _tail(self, name: str, lines: int = 15) -> str:
        path = self._directory.log_of(name)
        text = path.read_text(errors="replace") if path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


async def _until_written(file: Path) -> None:
    while not (file.exists() and file.stat().st_size):  # noqa: ASYNC110, ASYNC240  (a file sends no event)
        await asyncio.sleep(_POLL_S)


async def _until_healthy(address: str) -> None:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
        while True:
            with suppress(*UNREACHABLE):
                async with session.get(address) as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(_POLL_S)


def _report(state: str, text: str = "") -> None:
    sys.stdout.write(json.dumps({"state": state, "text": text}) + "\n")
    sys.stdout.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    """Run `python -m devcluster.supervisor DIRECTORY`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    directory = StateDirectory(Path(sys.argv[1]))
    kernel.become_subreaper()
    try:
        asyncio.run(_supervise(directory))
    except (StartError, OSError) as error:
        _report("failed", str(error))
    finally:
        bury(directory.path)


async def _supervise(directory: StateDirectory) -> None:
    await Supervisor(directory).run()


if __name__ == "__main__":
    main()
