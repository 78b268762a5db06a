"""The metrics of a stage's pod, scraped as Prometheus scrapes them."""

from __future__ import annotations

import sys
import types
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from diffugen_api.contract import ShardCounts
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.stages.run_shard import run_shard
from diffugen_generator.store.folder import FolderStore
from diffugen_generator.telemetry import metrics
from diffugen_generator.telemetry.metrics import ShardMetrics
from diffugen_generator.telemetry.timings import Measures, Part
from tests.generator.stages.test_run_shard import shard_of, spec_of

ADDRESS, PORT = "127.0.0.79", 19108

Page = dict[tuple[str, str], float]
"""Values by metric name and the value of its one label, or ""."""


def scraped() -> Page:
    with urllib.request.urlopen(f"http://{ADDRESS}:{PORT}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {(s.name, "".join(s.labels.values())): s.value for family in families for s in family.samples}


def test_a_scrape_has_samples_speed_seconds_and_queue(tiny_model: ModelFolder, tmp_path: Path) -> None:
    measures = Measures()
    served = ShardMetrics(measures)
    served.serve(ADDRESS, PORT)
    under_way: list[Page] = []

    def on_progress(counts: ShardCounts) -> None:
        served.update(counts)
        under_way.append(scraped())

    shard = shard_of(spec_of(tiny_model), tiny_model)
    run_shard(*shard, FolderStore(tmp_path), on_progress=on_progress, batch_size=2, device="cpu", measures=measures)

    last = scraped()
    states = {label: last[name, label] for name, label in last if name == "diffugen_shard_samples_by_state"}
    assert states == {"drawn": 6, "seen": 6, "labelled": 6, "reused": 0, "skipped": 0, "missing": 0}
    assert (last["diffugen_shard_samples", ""], last["diffugen_shard_samples_done", ""]) == (6, 6)
    assert last["diffugen_images_drawn_total", ""] == 6
    assert last["diffugen_images_per_second", ""] > 0
    seconds = {label: last[name, label] for name, label in last if name == "diffugen_part_seconds_total"}
    assert set(seconds) == {"load", "draw", "look", "decide", "encode", "upload"}
    assert all(value > 0 for value in seconds.values())
    assert max(page["diffugen_queue_depth", ""] for page in under_way) > 0
    assert last["diffugen_queue_depth", ""] == 0
    assert not any(name == "diffugen_gpu_memory_bytes" for name, _ in last)


def test_the_memory_of_a_gpu_in_use_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = types.SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: True,
        current_device=lambda: 0,
        memory_allocated=lambda: 3,
        memory_reserved=lambda: 5,
        max_memory_reserved=lambda: 7,
        get_device_properties=lambda _: types.SimpleNamespace(total_memory=11),
    )
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=gpu))

    assert metrics.gpu_memory() == {"allocated": 3, "reserved": 5, "peak": 7, "total": 11}
    [held] = [f for f in ShardMetrics().registry.collect() if f.name == "diffugen_gpu_memory_bytes"]
    assert {sample.labels["kind"]: sample.value for sample in held.samples}["total"] == 11


def test_seconds_are_summed_by_part_even_if_a_part_fails() -> None:
    now = iter([0.0, 2.0, 5.0, 6.5])
    measures = Measures(clock=lambda: next(now))

    with measures.timed(Part.UPLOAD):
        pass
    with pytest.raises(ConnectionError), measures.timed(Part.UPLOAD):
        raise ConnectionError

    assert measures.seconds[Part.UPLOAD] == 3.5
    assert measures.seconds[Part.DRAW] == 0
