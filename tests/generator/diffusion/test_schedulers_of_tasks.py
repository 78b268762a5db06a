"""For every generation, task and scheduler, images are those of diffusers' own pipeline with the same seed.

A source image is encoded here without chance (the mode), and in diffusers with it, so diffusers gets these latents.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import diffusers
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from diffugen_api.v1alpha1 import Scheduler
from diffugen_generator.diffusion.drawing import Drawer, DrawingSettings, DrawRequest
from diffugen_generator.diffusion.masks import SourceImage
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.families.unet.components import Components, load
from diffugen_generator.families.unet.prediction import GRAY
from diffugen_generator.families.unet.samplers import NAMED
from diffugen_generator.models.resolve import resolve
from tests.generator.conftest import write_pipeline
from tests.generator.pipelines import write_shape

SIDE = 32
SETTINGS = DrawingSettings(width=SIDE, height=SIDE, steps=4, guidance=3.0, negative="a star", strength=0.6)
PROMPTS = {"a red ball on snow": 1, "a blue star": 2**63 - 1}
SHAPES = ("sd1", "sd2", "xl")
TASKS = ("txt2img", "img2img", "inpaint")
CASES = [(shape, task, name) for shape in SHAPES for task in TASKS for name in get_args(Scheduler)]
CASES += [("inpainting", "inpaint", name) for name in get_args(Scheduler)]
INPAINTING = ("sd2", "xl")
"""Further shapes with an inpainting UNet: with v-prediction, and with two text encoders and the size input."""
CASES += [(f"{shape}-inpainting", "inpaint", name) for shape in INPAINTING for name in ("ddim", "euler_a", "unipc")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("tasks")
    made = {shape: write_shape(top / shape, shape) for shape in SHAPES}
    for shape in INPAINTING:
        made[f"{shape}-inpainting"] = write_shape(top / f"{shape}-inpainting", shape, channels=9)
    return made | {"inpainting": write_pipeline(top / "inpainting", channels=9)}


@pytest.fixture(scope="module")
def source() -> NDArray[np.uint8]:
    """Smooth colors."""
    rows, columns = np.mgrid[:SIDE, :SIDE] * 8
    return np.stack([rows, columns, 255 - rows], axis=2).astype(np.uint8)


@pytest.fixture(scope="module")
def mask() -> NDArray[np.float32]:
    """Whole latent cells: diffusers takes one pixel of each cell, and a cell with any masked pixel is drawn here."""
    mask = np.zeros((SIDE, SIDE), np.float32)
    mask[8:24, 4:20] = 1
    return mask


@cache
def loaded(folder: Path) -> tuple[Components, Any]:
    """Return the networks of a folder, and the pipeline of diffusers with the same ones."""
    pipeline: Any = diffusers.DiffusionPipeline.from_pretrained(folder)
    return load(resolve(str(folder)), torch.device("cpu")), pipeline


def ours(components: Components, requests: list[DrawRequest], settings: DrawingSettings) -> NDArray[np.float64]:
    drawer = Drawer(components, TextStates(components))
    return np.stack(drawer.decode(drawer.sample(requests, settings))) / 255


def theirs(pipeline: Any, task: str, given: dict[str, Any], settings: DrawingSettings) -> Any:
    xl = "XL" if "XL" in type(pipeline).__name__ else ""
    suffix = {"txt2img": "", "img2img": "Img2Img", "inpaint": "Inpaint"}[task]
    kind = getattr(diffusers, f"StableDiffusion{xl}{suffix}Pipeline")
    unchecked = {} if xl else {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    drawer = kind(**{name: pipeline.components[name] for name in pipeline.components if name in PARTS}, **unchecked)
    drawer.set_progress_bar_config(disable=True)
    return drawer(
        list(PROMPTS),
        negative_prompt=[settings.negative] * len(PROMPTS),
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance,
        generator=[torch.Generator().manual_seed(seed) for seed in PROMPTS.values()],
        output_type="np",
        **given,
    ).images


PARTS = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "scheduler")


@pytest.mark.parametrize(("shape", "task", "name"), CASES)
def test_images_of_a_task_equal_those_of_diffusers(
    folders: dict[str, Path],
    source: NDArray[np.uint8],
    mask: NDArray[np.float32],
    shape: str,
    task: str,
    name: str,
) -> None:
    components, pipeline = loaded(folders[shape])
    kind, changes = NAMED[name]
    own = components.scheduler.config
    components = replace(components, scheduler=getattr(diffusers, kind).from_config(own, **changes))
    pipeline.scheduler = getattr(diffusers, kind).from_config(own, **changes)
    given: dict[str, Any] = {"width": SIDE, "height": SIDE} if task != "img2img" else {}
    image = None
    if task != "txt2img":
        image = SourceImage(source, mask if task == "inpaint" else None)
        given |= {"image": latents_of(components, source), "strength": SETTINGS.strength}
    if task == "inpaint":
        hidden = np.where(mask[:, :, None] > 0, np.uint8(GRAY), source)
        given |= {"mask_image": torch.from_numpy(mask)[None, None].repeat(len(PROMPTS), 1, 1, 1)}
        given |= {"masked_image_latents": latents_of(components, hidden)}

    drawn = ours(components, [DrawRequest(prompt, seed, image) for prompt, seed in PROMPTS.items()], SETTINGS)

    assert drawn.std() > 0.02
    assert np.abs(drawn - theirs(pipeline, task, given, SETTINGS)).max() <= 2.5 / 255


def test_another_seed_gives_another_image(folders: dict[str, Path]) -> None:
    components, pipeline = loaded(folders["sd1"])
    drawn = ours(components, [DrawRequest(prompt, seed ^ 1) for prompt, seed in PROMPTS.items()], SETTINGS)

    other = theirs(pipeline, "txt2img", {"width": SIDE, "height": SIDE}, SETTINGS)

    assert np.abs(drawn - other).max() > 10 / 255


def latents_of(components: Components, image: NDArray[np.uint8]) -> torch.Tensor:
    return components.encode_images([image] * len(PROMPTS)).clone()
