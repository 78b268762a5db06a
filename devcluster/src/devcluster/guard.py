"""The guard: a small process that makes sure that nothing of a cluster is left.

starter -> guard -> supervisor -> etcd, API server, ..., node agent -> containers

It starts the supervisor and waits for its end, for any cause (also SIGKILL). Then it kills all of the supervisor's
descendants and deletes the cluster's directory. It is a subreaper, so every orphaned descendant becomes its child: it
kills its children until there are none. If the guard itself is killed, the supervisor gets SIGTERM and does the same.
"""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from devcluster import kernel
from devcluster.children import end_all_children
from devcluster.kubelet.cgroups import remove_cgroups
from devcluster.layout import StateDirectory


def main() -> None:
    """Run `python -m devcluster.guard DIRECTORY LOCK_FD`; the lock is inherited and passed to the supervisor."""
    directory, lock = Path(sys.argv[1]), int(sys.argv[2])
    kernel.become_subreaper()
    for harmless in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(harmless, signal.SIG_IGN)
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "devcluster.supervisor", str(directory)],
        pass_fds=[lock],
        start_new_session=True,
        preexec_fn=kernel.die_with_parent(signal.SIGTERM),
    )
    # Only the supervisor keeps the pipe to the starter, so that the starter sees when the supervisor closes it.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    supervisor.wait()
    bury(directory)


def bury(directory: Path) -> None:
    """Kill all descendants of this process and delete the cluster's directory."""
    end_all_children()
    with suppress(OSError, ValueError, TypeError):  # deleted already, or killed before it was written
        if subnet := StateDirectory(directory).read_spec().subnet:
            remove_cgroups(subnet)
    # Renamed first, so that a new cluster of the same name never finds a half-deleted directory.
    grave = directory.with_name(f".{directory.name}.{os.getpid()}")
    try:
        directory.rename(grave)
    except OSError:  # deleted already
        return
    shutil.rmtree(grave, ignore_errors=True)


if __name__ == "__main__":
    main()
