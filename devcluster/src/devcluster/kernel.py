"""The few Linux calls that keep a cluster from outliving its owner, and that the standard library lacks.

Two properties are wanted of every process below a supervisor. It dies when its parent dies, however that
happens (`PR_SET_PDEATHSIG`); and what it forked comes back to an ancestor of ours instead of to init
(`PR_SET_CHILD_SUBREAPER`), so that whoever cleans up finds the strays among its own children.
"""

import ctypes
import os
import signal
from collections.abc import Callable
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

# Loaded before any fork: between fork and exec nothing may take the loader's lock.
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(death_signal: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """A `preexec_fn`: the child gets `death_signal` once the thread that started it is gone.

    To be called in the main thread of the parent, because the kernel watches the thread, not the process.
    """
    parent = os.getpid()

    def in_child() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:  # it died before the kernel knew of our wish
            os._exit(1)

    return in_child


def become_subreaper() -> None:
    """Make orphaned descendants children of this process."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def children() -> list[int]:
    """The process ids of this process' children, adopted ones too."""
    own = str(os.getpid())
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The command's name may hold blanks and parentheses; after its last ")" come state, ppid, ...
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[1] == own:
            found.append(int(entry.name))
    return found
