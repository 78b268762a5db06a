"""VersityGW alone: an S3 store over a folder, without a cluster."""

import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devcluster.binaries import Tool, ensure_tool
from devcluster.building import ConsoleReporter
from devcluster.cluster import MinioAccess
from devcluster.ports import free_ports

_READY_WITHIN_S = 60


@contextmanager
def a_gateway(folder: Path) -> Iterator[MinioAccess]:
    """Run VersityGW over `folder` while the block runs."""
    program = ensure_tool(Tool.VERSITYGW, ConsoleReporter()) / "versitygw"
    [port] = free_ports(1)
    access = MinioAccess(endpoint=f"http://127.0.0.1:{port}", access_key="gateway", secret_key="a-secret-of-tests")
    for name in ("objects", "metadata"):
        (folder / name).mkdir()
    command = [str(program), f"--port=127.0.0.1:{port}", "--health=/health", "--keep-alive", "--quiet", "posix"]
    command += [f"--sidecar={folder / 'metadata'}", str(folder / "objects")]
    keys = {"ROOT_ACCESS_KEY": access.access_key, "ROOT_SECRET_KEY": access.secret_key}
    with (folder / "log").open("wb") as log:
        gateway = subprocess.Popen(command, env={**os.environ, **keys}, stdout=log, stderr=log)
    try:
        _wait(f"{access.endpoint}/health", gateway, folder / "log")
        yield access
    finally:
        gateway.terminate()
        gateway.wait()


def _wait(address: str, gateway: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _READY_WITHIN_S
    while time.monotonic() < deadline:
        assert gateway.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(address):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"not ready: {log.read_text()}")
