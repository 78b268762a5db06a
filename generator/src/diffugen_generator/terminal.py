"""What the commands share: options, consoles, errors as one sentence, Ctrl-C, and JSON on stdout.

Starting is fast: rich and the commands' own modules are imported when they are needed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from functools import cache
from threading import Event, Timer
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from diffugen_generator.telemetry.reporter import Reporter

R = TypeVar("R", bound="Result")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout; progress goes to stderr.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
Endpoint = Annotated[
    str, typer.Option(envvar="AWS_ENDPOINT_URL", help="The object store of s3:// addresses.", show_default=False)
]
Device = Annotated[
    str | None, typer.Option(help="cuda, cuda:1 or cpu; default: the GPU if there is one.", show_default=False)
]

GRACE = 110.0
"""Seconds after SIGTERM at which a command ends in any case: less than the 120 s that pods have."""
_UNLIMITED_WIDTH = 1000
"""Width in columns of tables in a file or a pipe, so that they are not squeezed."""


def report_errors(do: Callable[[], None], *, debug: bool, as_json: bool) -> None:
    """Call `do`; on an exception print one sentence and exit with the code of the contract.

    With `as_json` the failure is also an object on stdout: reason, message, and the faults of a manifest.
    """
    from diffugen_generator.commands.manifests import InvalidManifest  # noqa: PLC0415
    from diffugen_generator.exit_codes import CRASHED, outcome_of  # noqa: PLC0415

    try:
        do()
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            raise
        outcome, code = outcome_of(error)
        console = open_console(stderr=True)
        if as_json:
            report: dict[str, Any] = {"reason": outcome.reason, "message": outcome.message}
            if isinstance(error, InvalidManifest):
                report["faults"] = [{"path": fault.path, "message": fault.message} for fault in error.faults]
            print_json([report])
        if isinstance(error, InvalidManifest):
            from diffugen_generator.commands.tables import show_faults  # noqa: PLC0415

            show_faults(console, error)
        else:
            console.print("✘", outcome.message, highlight=False, markup=False, soft_wrap=True)
        if code == CRASHED:
            console.print("This is a bug; --debug shows the traceback.", style="dim")
        raise typer.Exit(code) from None


def stop_on_interrupt(message: str = "finishing the current batch; press Ctrl-C again to end at once") -> Event:
    """Return an event that the first Ctrl-C sets, with a message; the second Ctrl-C ends the process at once.

    SIGTERM sets it, too. If the command has not ended `GRACE` seconds after SIGTERM, the process ends by itself.
    """
    stop = Event()
    console = open_console(stderr=True)  # here, because a signal's handler should import nothing

    def interrupt(*_: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        console.print(message)

    signal.signal(signal.SIGINT, interrupt)

    def terminate(*_: object) -> None:
        if not stop.is_set():
            _end_within(GRACE)
        interrupt()

    signal.signal(signal.SIGTERM, terminate)
    return stop


def _end_within(seconds: float) -> None:
    """End the process `seconds` from now, whatever it does: from a thread, or else by the kernel's alarm."""
    from diffugen_api.contract import ExitCode  # noqa: PLC0415
    from diffugen_generator.exit_codes import leave_at_once  # noqa: PLC0415

    def end() -> None:
        open_console(stderr=True).print(f"stopped {seconds:g} s after SIGTERM; the same command continues")
        leave_at_once(ExitCode.TRY_AGAIN)

    timer = Timer(seconds, end)
    timer.daemon = True
    timer.start()
    if hasattr(signal, "setitimer"):  # the thread cannot run while a library keeps Python's lock
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds + 2)


@cache
def open_console(*, stderr: bool = False) -> Console:
    """Return the console on stdout or stderr; output to a file or a pipe is not wrapped.

    There is one for each stream, so that a message is written above the bar that the console shows at the time.
    """
    from diffugen_generator.plain_console import PlainConsole  # noqa: PLC0415 - imports rich

    console = PlainConsole(stderr=stderr, emoji=False)  # ":car:" in a message is text
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _UNLIMITED_WIDTH
    return console


def open_display(*, quiet: bool) -> Reporter:
    """Return a display of progress on stderr: bars on a terminal, lines elsewhere."""
    from diffugen_generator.commands.display import BarDisplay, PlainDisplay  # noqa: PLC0415

    console = open_console(stderr=True)
    if quiet:
        from rich.console import Console  # noqa: PLC0415

        console = Console(stderr=True, quiet=True)
    return BarDisplay(console) if console.is_terminal else PlainDisplay(console)


def print_json(rows: list[dict[str, Any]]) -> None:
    """Print one object; with several datasets, an object with a list of them."""
    json.dump(rows[0] if len(rows) == 1 else {"datasets": rows}, sys.stdout, indent=2)
    sys.stdout.write("\n")


class Result(Protocol):
    """What a command found."""

    def row(self) -> dict[str, Any]:
        """Return it as JSON data."""
        ...


def show_result(result: R, table: Callable[[Console, R], None], *, as_json: bool) -> None:
    """Print a result on stdout: as JSON, or with `table` for people."""
    if as_json:
        print_json([result.row()])
    else:
        table(open_console(), result)
