"""Trainings of a few steps, for tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from diffugen_generator.families.unet.components import Components, load
from diffugen_generator.families.unet.token_model import UNetTokenModel
from diffugen_generator.inversion.images import TrainingImage
from diffugen_generator.inversion.settings import TrainingSettings
from diffugen_generator.models.resolve import resolve
from tests.generator.pipelines import write_shape

CPU = torch.device("cpu")
TOKEN = "<piano>"
SETTINGS = TrainingSettings(
    TOKEN, "ball", templates=("a {}", "a red {}"), steps=12, learning_rate=0.05, batch=2, width=64, height=64
)


def settings(**changes: Any) -> TrainingSettings:
    return replace(SETTINGS, **changes)


def some_images(count: int = 3) -> list[TrainingImage]:
    rng = np.random.default_rng(5)
    base = rng.integers(0, 255, (1, 64, 64, 3))
    noisy = np.clip(base + rng.integers(-20, 20, (count, 64, 64, 3)), 0, 255).astype(np.uint8)
    return [TrainingImage(f"{number}.png", image) for number, image in enumerate(noisy)]


def write_images(folder: Path, count: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for image in some_images(count):
        Image.fromarray(image.pixels).save(folder / image.name)
    return folder


def components_of(folder: Path, shape: str = "sd1") -> Components:
    return load(resolve(str(write_shape(folder / shape, shape))), CPU)


def a_model(components: Components, settings: TrainingSettings = SETTINGS) -> UNetTokenModel:
    return UNetTokenModel(components, settings.token, settings.initializer, settings.vectors, field="spec")


def numbers_of(components: Components) -> dict[str, torch.Tensor]:
    """Return copies of all parameters of a model."""
    networks = {f"encoder{n}": each.network for n, each in enumerate(components.encoders)}
    networks |= {"unet": components.unet, "vae": components.vae}
    return {
        f"{part}.{name}": tensor.clone()
        for part, network in networks.items()
        for name, tensor in network.state_dict().items()
    }
