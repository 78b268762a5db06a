"""The demo does not wait for an operator that has ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from devcluster import Cluster
from devcluster.demo import Demo, DemoFailedError, check_runs


class _Unready(Demo):
    def dataset(self) -> dict[str, Any]:
        return {"metadata": {"generation": 1}}


@pytest.mark.parametrize(("program", "code"), [("raise SystemExit(3)", 3), ("import os; os.abort()", -6)])
def test_an_operator_that_ended_fails_the_demo_with_the_end_of_its_log(program: str, code: int, tmp_path: Path) -> None:
    log = tmp_path / "operator.log"
    log.write_text("".join(f"line {number}\n" for number in range(100)) + "a part of it broke\n")
    demo = _Unready(cluster=Cluster.__new__(Cluster), manifest={}, console=Console(quiet=True), timeout_s=30)
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL) as process:
        process.wait(20)

        with pytest.raises(DemoFailedError, match=f"the operator ended with exit status {code}") as failed:
            demo.follow(lambda: check_runs(process, log))

    assert "a part of it broke" in str(failed.value)
    assert "line 0" not in str(failed.value)


def test_a_running_operator_keeps_the_demo_waiting(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        check_runs(process, tmp_path / "operator.log")
        process.kill()
