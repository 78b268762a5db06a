"""Linux calls that end a cluster with its owner; the standard library does not have them.

Every process below a supervisor needs two properties. It ends when its parent ends, for any cause
(`PR_SET_PDEATHSIG`). And its orphaned descendants become children of the supervisor or the guard instead of init
(`PR_SET_CHILD_SUBREAPER`), so that these processes can find and kill them.
"""

import ctypes
import os
import signal
from collections.abc import Callable
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

# Loaded before any fork: between fork and exec no code may take the loader's lock.
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(death_signal: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """Return a `preexec_fn`: the child gets `death_signal` when the thread that started it has ended.

    Call this in the main thread of the parent, because the kernel watches the thread, not the process.
    """
    parent = os.getpid()

    def in_child() -> None:
        end_with(parent, death_signal)

    return in_child


def end_with(parent: int, death_signal: signal.Signals = signal.SIGKILL) -> None:
    """Let this process get `death_signal` when its parent ends; end it at once if `parent` has ended already."""
    _libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    if os.getppid() != parent:  # the parent ended before the call above
        os._exit(1)


def become_subreaper() -> None:
    """Make orphaned descendants children of this process."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def children() -> list[int]:
    """Return the process ids of this process' children, including adopted ones."""
    own = str(os.getpid())
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The command's name can have blanks and parentheses; after its last ")" come state, ppid, ...
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[1] == own:
            found.append(int(entry.name))
    return found
