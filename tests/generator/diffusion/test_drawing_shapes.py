"""Every layout of pipeline draws what the pipelines of diffusers draw, up to rounding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from diffugen_api.plan import SpecError
from diffugen_api.prompt_weights import Piece
from diffugen_generator.diffusion.drawing import DrawingSettings, DrawRequest
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.unet.components import load
from diffugen_generator.models.resolve import resolve
from diffugen_generator.stages.session_cache import SessionCache
from tests.generator.drawers import ImageDrawer
from tests.generator.made import an_order
from tests.generator.pipelines import SHAPES, write_shape

SETTINGS = DrawingSettings(width=96, height=64, steps=3, guidance=5.0, negative="a star")
REQUESTS = [
    DrawRequest("a red ball on snow", 1),
    DrawRequest("a blue star", 2**63 - 1),
    DrawRequest("a ball and a star", 3),
]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("shapes")
    return {shape: write_shape(top / shape, shape) for shape in SHAPES}


def drawer_of(model: ModelFolder) -> ImageDrawer:
    components = load(model, CPU)
    return ImageDrawer(components, TextStates(components))


def our_latents(folder: Path, orders: list[DrawRequest], settings: DrawingSettings) -> torch.Tensor:
    """Draw, without the decoding."""
    drawer: Any = drawer_of(resolve(str(folder)))
    drawer.decode = list
    return torch.stack(drawer.draw(orders, settings))


def their_latents(folder: Path, orders: list[DrawRequest], settings: DrawingSettings, **more: Any) -> torch.Tensor:
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    if "prompt_embeds" not in more:
        more["prompt"] = [order.prompt for order in orders]
        if settings.negative:
            more["negative_prompt"] = [settings.negative] * len(orders)
    if "LatentConsistency" in type(pipeline).__name__:
        more.pop("negative_prompt", None)
    return pipeline(
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance,
        width=settings.width,
        height=settings.height,
        generator=[torch.Generator().manual_seed(order.seed) for order in orders],
        output_type="latent",
        **more,
    ).images


@pytest.mark.parametrize("negative", ["a star", ""])
@pytest.mark.parametrize("guidance", [5.0, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_latents_equal_those_of_diffusers(folders: dict[str, Path], shape: str, guidance: float, negative: str) -> None:
    settings = replace(SETTINGS, guidance=guidance, negative=negative, steps=1 if shape == "turbo" else 3)

    ours = our_latents(folders[shape], REQUESTS, settings)
    theirs = their_latents(folders[shape], REQUESTS, settings)

    assert ours.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", ["sd2", "xl"])
def test_images_equal_those_of_diffusers_in_any_batch(folders: dict[str, Path], shape: str) -> None:
    pipeline = DiffusionPipeline.from_pretrained(folders[shape])
    pipeline.set_progress_bar_config(disable=True)
    drawer = drawer_of(resolve(str(folders[shape])))

    together = drawer.draw(REQUESTS, SETTINGS, batch=5)
    theirs = pipeline(
        [order.prompt for order in REQUESTS],
        negative_prompt=[SETTINGS.negative] * len(REQUESTS),
        num_inference_steps=SETTINGS.steps,
        guidance_scale=SETTINGS.guidance,
        width=SETTINGS.width,
        height=SETTINGS.height,
        generator=[torch.Generator().manual_seed(order.seed) for order in REQUESTS],
        output_type="np",
    ).images

    alone = np.stack([drawer.draw([order], SETTINGS)[0] for order in REQUESTS[::-1]][::-1])
    assert np.abs(np.stack(together).astype(int) - alone).max() <= 2
    assert np.abs(np.stack(together) / 255 - theirs).max() <= 2.5 / 255


def test_weights_and_long_prompts_reach_both_encoders_as_with_compel(folders: dict[str, Path]) -> None:
    compel = pytest.importorskip("compel")
    pipeline = DiffusionPipeline.from_pretrained(folders["xl"])
    theirs = compel.Compel(
        tokenizer=[pipeline.tokenizer, pipeline.tokenizer_2],
        text_encoder=[pipeline.text_encoder, pipeline.text_encoder_2],
        returned_embeddings_type=compel.ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED,
        requires_pooled=[False, True],
        truncate_long_prompts=False,
    )
    texts = TextStates(load(resolve(str(folders["xl"])), CPU))
    long = "a red ball and a blue star on snow " * 4

    for prompt, pieces in (
        ("a (red ball)1.5 on snow", (Piece("a", 1.0), Piece(" red ball", 1.5), Piece(" on snow", 1.0))),
        ("a (red ball)0.5 on snow", (Piece("a", 1.0), Piece(" red ball", 0.5), Piece(" on snow", 1.0))),
        (long, long),
    ):
        states, pooled = theirs(prompt)
        torch.testing.assert_close(texts.of([pieces]), states, atol=1e-4, rtol=1e-4)
        assert texts.pooled([pieces]).shape == pooled.shape


def test_a_model_that_takes_the_guidance_scale_as_input_gets_it(folders: dict[str, Path]) -> None:
    weak, strong = (
        our_latents(folders["lcm"], REQUESTS[:1], replace(SETTINGS, guidance=guidance)) for guidance in (1.0, 8.0)
    )

    assert not torch.allclose(weak, strong, atol=1e-3)


@pytest.mark.parametrize("dtype", ["auto", "float32", "float16", "bfloat16"])
def test_numbers_have_the_requested_type(folders: dict[str, Path], dtype: str) -> None:
    model = resolve(str(folders["xl"]))
    wanted = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(dtype, torch.float32)

    components = load(model, CPU, dtype=dtype)
    (image,) = ImageDrawer(components, TextStates(components)).draw(REQUESTS[:1], SETTINGS)

    assert {network.dtype for network in (components.unet, *(each.network for each in components.encoders))} == {wanted}
    assert components.vae.dtype == (torch.float32 if dtype == "float16" else wanted)  # it overflows in fp16
    (exact,) = drawer_of(model).draw(REQUESTS[:1], SETTINGS)
    assert np.abs(image.astype(int) - exact).mean() < 4


def test_the_environment_sets_type_and_batch_size_in_a_pod() -> None:
    spec = an_order("builtin://shapes", run={"dtype": "float16", "batchSize": 3}).spec

    told = SessionCache.of(spec, device=None, environ={"DIFFUGEN_DTYPE": "bfloat16", "DIFFUGEN_BATCH_SIZE": "7"})
    own = SessionCache.of(spec, device=None, environ={})

    assert (told._dtype, told._batch_size, own._dtype, own._batch_size) == ("bfloat16", 7, "float16", 3)
    with pytest.raises(SpecError, match="DIFFUGEN_BATCH_SIZE=0: .* a number from 1 to 256"):
        SessionCache.of(spec, device=None, environ={"DIFFUGEN_BATCH_SIZE": "0"})
