"""Errors of the operating system: one sentence with what to do, and the exit code that decides on another try."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from diffugen_api.contract import ExitCode
from diffugen_generator.exit_codes import CRASHED, outcome_of
from tests.generator.commands.published import diffugen, published, sentence

EXPECTED = [
    (errno.EACCES, "NotPermitted", ExitCode.REFUSED, "the file system permits no access; name another folder"),
    (errno.EPERM, "NotPermitted", ExitCode.REFUSED, "the file system permits no access; name another folder"),
    (errno.EROFS, "NotPermitted", ExitCode.REFUSED, "the file system permits no writing; name another folder"),
    (errno.ENOSPC, "NoSpaceLeft", ExitCode.TRY_AGAIN, "no disk space is left"),
    (errno.EDQUOT, "NoSpaceLeft", ExitCode.TRY_AGAIN, "no disk space is left"),
]
NAMES = [errno.errorcode[number] for number, *_ in EXPECTED]


@pytest.mark.parametrize(("number", "reason", "code", "words"), EXPECTED, ids=NAMES)
def test_an_error_of_the_file_system_has_a_reason_and_a_code(
    number: int, reason: str, code: ExitCode, words: str
) -> None:
    error = OSError(number, os.strerror(number), "/data/out")

    outcome, exit_code = outcome_of(error)

    assert (outcome.ok, outcome.reason, exit_code) == (False, reason, code)
    assert outcome.message == f"{words} ({error})"
    assert "/data/out" in outcome.message


@pytest.mark.parametrize(("number", "reason", "code", "words"), EXPECTED, ids=NAMES)
def test_a_command_ends_with_that_code_and_one_sentence(
    number: int, reason: str, code: ExitCode, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = published(tmp_path)
    out, mkdir = tmp_path / "out", Path.mkdir

    def refuse(path: Path, *arguments: Any, **options: Any) -> None:
        if path == out:
            raise OSError(number, os.strerror(number), str(path))
        mkdir(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)
    result = diffugen("pull", store.root, out, "--json")

    assert result.exit_code == code
    assert json.loads(result.stdout)["reason"] == reason
    assert sentence(result).startswith(f"{words} (")
    assert str(out) in sentence(result)


def test_another_error_of_the_system_is_a_crash() -> None:
    outcome, code = outcome_of(OSError(errno.EIO, os.strerror(errno.EIO)))

    assert (outcome.reason, code) == ("Crashed", CRASHED)
