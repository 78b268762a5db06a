"""Measures how often images show a held-out object: a color and shape for which the built-in model has no word.

The color oracle (`diffugen_generator.builtin_shapes.oracle`) finds the objects and their shape.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from diffugen_generator.builtin_shapes import oracle
from diffugen_generator.diffusion.drawing import Drawer, DrawingSettings, DrawRequest
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.families.model import DiffusionModel
from diffugen_generator.inversion.images import TrainingImage
from generator.training import scenes

COLOR: Final = "purple"
SHAPE: Final = "star"
INITIALIZER: Final = "star"
_DRAWING: Final = DrawingSettings(width=scenes.SIZE, height=scenes.SIZE, steps=20, guidance=3.0)
_SEED: Final = 7000


def example_images(count: int, seed: int) -> list[TrainingImage]:
    """Return drawn scenes with one object, a purple star; the model was not trained on these scenes."""
    rng = np.random.default_rng(seed)
    found: list[TrainingImage] = []
    while len(found) < count:
        drawn = scenes.draw(128, rng, two=0.0)
        for index in range(128):
            if scenes.words_of(drawn, index).objects == ((COLOR, SHAPE),) and len(found) < count:
                found.append(TrainingImage(f"{len(found)}.png", drawn.images[index]))
    return found


def presence(model: DiffusionModel, word: str, count: int) -> float:
    """Return the share of `count` images of `a WORD on BACKGROUND` that show one purple star and nothing else."""
    backgrounds = list(scenes.BACKGROUNDS)
    drawer = Drawer(model, TextStates(model))
    shown = 0
    for start in range(0, count, 16):
        requests = [
            DrawRequest(f"a {word} on {backgrounds[number % len(backgrounds)]}", _SEED + number)
            for number in range(start, min(start + 16, count))
        ]
        for image in drawer.decode(drawer.sample(requests, _DRAWING)):
            objects = oracle.objects_of(image)
            shown += len(objects) == 1 and objects[0].color == COLOR and oracle.outline_of(objects[0].mask) == SHAPE
    return shown / count
