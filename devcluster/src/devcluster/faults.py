"""Makes the cluster's processes fail, for tests of the behaviour after a failure."""

from dataclasses import dataclass

from devcluster import control
from devcluster.layout import StateDirectory


@dataclass(frozen=True)
class ClusterProcess:
    """One of a running cluster's processes."""

    name: str
    """`etcd`, `apiserver`, `controller-manager`, `scheduler`, `minio` or `node-0` and so on"""
    directory: StateDirectory

    @property
    def pid(self) -> int | None:
        """Its process id; None while it is down."""
        pid: int | None = control.ask(self.directory.control, "pids").get(self.name)
        return pid

    def kill(self) -> None:
        """Send SIGKILL and wait for its end. A node's containers end with it, as when a machine is lost."""
        control.ask(self.directory.control, "kill", self.name)

    def start(self) -> None:
        """Start it again and wait until it is ready; do nothing if it runs."""
        control.ask(self.directory.control, "start", self.name)

    def restart(self) -> None:
        """`kill` and `start`."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Send SIGSTOP: its connections stay open, but it does not answer."""
        control.ask(self.directory.control, "pause", self.name)

    def resume(self) -> None:
        """Send SIGCONT."""
        control.ask(self.directory.control, "resume", self.name)

    stop = kill
