"""How a process ends: what any exception means as a last word and an exit code, for pods and for people."""

from __future__ import annotations

import errno
import logging
import os
import sys
from contextlib import suppress
from typing import NoReturn

from diffugen_api.contract import ExitCode, Outcome
from diffugen_api.plan import SpecError
from diffugen_generator.failures import Failure

CRASHED = 1
"""Exit code of what nobody foresaw."""

_AT_ONCE = "stopped at once from the keyboard; what is in the store stays there, and the same command goes on from it"

_EXTRAS = {
    **dict.fromkeys(("torch", "torchvision", "diffusers", "transformers", "safetensors", "scipy"), "models"),
    **dict.fromkeys(("pyarrow", "webdataset"), "formats"),
}
"""Modules that only an extra of the distribution installs, and which."""


def ending_of(error: BaseException) -> tuple[Outcome, int]:
    """Return the last word and the exit code of a process that `error` ends."""
    if isinstance(error, SpecError | Failure):
        code = error.exit_code if isinstance(error, Failure) else ExitCode.BAD_SPEC
        return Outcome(reason=error.reason, message=str(error)), code
    if isinstance(error, KeyboardInterrupt):
        return Outcome(reason="Interrupted", message=_AT_ONCE), ExitCode.TRY_AGAIN
    # torch.OutOfMemoryError by name: torch is not imported here
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        message = f"memory is short ({error}); give the pods more, or draw smaller pictures"
        return Outcome(reason="OutOfMemory", message=message), ExitCode.TRY_AGAIN
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return Outcome(reason="NoSpaceLeft", message=f"no space is left ({error})"), ExitCode.TRY_AGAIN
    if isinstance(error, ModuleNotFoundError) and (extra := _EXTRAS.get((error.name or "").partition(".")[0])):
        message = f"{error.name} is not installed; install the extra: pip install 'diffugen[{extra}]'"
        return Outcome(reason="ExtraNotInstalled", message=message), ExitCode.BAD_SPEC
    return Outcome(reason="Crashed", message=f"{type(error).__name__}: {error}"), CRASHED


def leave_at_once(code: int) -> NoReturn:
    """End the process without the seconds that Python and torch take to clean up, a GPU in hand all the while."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a reader that went, a stream that was closed
            stream.flush()
    os._exit(code)
