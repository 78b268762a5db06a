"""Maps any exception to an outcome (the termination message of a pod) and an exit code."""

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
"""Exit code of an unexpected exception."""

_AT_ONCE = "stopped at once from the keyboard; finished samples are in the store, and the same command continues"

_OF_THE_SYSTEM: dict[int | None, tuple[str, str, ExitCode]] = {
    errno.ENOSPC: ("NoSpaceLeft", "no disk space is left", ExitCode.TRY_AGAIN),
    errno.EDQUOT: ("NoSpaceLeft", "no disk space is left", ExitCode.TRY_AGAIN),
    errno.EACCES: ("NotPermitted", "the file system permits no access; name another folder", ExitCode.REFUSED),
    errno.EPERM: ("NotPermitted", "the file system permits no access; name another folder", ExitCode.REFUSED),
    errno.EROFS: ("NotPermitted", "the file system permits no writing; name another folder", ExitCode.REFUSED),
}
"""Reason, message and exit code of errors of the operating system, by their number."""

_EXTRAS = {
    **dict.fromkeys(("torch", "torchvision", "diffusers", "transformers", "safetensors", "scipy"), "models"),
    "pyarrow": "formats",
}
"""The extra of the package that installs each of these optional modules."""


def outcome_of(error: BaseException) -> tuple[Outcome, int]:
    """Return the outcome and the exit code of a process that `error` ends."""
    if isinstance(error, SpecError | Failure):
        code = error.exit_code if isinstance(error, Failure) else ExitCode.BAD_SPEC
        return Outcome(reason=error.reason, message=str(error)), code
    if isinstance(error, KeyboardInterrupt):
        return Outcome(reason="Interrupted", message=_AT_ONCE), ExitCode.TRY_AGAIN
    # torch.OutOfMemoryError by name: torch is not imported here
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        message = f"memory ran out ({error}); give the pods more memory, or draw smaller images"
        return Outcome(reason="OutOfMemory", message=message), ExitCode.TRY_AGAIN
    if isinstance(error, OSError) and error.errno in _OF_THE_SYSTEM:
        reason, message, code = _OF_THE_SYSTEM[error.errno]
        return Outcome(reason=reason, message=f"{message} ({error})"), code
    if isinstance(error, ModuleNotFoundError) and (extra := _EXTRAS.get((error.name or "").partition(".")[0])):
        spec = f"'diffugen[{extra}]'"
        message = (
            f"{error.name} is not installed; install the extra: pip install {spec}; "
            f"or run without installing: pipx run --spec {spec} diffugen …"
        )
        return Outcome(reason="ExtraNotInstalled", message=message), ExitCode.BAD_SPEC
    return Outcome(reason="Crashed", message=f"{type(error).__name__}: {error}"), CRASHED


def leave_at_once(code: int) -> NoReturn:
    """End the process at once: the cleanup of Python and torch takes seconds and keeps the GPU in use meanwhile.

    If the output cannot be written, as on a full disk, a sentence says so and the code is not 0.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (BrokenPipeError, ValueError):  # the reader of the pipe has ended, or the stream is closed
            continue
        except OSError as error:
            with suppress(OSError, ValueError):
                os.write(2, f"✘ the output could not be written: {error.strerror}\n".encode())
            code = code or ExitCode.TRY_AGAIN
    os._exit(code)
