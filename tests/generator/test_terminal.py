"""What commands share: SIGTERM ends every one, whatever it does; a text is shown and never obeyed."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys

import pytest

from diffugen_api.contract import ExitCode
from diffugen_generator.commands.display import BarDisplay
from diffugen_generator.plain_console import PlainConsole
from diffugen_generator.terminal import open_console

COMMAND = """
import ctypes, signal, sys, time
from diffugen_generator import terminal
terminal.GRACE = {grace}
stop = terminal.stop_on_interrupt()
print("ready", flush=True)
{work}
"""


def ended(work: str, *signals: signal.Signals, grace: float = 0.5) -> tuple[int, str]:
    """Run `work` in a process that gets `signals`; return its exit code and what it wrote to stderr."""
    command = [sys.executable, "-c", COMMAND.format(work=work, grace=grace)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for each in signals:
            process.send_signal(each)
        try:
            _, errors = process.communicate(timeout=120)
        finally:
            process.kill()  # what does not end would keep the tests waiting
    return process.returncode, errors


def test_a_command_that_never_looks_at_stop_ends_after_its_grace() -> None:
    code, errors = ended("while True: pass", signal.SIGTERM)

    assert code == ExitCode.TRY_AGAIN
    assert "stopped 0.5 s after SIGTERM; the same command continues" in errors


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no alarm")
def test_a_library_that_keeps_pythons_lock_ends_too() -> None:
    code, _ = ended("ctypes.PyDLL(None).sleep(3600); ctypes.PyDLL(None).sleep(3600)", signal.SIGTERM, grace=2)

    assert code == -signal.SIGALRM


def test_a_command_that_looks_at_stop_ends_as_it_likes() -> None:
    code, errors = ended("stop.wait()\nsys.exit(7)", signal.SIGTERM, grace=60)

    assert (code, "finishing the current batch" in errors) == (7, True)


SHOWN = """
import sys
from diffugen_generator.terminal import open_console
open_console().print("✔", sys.argv[1], markup=False, highlight=False)
"""


def shown(text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SHOWN, text]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


def test_a_stream_without_the_letters_gets_question_marks() -> None:
    ended = shown("grün", PYTHONIOENCODING="ascii", PYTHONUTF8="0")

    assert (ended.returncode, ended.stdout) == (0, "? gr?n\n"), ended.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b]0;title\x07red \x1b[31mball", "\\x1b]0;titlered \\x1b[31mball"),
        ("png.\u202egnp", "png.\\u202egnp"),
        ("café 球", "café 球"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(text: str, expected: str) -> None:
    ended = shown(text, PYTHONIOENCODING="utf-8")

    assert ended.stdout.strip() == f"✔ {expected}"


def test_a_message_is_written_above_the_bar() -> None:
    """Two consoles on one terminal would write over each other."""
    file = io.StringIO()
    console = PlainConsole(file=file, force_terminal=True, width=80)

    with BarDisplay(console).task("stage base", "images") as advance:
        advance(1, 4)
        console.print("finishing the current batch")
        advance(2, 4)

    lines = file.getvalue().replace("\x1b[2K", "").splitlines()
    assert any(line.endswith("finishing the current batch") for line in lines)
    assert open_console(stderr=True) is open_console(stderr=True)
