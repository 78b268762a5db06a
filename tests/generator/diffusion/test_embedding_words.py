"""Stages of every kind know the tokens of embeddings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from diffugen_api import layout
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.planning.plan import plan
from diffugen_generator.store.folder import FolderStore
from tests.generator.graphs import (
    an_order,
    base,
    draw,
    redrawn,
    samples_of_stage,
    shards_of,
)

"""Where what is made of a sample lies."""
"""By key."""


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


# fault 17 of DiffuGen's catalog
def test_img2img_also_uses_the_embeddings_of_its_source(
    tiny_model: ModelFolder, store: FolderStore, tmp_path: Path
) -> None:
    word = tmp_path / "word.safetensors"
    save_file({"<orb>": torch.full((32,), 0.5)}, word)
    prompts = {"templates": ["a <orb> on {place}"], "variables": {"place": ["snow"]}}
    classes = [{"name": "ball", "synonyms": ["<orb>"]}]
    taught = {"embeddings": [{"uri": str(word), "token": "<orb>"}]}
    order = an_order([base(tiny_model.uri, **taught), redrawn("mud", "base")], prompts=prompts, classes=classes)
    plan(order, store)
    for stage in ("base", "mud"):
        draw(order, store, stage)

    ((header, rows),) = shards_of(order, store, "mud")
    assert [each.token for each in header.embeddings] == ["<orb>"]
    assert "<orb>" in header.drawing["embeddings"]
    evidence = AttentionMaps.loads(store.read(layout.evidence("mud", header.evidence_id, rows[0].sample.id)))
    assert (rows[0].sample.prompt, evidence.classes) == ("a <orb> on sand", ("ball",))


# fault 17 of DiffuGen's catalog
def test_a_substring_does_not_count_as_equal_to_a_value(tiny_model: ModelFolder, store: FolderStore) -> None:
    variables = {"object": ["ball"], "hour": ["midday", "day"]}
    stages = [base(tiny_model.uri), redrawn("day", "base", variables={"hour": ["day"]})]
    prompts = {"templates": ["a {object} at {hour}"], "variables": variables}
    order = an_order(stages, prompts=prompts)
    plan(order, store)

    assert [sample.prompt for sample in samples_of_stage(order, store, "day")] == ["a ball at day"]
