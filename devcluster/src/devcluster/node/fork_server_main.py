"""`python -m devcluster.node.fork_server_main FD MODULES`: imports the modules, then runs programs as forks of itself.

It reads requests, one JSON object a line, from the socket FD, and answers each with the process id of the new process.
The new process is a grandchild that the node agent, a subreaper, adopts: the agent waits for it as for its own child.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from devcluster import kernel


def main() -> None:
    """Serve requests until the agent closes the socket; in a fork, run the requested program."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    agent = os.getppid()
    gc.disable()
    for module in sys.argv[2].split(","):
        importlib.import_module(module)
    gc.freeze()  # garbage collection in a fork would write to the imported objects, and so copy their memory
    gc.enable()
    with channel.makefile("rw") as lines:
        while request := lines.readline():
            if (pid := _fork_to(agent)) == 0:
                break
            lines.write(f"{pid}\n")
            lines.flush()
    channel.close()
    if request:  # this process is a fork
        _become(json.loads(request))


def _fork_to(agent: int) -> int:
    """Return 0 in the new process, whose parent is the agent, and its process id in this one."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        between = os.getpid()
        if os.fork() != 0:
            os._exit(0)
        while os.getppid() == between:
            time.sleep(0.001)
        kernel.end_with(agent)
        os.setsid()
        os.write(writer, str(os.getpid()).encode())
        os.close(reader)
        os.close(writer)
        return 0
    os.close(writer)
    os.waitpid(child, 0)
    pid = int(os.read(reader, 32))
    os.close(reader)
    return pid


def _become(request: dict[str, Any]) -> None:
    """Run the requested Python program in this process."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    sys.stdout.flush()
    _redirect(Path(request["log"]))
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["command"]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")


def _redirect(log: Path) -> None:
    silence = os.open(os.devnull, os.O_RDONLY)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for source, target in ((silence, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(silence)
    os.close(output)


if __name__ == "__main__":
    main()
