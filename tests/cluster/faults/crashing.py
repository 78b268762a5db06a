"""The operator with a hook that counts its writes and kills it at one; tests start this program as the operator.

Everything is the real operator, except that its connection to the cluster can crash the process. Every write has two
boundaries: before its request is sent, and after its answer has come. At a boundary the process may SIGKILL itself.
`CRASHES` names a file; each line is a boundary at which the process has died already:

- without `CRASH_ODDS` it dies at every boundary that is not in the file: over many starts it dies once at each boundary
  of a run, in their order, and then continues;
- with `CRASH_ODDS` (0 to 1) and `CRASH_SEED` it dies at random, at any boundary.

The same write after a restart is the same boundary: the key of a status write contains no times.

After each death it is started again, as a kubelet would do, but without Python's imports each time: each start is a new
process, forked before anything of the operator has begun.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from devcluster import kernel
from diffugen_operator import process
from diffugen_operator.kube.api import Cluster
from diffugen_operator.main import main

CRASHES: Crashes
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")


class Crashes:
    """Decides at which boundaries to die, and records them first."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._file = Path(environment["CRASHES"])
        self._file.touch()
        self._died_at = self._file.read_text().splitlines()
        self._odds = float(environment.get("CRASH_ODDS", "0"))
        self._random = random.Random(f"{environment.get('CRASH_SEED')}/{len(self._died_at)}")

    def reach(self, boundary: str) -> None:
        """Die here, or continue."""
        due = self._random.random() < self._odds if self._odds else boundary not in self._died_at
        if not due:
            return
        with self._file.open("a") as file:
            file.write(f"{boundary}\n")
        os.kill(os.getpid(), signal.SIGKILL)


class CrashingCluster(Cluster):
    """The operator's requests, with a boundary before and after each that writes."""

    async def _send(self, method: str, path: str, **request: Any) -> Any:
        if method == "GET":
            return await super()._send(method, path, **request)
        write = f"{method} {path} {_told(request.get('body') or {})}"
        CRASHES.reach(f"before {write}")
        try:
            return await super()._send(method, path, **request)
        finally:
            CRASHES.reach(f"after {write}")


def _told(body: Mapping[str, Any]) -> str:
    """Return what distinguishes this write from others at its path: a name, or the content of a status."""
    if name := body.get("metadata", {}).get("name"):
        return str(name)
    said = {key: value for key, value in body.items() if key != "metadata"}
    text = _TIME.sub("", json.dumps(said, sort_keys=True))
    reason = said.get("status", {}).get("summary", {}).get("reason", "")
    return f"{reason}#{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def live_again_and_again() -> NoReturn:
    """Start the operator again after each SIGKILL; if it ends in another way, end with the same result."""
    while True:
        bound = kernel.die_with_parent()
        life = os.fork()
        if life == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            bound()
            global CRASHES  # noqa: PLW0603 - one for each process
            CRASHES = Crashes(os.environ)
            main()
            sys.exit(0)
        signal.signal(signal.SIGTERM, lambda *_, life=life: os.kill(life, signal.SIGTERM))
        _, status = os.waitpid(life, 0)
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    process.Cluster = CrashingCluster  # type: ignore[attr-defined]  # an import of that module, not an export
    live_again_and_again()
