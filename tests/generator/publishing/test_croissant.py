"""croissant.json: mlcroissant accepts it, and reads the samples with it."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from diffugen_generator.publishing.publish import publish
from tests.generator.made import a_finished_store, a_model, an_order, manifest_lines


@pytest.mark.filterwarnings("ignore")
def test_mlcroissant_validates_it_and_reads_every_sample(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import mlcroissant

    model = a_model(tmp_path / "model")
    (Path(model) / "README.md").write_text("---\nlicense: openrail\n---\n# A model\n")
    order = an_order(model, prompts={"templates": ["a ball", "a star, 星"], "samplesPerPrompt": 2})
    store = a_finished_store(order, tmp_path / "store")
    publish(order, store)
    folder = store.root / "revisions" / order.revision

    with caplog.at_level(logging.WARNING):
        dataset = mlcroissant.Dataset(jsonld=folder / "croissant.json")
    rows: list[dict[str, Any]] = list(dataset.records("samples"))

    assert not dataset.metadata.ctx.issues.errors
    lines = manifest_lines(store, order.revision)
    assert [row["samples/id"].decode() for row in rows] == [line["id"] for line in lines]
    assert [row["samples/prompt"].decode() for row in rows] == [line["prompt"] for line in lines]
    assert [row["samples/seed"] for row in rows] == [line["seed"] for line in lines]
    assert [row["samples/imageSha256"].decode() for row in rows] == [line["imageSha256"] for line in lines]
    described = json.loads((folder / "croissant.json").read_text())
    assert described["license"] == ["openrail"]
    files = json.loads((folder / "dataset.json").read_text())["files"]
    for each in described["distribution"]:
        assert each["sha256"] == files[each["contentUrl"]]["sha256"]
