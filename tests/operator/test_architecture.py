"""Rules that no type checker checks: purity, the size of files, and which parts of kopf are used."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import diffugen_operator

SOURCES = Path(diffugen_operator.__file__).parent
FILES = sorted(SOURCES.rglob("*.py"))
PURE = [
    file
    for file in FILES
    if file.relative_to(SOURCES).parts[0] in ("policy", "status", "observed", "manifests", "reasons.py")
    and file.name != "__init__.py"
]


def _name(file: Path) -> str:
    return str(file.relative_to(SOURCES))


def test_all_source_files_are_found() -> None:
    names = {_name(file) for file in FILES}

    assert {"main.py", "policy/decide.py", "kube/api.py"} <= names
    assert {"policy/decide.py", "status/conditions.py", "observed/progress.py", "manifests/jobs.py"} <= {
        _name(file) for file in PURE
    }


@pytest.mark.parametrize("file", PURE, ids=_name)
def test_pure_modules_do_no_io_and_read_no_clock(file: Path) -> None:
    nodes = list(ast.walk(ast.parse(file.read_text())))
    imported = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {(node.module or "").split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
    called = {node.func.attr for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)}

    assert imported.isdisjoint({"asyncio", "aiohttp", "kopf", "kubernetes", "time", "socket", "os", "pathlib"})
    assert called.isdisjoint({"now", "utcnow", "today"})
    assert not any(isinstance(node, ast.AsyncFunctionDef) for node in nodes)


@pytest.mark.parametrize("file", FILES, ids=_name)
def test_no_file_uses_parts_of_kopf_that_write_to_users_objects(file: Path) -> None:
    handlers = ("create", "update", "delete", "field", "resume", "timer", "daemon")
    forbidden = [*(f"kopf.on.{kind}" for kind in handlers), "kopf.timer", "kopf.daemon", "kopf.adopt", "kopf.patch"]
    text = file.read_text()

    assert [word for word in forbidden if word in text] == []


@pytest.mark.parametrize("file", FILES, ids=_name)
def test_no_file_is_longer_than_400_lines(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 400
