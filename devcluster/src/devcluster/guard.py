"""The guard: the smallest process that can promise that nothing of a cluster is left.

starter -> guard -> supervisor -> etcd, API server, ..., node agent -> containers

It starts the supervisor, waits for its end, whatever that was (SIGKILL too), kills everything that was below
it, and deletes the cluster's directory. As a subreaper it inherits every orphan of the tree, so "everything
below" is simply "my children, until there are none". Should the guard itself be killed, the supervisor is
told (SIGTERM) and does the same.
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
    """`python -m devcluster.guard DIRECTORY LOCK_FD`; the lock is inherited and passed on."""
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
    # The pipe to the starter is the supervisor's now: its end must be seen there.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    supervisor.wait()
    bury(directory)


def bury(directory: Path) -> None:
    """Kill what is below this process and delete the cluster's directory."""
    end_all_children()
    with suppress(OSError, ValueError, TypeError):  # buried already, or killed before it was written
        if subnet := StateDirectory(directory).read_spec().subnet:
            remove_cgroups(subnet)
    # Out of the way first, so that a cluster of the same name never meets half of it.
    grave = directory.with_name(f".{directory.name}.{os.getpid()}")
    try:
        directory.rename(grave)
    except OSError:  # buried already
        return
    shutil.rmtree(grave, ignore_errors=True)


if __name__ == "__main__":
    main()
