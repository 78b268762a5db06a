"""The fork server of a node: a fork of it is a process like any other, but with its modules imported."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from devcluster import kernel
from devcluster.node.containers import Launch
from devcluster.node.fork_server import ForkServer, Preloaded, start_container

PROGRAM = """
import json, os, sys, time
loaded = "xml.dom.minidom" in sys.modules
print(json.dumps({
    "argv": sys.argv, "cwd": os.getcwd(), "env": dict(os.environ), "loaded": loaded, "name": __name__,
    "session": os.getsid(0) == os.getpid(), "parent": os.getppid(),
}), flush=True)
if sys.argv[1] == "wait":
    time.sleep(60)
sys.exit(int(sys.argv[2]))
"""


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "probe").write_text(f"#!{sys.executable}\n{PROGRAM}")
    (folder / "probe").chmod(0o755)
    return folder


@asynccontextmanager
async def serving(
    scripts: Path, tmp_path: Path, *, modules: tuple[str, ...] = ("xml.dom.minidom",)
) -> AsyncIterator[tuple[ForkServer, Callable[..., Launch]]]:
    """Start a server, and give a function that makes launches for it."""
    base = {"PATH": f"{scripts}:{os.defpath}", "OMP_NUM_THREADS": "1"}
    program = Preloaded("probe", (("probe", "end"), ("probe", "wait")), modules)

    def launch(*words: str, **environment: str) -> Launch:
        return Launch(["probe", *words], {**base, **environment}, tmp_path)

    server = ForkServer(program, base, tmp_path / "server.log", scripts=scripts)
    yield server, launch
    if server._requests is not None:
        server._requests.close()
    if server._server is not None:
        await server._server.wait()


@pytest.fixture(autouse=True)
def _adopting() -> None:
    kernel.become_subreaper()  # as the node agent is


def test_a_fork_has_its_own_arguments_environment_folder_and_session(scripts: Path, tmp_path: Path) -> None:
    async def run() -> int:
        async with serving(scripts, tmp_path) as (server, launch):
            child = await server.start(launch("end", "3", COLOR="red"), tmp_path / "log")
            return await child.wait()

    assert asyncio.run(run()) == 3
    seen = json.loads((tmp_path / "log").read_text())
    assert seen["argv"] == [str(scripts / "probe"), "end", "3"]
    assert seen["env"] == {"PATH": f"{scripts}:{os.defpath}", "OMP_NUM_THREADS": "1", "COLOR": "red"}
    assert seen["cwd"] == str(tmp_path)
    assert seen["loaded"]
    assert seen["session"]
    assert seen["name"] == "__main__"
    assert seen["parent"] == os.getpid()


def test_many_at_once_and_a_signal_ends_one(scripts: Path, tmp_path: Path) -> None:
    async def run() -> list[int]:
        async with serving(scripts, tmp_path) as (server, launch):
            launches = [launch("end", str(number)) for number in range(8)]
            children = await asyncio.gather(
                *(server.start(each, tmp_path / f"log-{number}") for number, each in enumerate(launches))
            )
            waiting = await server.start(launch("wait", "0"), tmp_path / "waiting")
            os.kill(waiting.pid, signal.SIGTERM)
            return [await each.wait() for each in (*children, waiting)]

    assert asyncio.run(run()) == [*range(8), -signal.SIGTERM]


def test_a_canceled_start_leaves_no_process(scripts: Path, tmp_path: Path) -> None:
    async def run() -> int:
        async with serving(scripts, tmp_path) as (server, launch):
            await (await server.start(launch("end", "0"), tmp_path / "first")).wait()
            before = kernel.children()
            canceled = asyncio.create_task(server.start(launch("wait", "0"), tmp_path / "canceled"))
            await asyncio.sleep(0)  # the request is under way
            canceled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await canceled
            child = await server.start(launch("end", "5"), tmp_path / "log")
            code = await child.wait()
            async with asyncio.timeout(10):
                while kernel.children() != before:  # noqa: ASYNC110 - the killed process is reaped by the loop
                    await asyncio.sleep(0.02)
            return code

    assert asyncio.run(run()) == 5
    assert json.loads((tmp_path / "log").read_text())["argv"][1:] == ["end", "5"]


def test_without_a_server_a_container_is_started_in_the_usual_way(scripts: Path, tmp_path: Path) -> None:
    async def run() -> list[int]:
        async with serving(scripts, tmp_path, modules=("no_such_module",)) as (server, launch):
            with pytest.raises(OSError, match="the fork server has ended|reset|Broken pipe"):
                await server.start(launch("end", "1"), tmp_path / "first")
            children = [
                await start_container([server], launch("end", str(number)), tmp_path / f"log-{number}")
                for number in (3, 4)
            ]
            return [await child.wait() for child in children]

    assert asyncio.run(run()) == [3, 4]
    assert not json.loads((tmp_path / "log-3").read_text())["loaded"]
    assert "no_such_module" in (tmp_path / "server.log").read_text()


def test_a_server_that_ended_is_started_again_and_its_socket_is_closed(scripts: Path, tmp_path: Path) -> None:
    async def run() -> int:
        async with serving(scripts, tmp_path) as (server, launch):
            await (await server.start(launch("end", "0"), tmp_path / "first")).wait()
            former, ended = server._requests, server._server
            assert former is not None
            assert ended is not None
            await ended.kill()
            child = await start_container([server], launch("end", "3"), tmp_path / "log")
            assert former.is_closing()
            return await child.wait()

    assert asyncio.run(run()) == 3
    assert json.loads((tmp_path / "log").read_text())["loaded"]


def test_forks_end_with_the_agent(scripts: Path, tmp_path: Path) -> None:
    agent = os.fork()
    if agent == 0:
        kernel.become_subreaper()

        async def run() -> None:
            async with serving(scripts, tmp_path) as (server, launch):
                child = await server.start(launch("wait", "0"), tmp_path / "log")
                (tmp_path / "pid").write_text(str(child.pid))
                await asyncio.sleep(60)

        asyncio.run(run())
        os._exit(1)
    deadline = time.monotonic() + 60
    while not ((tmp_path / "pid").exists() and (tmp_path / "log").exists() and (tmp_path / "log").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    pid = int((tmp_path / "pid").read_text())

    os.kill(agent, signal.SIGKILL)
    os.waitpid(agent, 0)

    _, status = os.waitpid(pid, 0)  # adopted by this process, a subreaper, as a cluster's supervisor would
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def test_what_differs_when_it_is_imported_is_started_in_the_usual_way(scripts: Path, tmp_path: Path) -> None:
    async def run() -> list[bool]:
        async with serving(scripts, tmp_path) as (server, launch):
            other = Launch(["other"], launch().environment, tmp_path)
            elsewhere = Launch(["probe", "end"], {**launch().environment, "PATH": os.defpath}, tmp_path)
            same = [launch("end"), launch("wait", "0", COLOR="red")]
            differ = [launch("stop"), launch("end", HF_ENDPOINT="x"), launch("end", OMP_NUM_THREADS="2")]
            return [server.fits(each) for each in (*same, *differ, other, elsewhere)]

    assert asyncio.run(run()) == [True, True, False, False, False, False, False]
