"""Models for the tests: a tiny pipeline of random weights, written here, and the built-in model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.models.resolve import builtin_names, resolve

START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = ("a", "and", "on", "ball", "red", "star", "blue", "snow", "traffic", "light")
MAX_TOKENS = 20


def write_pipeline(folder: Path, *, sample_size: int = 16, channels: int = 4) -> Path:
    """Write a pipeline of random weights: latents of 1/4, attention at both levels of the UNet, 20 tokens.

    With 9 input channels its UNet is an inpainting UNet.
    """
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    tokenizer = _tokenizer()
    unet = UNet2DConditionModel(
        sample_size=sample_size,
        in_channels=channels,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        norm_num_groups=4,
        cross_attention_dim=32,
        attention_head_dim=2,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        norm_num_groups=1,
        sample_size=64,
    )
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    pipeline: Any = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, timestep_spacing="trailing", steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def _tokenizer() -> Any:
    """Make a CLIP tokenizer of single characters and `WORDS`; it splits other words into characters."""
    from transformers import CLIPTokenizer

    characters = [chr(code) for code in range(ord("!"), ord("~") + 1) if not chr(code).isupper()]
    vocabulary = dict.fromkeys([*characters, *(f"{c}</w>" for c in characters)])
    merges: Any = []  # pairs; the type annotations of CLIPTokenizer differ
    for word in WORDS:
        built, *rest = [*word[:-1], f"{word[-1]}</w>"]
        for piece in rest:
            if (built, piece) not in merges:
                merges.append((built, piece))
            built += piece
            vocabulary[built] = None
    ids = {token: number for number, token in enumerate([*vocabulary, START, END])}
    return CLIPTokenizer(
        vocab=ids,
        merges=merges,
        unk_token=END,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        model_max_length=MAX_TOKENS,
    )


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny pipeline; don't change it, copy it."""
    return write_pipeline(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_model(tiny_folder: Path) -> ModelFolder:
    """The tiny pipeline, resolved."""
    return resolve(str(tiny_folder))


@pytest.fixture(scope="session")
def large_model(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """A pipeline whose UNet configuration has a sample size of 64 latent cells, like Stable Diffusion's."""
    return resolve(str(write_pipeline(tmp_path_factory.mktemp("models") / "large", sample_size=64)))


@pytest.fixture(scope="session")
def inpainting_model(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """A pipeline whose UNet takes a mask and the surroundings of the mask as inputs."""
    return resolve(str(write_pipeline(tmp_path_factory.mktemp("models") / "inpainting", channels=9)))


@pytest.fixture
def own_model(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny pipeline's folder that a test may change."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "own-model"))


@pytest.fixture(scope="session")
def shapes_model() -> ModelFolder:
    """The model `builtin://shapes`."""
    if "shapes" not in builtin_names():
        pytest.skip("builtin://shapes is not there: train it with `python -m generator.training.train_shapes`")
    return resolve("builtin://shapes")


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    """Use one thread: small networks are fastest with it; on a busy machine, a first thread would wait for a second."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def quick_sample_grids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the sample grids of trainings in two steps: their images are not looked at."""
    monkeypatch.setattr("diffugen_generator.inversion.artifacts._STEPS", 2)
