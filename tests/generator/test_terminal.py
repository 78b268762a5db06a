"""SIGTERM ends every command, whatever it does."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from diffugen_api.contract import ExitCode

COMMAND = """
import ctypes, signal, sys, time
from diffugen_generator import terminal
terminal.GRACE = 0.5
stop = terminal.stop_on_interrupt()
print("ready", flush=True)
{work}
"""


def ended(work: str, *signals: signal.Signals) -> tuple[int, str]:
    """Run `work` in a process that gets `signals`; return its exit code and what it wrote to stderr."""
    command = [sys.executable, "-c", COMMAND.format(work=work)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for each in signals:
            process.send_signal(each)
        _, errors = process.communicate(timeout=120)
    return process.returncode, errors


def test_a_command_that_never_looks_at_stop_ends_after_its_grace() -> None:
    code, errors = ended("while True: pass", signal.SIGTERM)

    assert code == ExitCode.TRY_AGAIN
    assert "stopped 0.5 s after SIGTERM; the same command continues" in errors


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no alarm")
def test_a_library_that_keeps_pythons_lock_ends_too() -> None:
    code, _ = ended("ctypes.PyDLL(None).sleep(3600); ctypes.PyDLL(None).sleep(3600)", signal.SIGTERM)

    assert code == -signal.SIGALRM


def test_a_command_that_looks_at_stop_ends_as_it_likes() -> None:
    code, errors = ended("stop.wait()\nsys.exit(7)", signal.SIGTERM)

    assert (code, "finishing the current batch" in errors) == (7, True)
