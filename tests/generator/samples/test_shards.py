"""Shards: complete without other files, and the same bytes for the same content."""

import gzip
import json
from pathlib import Path

import pytest

from diffugen_api.plan import Expansion
from diffugen_generator.failures import BadShard, Missing
from diffugen_generator.planning.plan import plan, stages_of
from diffugen_generator.samples.shards import Need, ShardRow, decode_shard, encode_shard, read_shard
from diffugen_generator.store.folder import FolderStore
from tests.generator.made import a_model, an_order, planned_shards


@pytest.fixture
def model(tmp_path: Path) -> str:
    return a_model(tmp_path / "model")


def test_a_shard_has_everything_that_its_samples_need(model: str, tmp_path: Path) -> None:
    order = an_order(model, labeling={"attention": {"threshold": 0.3, "background": ["sky"]}})
    store = FolderStore(tmp_path / "store")

    plan(order, store)

    [stage] = stages_of(Expansion(order.spec))
    [(header, rows)] = planned_shards(order, store)
    assert (header.stage, header.kind, header.revision, header.index) == ("base", "txt2img", order.revision, 0)
    assert (header.model, header.model_digest) == (model, stage.model.digest)
    assert header.recipe == stage.recipe
    assert header.attention == order.spec.labeling.attention
    assert header.classes == tuple(order.spec.classes)
    assert [row.sample for row in rows] == list(Expansion(order.spec).samples_of(stage.recipe))
    assert {row.do for row in rows} == {Need.DRAW}


def test_a_shard_is_read_as_it_was_written(model: str, tmp_path: Path) -> None:
    order, store = an_order(model), FolderStore(tmp_path / "store")
    plan(order, store)
    [(header, rows)] = planned_shards(order, store)
    mixed = [ShardRow(row.sample, need) for row, need in zip(rows, Need, strict=False)]

    store.write("copy", encode_shard(header, (row.to_line() for row in mixed)))

    assert read_shard(store, "copy") == (header, mixed)


def test_equal_shards_are_equal_bytes(model: str, tmp_path: Path) -> None:
    order, store = an_order(model), FolderStore(tmp_path / "store")
    plan(order, store)
    [(header, rows)] = planned_shards(order, store)

    one, other = (encode_shard(header, [row.to_line() for row in rows]) for _ in range(2))

    assert one == other
    assert decode_shard(one) == (header, rows)


@pytest.mark.parametrize("data", [b"", b"not gzip", b"\x1f\x8b\x08"])
def test_a_broken_shard_is_named(tmp_path: Path, data: bytes) -> None:
    store = FolderStore(tmp_path)
    store.write("plans/r/base/00000.jsonl.gz", data)

    with pytest.raises(BadShard, match="plans/r/base/00000.jsonl.gz: the shard cannot be read"):
        read_shard(store, "plans/r/base/00000.jsonl.gz")


@pytest.mark.parametrize("number", ["1" + "0" * 400, "123456789012345678901"])
def test_a_number_of_more_than_64_bits_is_named(model: str, tmp_path: Path, number: str) -> None:
    order, store = an_order(model), FolderStore(tmp_path / "store")
    plan(order, store)
    [(header, _)] = planned_shards(order, store)
    line = json.dumps({**header.to_json(), "agreement": 0}).replace('"agreement": 0', f'"agreement": {number}')

    with pytest.raises(BadShard, match=f"a number of {len(number)} digits"):
        decode_shard(gzip.compress(line.encode()))


def test_a_missing_shard_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="has no plans/r/base/00007.jsonl.gz"):
        read_shard(FolderStore(tmp_path), "plans/r/base/00007.jsonl.gz")
