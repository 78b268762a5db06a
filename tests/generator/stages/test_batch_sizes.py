"""The number of images per batch if memory is short."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from diffugen_generator.diffusion.drawing import Drawer
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.labeling.attention.posthoc import PosthocAttention
from diffugen_generator.stages.batch_sizes import AdaptiveBatch
from diffugen_generator.stages.model_session import ENV_THREADS
from diffugen_generator.stages.run_shard import run_shard
from diffugen_generator.store.folder import FolderStore
from tests.generator.stages.test_run_shard import shard_of, spec_of


class Card:
    """A device with memory for `most` images at once, padding included."""

    def __init__(self, most: int, adaptive: AdaptiveBatch) -> None:
        self.most, self.adaptive = most, adaptive
        self.tried: list[int] = []

    def work(self, some: Sequence[int]) -> list[int]:
        self.tried.append(max(len(some), self.adaptive.padded_to or 0))
        if self.tried[-1] > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [each * each for each in some]


def test_a_batch_that_fits_is_done_at_once() -> None:
    adaptive = AdaptiveBatch("draw", padded_to=8)
    card = Card(8, adaptive)

    assert adaptive.each(card.work, range(5)) == [0, 1, 4, 9, 16]
    assert adaptive.each(card.work, []) == []

    assert card.tried == [8]


@pytest.mark.parametrize(
    ("padded_to", "tried"),
    [
        (None, [10, 5, 3, 3, 3, 1, 3, 3, 3, 1]),
        (16, [16, 8, 4, *[2] * 10]),
    ],
)
def test_the_batch_size_that_fits_is_found_once(
    padded_to: int | None, tried: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    adaptive = AdaptiveBatch("draw", padded_to=padded_to)
    card = Card(3, adaptive)

    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert adaptive.each(card.work, range(10)) == [each * each for each in range(10)]

    assert card.tried == tried
    assert len(caplog.messages) == sum(each > 3 for each in tried)
    assert adaptive.padded_to == (padded_to and 2)


def test_memory_for_less_than_one_image_is_an_error() -> None:
    adaptive = AdaptiveBatch("draw", padded_to=4)
    card = Card(0, adaptive)

    with pytest.raises(torch.OutOfMemoryError):
        adaptive.each(card.work, range(3))

    assert card.tried == [4, 2, 1]


def test_a_batch_that_memory_does_not_hold_is_halved_for_the_rest_of_the_shard(
    tiny_model: ModelFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv(ENV_THREADS, "1")  # one batch at a time
    sample, look = Drawer.sample, PosthocAttention.look
    drawing: list[int] = []
    looking: list[int] = []

    def sample_at_most_two(self: Drawer, orders: Any, settings: Any, *, batch: Any = None, observer: Any = None) -> Any:
        drawing.append(len(orders))
        if len(orders) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return sample(self, orders, settings, batch=batch, observer=observer)

    def look_at_most_three(self: PosthocAttention, seen: Any, *, batch: Any = None) -> Any:
        looking.append(len(seen))
        if len(seen) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return look(self, seen, batch=batch)

    monkeypatch.setattr(Drawer, "sample", sample_at_most_two)
    monkeypatch.setattr(PosthocAttention, "look", look_at_most_three)

    counts = run_shard(*shard_of(spec_of(tiny_model), tiny_model), FolderStore(tmp_path), batch_size=4, device="cpu")

    assert drawing == [4, 2, 2, 2]  # for a batch of four and a batch of two
    assert looking == [4, 2, 2, 2]
    assert caplog.messages == [
        "memory does not reach to draw 4 images at once; 2 from now on",
        "memory does not reach to look at 4 images at once; 2 from now on",
    ]
    assert (counts.drawn, counts.labelled) == (6, 6)
