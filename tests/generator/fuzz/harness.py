"""Runs seeded cases in child processes with bounds, and collects the cases that break them.

A case may end in success or in one of our own errors, which name a file or a field. Anything else is a fault: another
exception, more CPU time or memory than its bound, or the death of the process. Cases are numbers, and the same number
always is the same case. `FUZZ_SEED` is the first number. `FUZZ_SECONDS` is how long all kinds together are tried, each
for its share; without it, a fixed number of cases is tried.
"""

from __future__ import annotations

import mmap
import os
import resource
import signal
import struct
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from diffugen_api.errors import SpecError
from diffugen_generator.failures import Failure

OURS = (SpecError, Failure)
SECONDS = 10.0
"""CPU time of a case; the slowest real ones take a tenth of it."""
BYTES = 1 << 30
"""Memory that a case may add to that of the process."""
LONGEST = 4000
"""Characters of an error's message."""
MOST_FAULTS = 5

SEED = int(os.environ.get("FUZZ_SEED", "0"))
FUZZ_SECONDS = float(os.environ["FUZZ_SECONDS"]) if os.environ.get("FUZZ_SECONDS") else None

Attempt = Callable[[int], object]


@dataclass(frozen=True)
class Fault:
    """A case that broke a bound."""

    case: int
    what: str

    def __str__(self) -> str:
        return f"FUZZ_SEED={self.case}: {self.what}"


def assert_no_faults(attempt: Attempt, folder: Path, *, cases: int, share: float) -> None:
    """Try cases as `faults_of` does; fail with the faults. `share` is the part of `FUZZ_SECONDS`."""
    if faults := faults_of(attempt, folder, cases=cases, seconds=FUZZ_SECONDS and FUZZ_SECONDS * share):
        pytest.fail("\n\n".join(map(str, faults)), pytrace=False)


def faults_of(attempt: Attempt, folder: Path, *, cases: int, seconds: float | None = None) -> list[Fault]:
    """Try `cases` cases, or as many as `seconds` allow; return the first faults."""
    end = time.monotonic() + seconds if seconds else None
    faults: list[Fault] = []
    at = SEED
    log = folder / "fault"
    with mmap.mmap(-1, 8) as shared:
        while len(faults) < MOST_FAULTS and (at < SEED + cases if end is None else time.monotonic() < end):
            log.unlink(missing_ok=True)
            child = os.fork()
            if child == 0:
                try:
                    _child(attempt, range(at, SEED + cases if end is None else at + 1_000_000), end, shared, log)
                finally:
                    os._exit(0)
            _, status = os.waitpid(child, 0)
            (at,) = struct.unpack("<q", shared[:8])
            if os.WIFSIGNALED(status):
                faults.append(Fault(at, f"ended by {signal.Signals(os.WTERMSIG(status)).name}"))
            elif log.exists():
                faults.append(Fault(at, log.read_text()))
            at += 1
    return faults


def _child(attempt: Attempt, cases: range, end: float | None, shared: mmap.mmap, log: Path) -> None:
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # it ends the process, in whatever library it is
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + BYTES, size + BYTES))
    for case in cases:
        shared[:8] = struct.pack("<q", case)
        if end is not None and time.monotonic() > end:
            return
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            attempt(case)
        except OURS as error:
            if len(str(error)) > LONGEST:
                log.write_text(f"a message of {len(str(error)):,} characters: {str(error)[:200]}")
                return
        except BaseException:  # noqa: BLE001 - every other error is a fault
            log.write_text(traceback.format_exc(limit=-12), errors="backslashreplace")
            return
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
