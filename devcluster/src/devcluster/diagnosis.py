"""Collects the information to find why a test on a cluster failed, in one text."""

from collections.abc import Callable
from pathlib import Path

from devcluster.layout import StateDirectory

_PROCESS_LOG_LINES = 10
_POD_LOG_LINES = 25
_QUESTIONS = (
    ("get", "nodes", "-o", "wide"),
    ("get", "jobs,pods", "--all-namespaces", "-o", "wide"),
    ("get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"),
)


def diagnose(directory: StateDirectory, kubectl: Callable[..., str]) -> str:
    """Return nodes, Jobs, pods, events, and the ends of all logs."""
    parts = [_section("kubectl " + " ".join(question), _answer(kubectl, question)) for question in _QUESTIONS]
    of_pods = sorted(directory.pods.glob("*/*.log"))
    parts += [_section(f"{log.parent.name} {log.stem}", _tail(log, _POD_LOG_LINES)) for log in of_pods]
    of_processes = sorted(set(directory.logs.glob("*.log")) - {directory.audit_log})
    parts += [_section(log.name, _tail(log, _PROCESS_LOG_LINES)) for log in of_processes]
    return "\n".join(parts)


def _answer(kubectl: Callable[..., str], question: tuple[str, ...]) -> str:
    try:
        return kubectl(*question, "--request-timeout=5s")
    except Exception as error:  # noqa: BLE001  (this function is for broken clusters)
        return str(error)


def _section(title: str, text: str) -> str:
    return f"=== {title}\n{text.rstrip()}\n"


def _tail(log: Path, lines: int) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
