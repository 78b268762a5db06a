"""Measures how well a model trained on labels works: the same small segmenter, on the same images, with other labels.

All labelers have the same images as the oracle. The score is the mean IoU over the classes on drawn scenes with exact
masks. None of these scenes is a generated image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from benchmarks.labels.drawing import Drawn, Mask
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from generator.training import scenes

EPOCHS = 12
BATCH = 32
RATE = 4e-3
SCENES = 500
IGNORE = 255


def score(
    drawn: Sequence[Drawn], labelled: Callable[[Drawn], Mapping[str, Mask]], *, seed: int = 0, epochs: int = EPOCHS
) -> float:
    """Train on `drawn` with a labeler's masks; return the mean IoU on `SCENES` drawn scenes."""
    rasters = np.stack([each.image for each in drawn])
    targets = np.stack([target_of(labelled(each), each.image.shape[:2]) for each in drawn])
    network = train(rasters, targets, seed=seed, epochs=epochs)
    truth = scenes.draw(SCENES, np.random.default_rng(77), two=0.5)
    exact = np.zeros(truth.images.shape[:3], np.int64)
    for slot in range(2):
        exact = np.where(truth.masks[:, slot], truth.classes[:, slot, None, None] + 1, exact)
    return mean_iou(predict(network, truth.images), exact)


def target_of(masks: Mapping[str, Mask], size: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the class of each pixel, 0 for background: [height, width]."""
    target = np.zeros(size, np.int64)
    for name, mask in masks.items():
        target[mask] = scenes.CLASSES.index(name) + 1
    return target


class Segmenter(nn.Module):
    """An encoder and decoder of four levels with skips: 0.2 M parameters."""

    def __init__(self, classes: int, width: int = 16) -> None:
        super().__init__()
        sides = [width, 2 * width, 4 * width, 4 * width]
        self.down = nn.ModuleList([_block(i, o) for i, o in zip([3, *sides[:-1]], sides, strict=True)])
        self.up = nn.ModuleList([_block(a + b, b) for a, b in zip(sides[:0:-1], sides[-2::-1], strict=True)])
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, rasters: torch.Tensor) -> torch.Tensor:
        """Return scores [b, classes, h, w] for images [b, 3, h, w] in -1..1."""
        kept: list[torch.Tensor] = []
        here = rasters
        for level, block in enumerate(self.down):
            here = block(functional.max_pool2d(here, 2) if level else here)
            kept.append(here)
        for block, skip in zip(self.up, kept[-2::-1], strict=True):
            here = block(torch.cat([functional.interpolate(here, scale_factor=2.0), skip], dim=1))
        scores: torch.Tensor = self.head(here)
        return scores


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(),
        nn.Conv2d(after, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(),
    )  # fmt: skip


def train(rasters: NDArray[np.uint8], targets: NDArray[np.int64], *, seed: int, epochs: int = EPOCHS) -> Segmenter:
    """Train from nothing: AdamW, one cycle; images are not mirrored, as the classes' looks are not symmetric."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = Segmenter(len(scenes.CLASSES) + 1)
    steps = epochs * (len(rasters) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    network.train()
    for _ in range(epochs):
        order = rng.permutation(len(rasters))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            some = order[start : start + BATCH]
            batch, target = as_input(rasters[some]), torch.from_numpy(targets[some])
            loss = functional.cross_entropy(network(batch), target, ignore_index=IGNORE)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


@torch.inference_mode()
def predict(network: Segmenter, rasters: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the class of each pixel [n, h, w]."""
    parts = [network(as_input(rasters[start : start + 100])).argmax(dim=1) for start in range(0, len(rasters), 100)]
    return np.asarray(torch.cat(parts).numpy())


def as_input(rasters: NDArray[np.uint8]) -> torch.Tensor:
    """Return images [n, h, w, 3] as [n, 3, h, w] in -1..1."""
    return torch.from_numpy(rasters).permute(0, 3, 1, 2).float() / 127.5 - 1


def mean_iou(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Return the mean over the classes, background left out, of intersection over union over all images."""
    values = [
        ((found == c) & (truth == c)).sum() / max(1, ((found == c) | (truth == c)).sum())
        for c in range(1, len(scenes.CLASSES) + 1)
    ]
    return float(np.mean(values))
