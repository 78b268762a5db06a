"""Damaged files of every kind that is read: read, or named in one of our own errors, within bounds."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import pytest

from tests.generator.fuzz.damage import damaged
from tests.generator.fuzz.files import Files, Kind
from tests.generator.fuzz.harness import assert_no_faults


@pytest.fixture(scope="module")
def kinds(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Kind]:
    folder = tmp_path_factory.mktemp("files")
    return list(Files(folder, Path(shutil.copytree(tiny_folder, folder / "model"))).kinds())


KINDS = 38


def test_all_kinds_are_tried(kinds: list[Kind]) -> None:
    assert len(kinds) == KINDS


@pytest.mark.parametrize("number", range(KINDS))
def test_a_damaged_file_is_read_or_named(number: int, kinds: list[Kind], tmp_path: Path) -> None:
    kind = kinds[number]
    kind.read(kind.data)

    def attempt(case: int) -> None:
        kind.read(damaged(kind.data, kind.change, Random(f"{kind.name} {case}")))

    assert_no_faults(attempt, tmp_path, cases=kind.cases, share=0.6 / len(kinds))
