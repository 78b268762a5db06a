"""How a shard is processed: the model draws while the last batch is stored, memory is bounded, the model is kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from diffugen_api.orders import WorkOrder
from diffugen_api.plan import Sample, revision_of
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.labeling.findings import Findings
from diffugen_generator.planning.plan import plan
from diffugen_generator.samples import image_files
from diffugen_generator.samples.recipes import DrawnWith
from diffugen_generator.samples.shards import ShardHeader
from diffugen_generator.stages.run_shard import WAITING, run_shard
from diffugen_generator.stages.sample_image import SampleImage
from diffugen_generator.stages.session_cache import SessionCache
from diffugen_generator.store.folder import FolderStore
from diffugen_generator.store.opening import open_folder
from diffugen_generator.store.protocol import BINARY
from diffugen_generator.telemetry.timings import Measures
from tests.generator.stages.test_run_shard import contents, shard_of, spec_of

PAGE = os.sysconf("SC_PAGE_SIZE")


class Sketcher:
    """A session whose images need memory and no computation."""

    batch = 4
    drawn_with = DrawnWith("float32", "cpu")

    def __init__(self, side: int = 64) -> None:
        self.side = side
        self.draws = 0
        self.drawing_again = Event()

    def draw(self, samples: Sequence[Sample], sources: object = ()) -> list[SampleImage]:
        self.draws += 1
        if self.draws > 1:
            self.drawing_again.set()
        size = (self.side, self.side, 3)
        return [SampleImage(np.full(size, sample.seed % 251, np.uint8)) for sample in samples]

    def look(self, samples: Sequence[Sample], images: object, before: object = ()) -> list[Findings]:
        nothing = AttentionMaps((), (), np.zeros((0, 16, 16), np.uint8))
        return [Findings(attention=nothing) for _ in samples]


class OneSession(SessionCache):
    def __init__(self, sketcher: Sketcher) -> None:
        super().__init__()
        self.sketcher = sketcher

    def open(self, header: ShardHeader, on_loading: object = None, *, store: object = None) -> Sketcher:  # type: ignore[override]
        return self.sketcher


def test_the_next_batch_is_drawn_while_the_last_is_stored(tiny_model: ModelFolder, tmp_path: Path) -> None:
    sketcher = Sketcher()

    class Waiting(FolderStore):
        def write(self, key: str, data: bytes, content_type: str = BINARY) -> None:
            if not sketcher.drawing_again.wait(30):
                raise AssertionError("nothing was drawn while the first batch waited for the store")
            super().write(key, data, content_type)

    counts = run_shard(*shard_of(spec_of(tiny_model), tiny_model), Waiting(tmp_path), sessions=OneSession(sketcher))

    assert (counts.drawn, sketcher.draws) == (6, 2)


def test_memory_does_not_grow_with_the_shard_even_if_the_store_is_slow(tiny_model: ModelFolder, tmp_path: Path) -> None:
    side, count = 512, 600  # 470 MB of pixels
    image = {"width": side, "height": side}
    prompts = {"templates": ["a ball"], "samplesPerPrompt": count}
    shard = shard_of(spec_of(tiny_model, image=image, prompts=prompts), tiny_model)
    measures = Measures()
    resident: list[int] = []
    queued: list[int] = []

    class Slow(FolderStore):
        def write(self, key: str, data: bytes, content_type: str = BINARY) -> None:
            time.sleep(0.002)
            resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * PAGE)
            queued.append(measures.queued)

    counts = run_shard(*shard, Slow(tmp_path), sessions=OneSession(Sketcher(side)), measures=measures)

    assert counts.drawn == count
    assert max(queued) <= WAITING
    assert max(queued) > WAITING // 2  # the time was spent waiting for the store
    assert max(resident) - resident[0] < 150e6


def test_one_model_serves_all_shards_with_the_same_settings(tiny_model: ModelFolder, tmp_path: Path) -> None:
    header, rows = shard_of(spec_of(tiny_model), tiny_model)
    other, _ = shard_of(
        spec_of(tiny_model, classes=[{"name": "ball"}, {"name": "star", "synonyms": ["sun"]}]), tiny_model
    )
    sessions = SessionCache(device="cpu", batch_size=3)
    loaded: list[str] = []

    for shard in (header, replace(header, index=1), other):
        some = rows[:3] if shard.index == 0 else rows[3:]
        run_shard(shard, some, FolderStore(tmp_path), sessions=sessions, on_loading=lambda: loaded.append("model"))

    assert len(loaded) == 2  # the second load is for the third shard, whose words differ


@pytest.mark.parametrize("batch", [1, 4])
def test_an_image_is_the_same_in_any_batch_shard_and_order(tiny_model: ModelFolder, tmp_path: Path, batch: int) -> None:
    header, rows = shard_of(spec_of(tiny_model), tiny_model)
    whole, apart = FolderStore(tmp_path / "whole"), FolderStore(tmp_path / "apart")
    run_shard(header, rows, whole, device="cpu", batch_size=6)

    sessions = SessionCache(device="cpu", batch_size=batch)
    for index, some in enumerate((rows[4:], rows[3::-1])):
        run_shard(replace(header, index=index), some, apart, sessions=sessions)

    drawn = {key: file for key, file in contents(whole).items() if key.endswith(".png")}
    assert len(drawn) == 6
    for key, file in drawn.items():
        difference = image_files.decode(file).astype(int) - image_files.decode(apart.read(key))
        assert np.abs(difference).max() <= 2


def test_sigterm_finishes_the_batch_and_exits_75_within_the_grace_period(
    tiny_model: ModelFolder, tmp_path: Path
) -> None:
    prompts = {"templates": ["a ball"], "samplesPerPrompt": 4000}
    spec = spec_of(tiny_model, prompts=prompts, run={"samplesPerShard": 4000})
    order = WorkOrder(namespace="vision", name="shapes", revision=revision_of(spec), spec=spec)
    file, last_word = tmp_path / "order.json", tmp_path / "last-word"
    file.write_text(order.dumps())
    environ = {"DIFFUGEN_ORDER": str(file), "DIFFUGEN_TERMINATION_LOG": str(last_word), "JOB_COMPLETION_INDEX": "0"}
    store = open_folder(tmp_path / "store", "vision", "shapes")
    plan(order, store)

    command = [sys.executable, "-m", "diffugen_generator", "worker", "stage", "--stage", "base"]
    command += ["--store", str(tmp_path / "store")]
    with subprocess.Popen(command, env=os.environ | environ, stderr=subprocess.PIPE, text=True) as pod:
        deadline = time.monotonic() + 120
        while not any(store.list("labels/")) and time.monotonic() < deadline and pod.poll() is None:
            time.sleep(0.1)
        asked = time.monotonic()
        pod.send_signal(signal.SIGTERM)
        _, said = pod.communicate(timeout=60)

    assert pod.returncode == 75, said
    assert time.monotonic() - asked < 30  # the default of Kubernetes
    assert "loading models" in said
    assert json.loads(last_word.read_text())["reason"] == "Interrupted"
    kinds = [len(list(store.list(f"{kind}/"))) for kind in ("samples", "evidence", "labels")]
    assert kinds == [2 * kinds[2], kinds[2], kinds[2]]  # the batch that had begun is complete
    assert 0 < kinds[2] < 4000
