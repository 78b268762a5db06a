"""Temporary folders do not outlive their process for long, however it ends."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from diffugen_generator.scratch import scratch_folder

HOLD = """
import sys
from diffugen_generator.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "part").write_text("much")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


def test_the_folder_of_a_killed_process_is_removed_by_the_next_and_that_of_a_running_one_is_not(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD]
    (tmp_path / "diffugen-of-another-program").mkdir()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        held = Path(process.stdout.readline().strip())
        with scratch_folder():
            assert (held / "part").exists()
        process.kill()
        process.wait()
        assert held.exists()

        with scratch_folder() as own:
            assert not held.exists()
            assert own.is_dir()

    assert [path.name for path in tmp_path.iterdir()] == ["diffugen-of-another-program"]


def test_the_folder_is_removed_after_an_error() -> None:
    with pytest.raises(RuntimeError), scratch_folder() as folder:
        raise RuntimeError

    assert not folder.exists()
