"""Making the cluster's processes fail, for tests that want to see who copes."""

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
        """SIGKILL, and wait for its end. The node's containers die with it, as when a machine is lost."""
        control.ask(self.directory.control, "kill", self.name)

    def start(self) -> None:
        """Start it again and wait until it is up; nothing when it runs."""
        control.ask(self.directory.control, "start", self.name)

    def restart(self) -> None:
        """`kill` and `start`."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: its connections stay open, and nobody answers."""
        control.ask(self.directory.control, "pause", self.name)

    def resume(self) -> None:
        """SIGCONT."""
        control.ask(self.directory.control, "resume", self.name)

    stop = kill
