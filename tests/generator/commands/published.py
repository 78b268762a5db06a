"""Published datasets for the tests of the commands, and the command line in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from diffugen_api.orders import WorkOrder
from diffugen_generator.cli import app
from diffugen_generator.planning.plan import plan
from diffugen_generator.publishing.publish import publish
from diffugen_generator.store.folder import FolderStore
from tests.generator.made import a_model, an_order, run_shards

PROMPTS = {"templates": ["a ball", "a star"], "samplesPerPrompt": 4}
OUTPUT = {"formats": ["coco", "yolo"], "splits": {"train": 0.5, "val": 0.5}}


def order_of(folder: Path, **changes: Any) -> WorkOrder:
    model = folder / "model"
    path = str(model) if model.exists() else a_model(model)
    return an_order(path, **{"prompts": PROMPTS, "output": OUTPUT, **changes})


def published(folder: Path, **changes: Any) -> tuple[FolderStore, WorkOrder]:
    """Plan, draw by hand and publish a dataset in `folder/store`."""
    order, store = order_of(folder, **changes), FolderStore(folder / "store")
    plan(order, store)
    run_shards(order, store)
    publish(order, store)
    return store, order


def diffugen(*arguments: str | Path) -> Result:
    """Run a command; a crash is an error of the test."""
    result = CliRunner().invoke(app, [str(each) for each in arguments], env={"COLUMNS": "200"})
    assert "This is a bug" not in result.output, result.output
    return result


def told(*arguments: str | Path) -> dict[str, Any]:
    """Return the JSON of a command that succeeds."""
    result = diffugen(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def sentence(result: Result) -> str:
    """Return the only line on stderr that is no progress: the error, as one sentence."""
    [line] = [line for line in result.stderr.splitlines() if line.startswith("✘")]
    return line.removeprefix("✘ ")
