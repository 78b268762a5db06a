"""A plan with a prompts file: the steps after it see the rows that the plan saw."""

import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from diffugen_api import layout
from diffugen_api.errors import SpecError
from diffugen_api.orders import WorkOrder
from diffugen_generator.cli import app
from diffugen_generator.failures import Damaged
from diffugen_generator.planning.plan import plan, survey
from diffugen_generator.planning.prompt_rows import expansion_of
from diffugen_generator.publishing.publish import publish
from diffugen_generator.store.folder import FolderStore
from tests.generator.made import a_model, an_order, manifest_lines, planned_shards, run_shards

FIRST = "a red ball on snow\na blue star on sand\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "captions.txt").write_text(FIRST)
    return tmp_path / "captions.txt"


@pytest.fixture
def order(tmp_path: Path, file: Path) -> WorkOrder:
    return an_order(a_model(tmp_path / "model"), prompts={"file": str(file), "samplesPerPrompt": 2})


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def prompts_in(order: WorkOrder, store: FolderStore) -> list[str]:
    return [row.sample.prompt for _, rows in planned_shards(order, store) for row in rows]


def published_prompts(store: FolderStore, folder: str) -> list[str]:
    return sorted({line["prompt"] for line in manifest_lines(store, folder)})


def test_the_plan_has_a_sample_for_each_row_and_number(order: WorkOrder, store: FolderStore) -> None:
    outcome = plan(order, store)

    assert outcome.plan == survey(expansion_of(order.spec))
    assert prompts_in(order, store) == ["a red ball on snow"] * 2 + ["a blue star on sand"] * 2
    entry = json.loads(store.read(layout.plan_summary(order.revision)))["prompts"]
    assert entry["prompts"] == 2


def test_publish_reads_the_rows_that_the_plan_saw(order: WorkOrder, store: FolderStore, file: Path) -> None:
    plan(order, store)
    run_shards(order, store)
    file.unlink()

    publish(order, store)

    assert published_prompts(store, order.revision) == ["a blue star on sand", "a red ball on snow"]


def test_a_changed_file_draws_only_its_new_rows_and_is_published_beside(
    order: WorkOrder, store: FolderStore, file: Path
) -> None:
    plan(order, store)
    run_shards(order, store)
    publish(order, store)
    file.write_text(FIRST + "a green square on stone\n")

    outcome = plan(order, store)

    assert outcome.plan is not None
    assert (outcome.plan[0].total, outcome.plan[0].reused) == (6, 4)
    run_shards(order, store)
    published = publish(order, store).published
    assert published is not None
    folder = published.uri.rpartition("/")[2]
    assert folder.startswith(f"{order.revision}-")
    assert "a green square on stone" in published_prompts(store, folder)
    assert "a green square on stone" not in published_prompts(store, order.revision)


@pytest.mark.parametrize(
    "data",
    [
        None,
        b"",
        b"no gzip",
        gzip.compress(b"")[:10] + b"\xff" * 40,
        gzip.compress(b"1\n"),
        gzip.compress(b'["", 1]\n'),
        gzip.compress(b"[" * 100_000),
    ],
    ids=["missing", "empty", "other", "bits", "number", "no map", "deep"],
)
def test_a_damaged_copy_of_the_rows_is_planned_again(order: WorkOrder, store: FolderStore, data: bytes | None) -> None:
    plan(order, store)
    run_shards(order, store)
    key = layout.planned_prompts(order.revision)
    if data is None:
        store.delete([key])
    else:
        store.write(key, data)

    with pytest.raises(Damaged, match=key):
        publish(order, store)

    assert not store.exists(layout.plan_summary(order.revision))
    plan(order, store)
    assert publish(order, store).published is not None


def test_a_small_copy_with_a_very_long_row_is_not_unpacked(order: WorkOrder, store: FolderStore) -> None:
    plan(order, store)
    key = layout.planned_prompts(order.revision)
    store.write(key, gzip.compress(b" " * (65 << 20), 1))

    with pytest.raises(Damaged, match="a row has more than 67,108,864 bytes"):
        publish(order, store)


def test_a_broken_row_stops_the_plan_before_anything_is_written(
    order: WorkOrder, store: FolderStore, file: Path
) -> None:
    file.write_bytes(b"a ball\n\xff\n")

    with pytest.raises(SpecError, match="line 2: byte 1 is not UTF-8"):
        plan(order, store)

    assert list(store.list("")) == []


@pytest.fixture
def manifest(tmp_path: Path, order: WorkOrder) -> Path:
    data = {
        "apiVersion": "diffugen.dev/v1alpha1",
        "kind": "LabeledDataset",
        "metadata": {"name": "shapes"},
        "spec": order.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude_unset=True),
    }
    (tmp_path / "manifest.yaml").write_text(json.dumps(data))
    return tmp_path / "manifest.yaml"


@pytest.mark.parametrize("command", ["validate", "plan", "run"])
def test_every_command_names_the_line_of_a_broken_row(manifest: Path, file: Path, command: str) -> None:
    file.write_text("a ball\na <lora:car:0.8> ball\n")
    where = ["--store", str(manifest.parent / "store")] if command == "run" else []

    result = CliRunner().invoke(app, [command, str(manifest), *where])

    assert result.exit_code != 0
    assert f"{file}, line 2: '<lora:car:0.8>' has no meaning" in " ".join(result.output.split())
    assert not (manifest.parent / "store").exists()


def test_validate_and_plan_count_the_rows_and_report_duplicates(manifest: Path, file: Path) -> None:
    file.write_text(FIRST + FIRST)

    valid = json.loads(CliRunner().invoke(app, ["validate", str(manifest), "--json"]).stdout)
    planned = json.loads(CliRunner().invoke(app, ["plan", str(manifest), "--json"]).stdout)

    assert valid["samples"] == planned["stages"][0]["total"] == 4
    assert planned["prompts"] == ["a red ball on snow", "a blue star on sand"]
    assert "2 rows" in valid["warnings"][0]
    assert valid["warnings"] == planned["warnings"]
