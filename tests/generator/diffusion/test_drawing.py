"""Drawing: the same recipe gives the same image, in any batch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from diffugen_api.plan import SpecError
from diffugen_api.v1alpha1 import Scheduler
from diffugen_generator.diffusion.drawing import DrawingSettings, DrawRequest
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.unet.components import Components, load
from diffugen_generator.models.resolve import resolve
from tests.generator.drawers import ImageDrawer

SETTINGS = DrawingSettings(width=64, height=64, steps=3, guidance=3.0, negative="a star")
REQUESTS = [
    DrawRequest("a red ball on snow", 1),
    DrawRequest("a blue star", 2**63 - 1),
    DrawRequest("a red ball on snow", 3),
    DrawRequest("a ball and a star", 0),
]


def drawer_of(model: ModelFolder, scheduler: str | None = None) -> ImageDrawer:
    components = load(model, torch.device("cpu"), scheduler)
    return ImageDrawer(components, TextStates(components))


def apart(some: Sequence[NDArray[np.uint8]], others: Sequence[NDArray[np.uint8]]) -> int:
    """Return the greatest difference of any channel of any pixel, in 1/255."""
    return max(int(np.abs(a.astype(int) - b).max()) for a, b in zip(some, others, strict=True))


@pytest.fixture(scope="module")
def drawer(tiny_model: ModelFolder) -> ImageDrawer:
    return drawer_of(tiny_model)


@pytest.fixture(scope="module")
def drawn(drawer: ImageDrawer) -> list[NDArray[np.uint8]]:
    return drawer.draw(REQUESTS, SETTINGS)


def test_images_differ_by_prompt_and_by_seed(drawn: list[NDArray[np.uint8]]) -> None:
    assert {image.shape for image in drawn} == {(64, 64, 3)}
    assert all(apart([drawn[i]], [drawn[j]]) > 20 for i in range(4) for j in range(i))


def test_an_image_does_not_depend_on_its_batch(drawer: ImageDrawer, drawn: list[NDArray[np.uint8]]) -> None:
    alone = [drawer.draw([order], SETTINGS)[0] for order in REQUESTS]
    backwards = drawer.draw(REQUESTS[::-1], SETTINGS)[::-1]
    padded = drawer.draw(REQUESTS[:3], SETTINGS, batch=5)

    assert apart(drawn, alone) <= 2
    assert apart(drawn, backwards) <= 2
    assert apart(drawn[:3], padded) <= 2


def test_images_equal_those_of_the_diffusers_pipeline(tiny_model: ModelFolder, drawn: list[NDArray[np.uint8]]) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model.path)
    pipeline.set_progress_bar_config(disable=True)

    theirs = pipeline(
        [order.prompt for order in REQUESTS],
        negative_prompt=[SETTINGS.negative] * len(REQUESTS),
        num_inference_steps=SETTINGS.steps,
        guidance_scale=SETTINGS.guidance,
        generator=[torch.Generator().manual_seed(order.seed) for order in REQUESTS],
        output_type="np",
    ).images

    assert apart(drawn, list((theirs * 255).round().astype(np.uint8))) <= 2


LONG = "a red ball and a blue star on snow " * 4


def test_texts_of_different_lengths_in_one_batch_do_not_change_each_other(drawer: ImageDrawer) -> None:
    orders = [DrawRequest("a ball", 1), DrawRequest(LONG, 2), DrawRequest("a star", 3), DrawRequest(LONG * 2, 4)]

    together = drawer.draw(orders, SETTINGS, batch=3)

    assert apart(together, [drawer.draw([order], SETTINGS)[0] for order in orders]) <= 2


def test_words_beyond_the_first_window_are_read(drawer: ImageDrawer) -> None:
    negative = replace(SETTINGS, negative=LONG)

    assert (
        apart(drawer.draw([DrawRequest(f"{LONG} light", 1)], SETTINGS), drawer.draw([DrawRequest(LONG, 1)], SETTINGS))
        > 2
    )
    assert apart(drawer.draw(REQUESTS, negative), drawer.draw(REQUESTS, replace(negative, negative=f"{LONG} ball"))) > 2


def test_a_shorter_text_is_padded_with_the_states_of_the_empty_text(tiny_model: ModelFolder) -> None:
    texts = TextStates(load(tiny_model, torch.device("cpu")))

    states = texts.of(["a ball", LONG])  # 20 tokens, and 36 words: 2 windows

    assert states.shape == (2, 40, 32)
    assert torch.equal(states[0], torch.cat([texts.of(["a ball"])[0], texts.of([""])[0]]))


def test_guidance_of_one_does_not_use_the_negative_prompt(drawer: ImageDrawer) -> None:
    plain = DrawingSettings(width=64, height=64, steps=2, guidance=1.0)
    ignored = DrawingSettings(width=64, height=64, steps=2, guidance=1.0, negative="a star")

    assert apart(drawer.draw(REQUESTS[:1], plain), drawer.draw(REQUESTS[:1], ignored)) == 0


def test_sizes_do_not_have_to_be_square(drawer: ImageDrawer) -> None:
    (image,) = drawer.draw(REQUESTS[:1], DrawingSettings(width=96, height=72, steps=2, guidance=3.0))

    assert image.shape == (72, 96, 3)


@pytest.mark.parametrize(
    "scheduler", ["EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler", "PNDMScheduler", "DDPMScheduler"]
)
def test_images_of_a_batch_are_independent_with_every_scheduler(own_model: Path, scheduler: str) -> None:
    config = own_model / "scheduler" / "scheduler_config.json"
    changes = {"_class_name": scheduler, "skip_prk_steps": True}  # as in the scheduler of Stable Diffusion
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    drawer = drawer_of(resolve(str(own_model)))

    together = drawer.draw(REQUESTS[:3], SETTINGS)

    assert apart(together, [drawer.draw([order], SETTINGS)[0] for order in REQUESTS[:3]]) <= 2


@pytest.mark.parametrize("name", get_args(Scheduler))
def test_images_of_a_batch_are_independent_with_every_named_scheduler(
    tiny_model: ModelFolder, drawn: list[NDArray[np.uint8]], name: str
) -> None:
    drawer = drawer_of(tiny_model, name)
    settings = replace(SETTINGS, steps=5)

    together = drawer.draw(REQUESTS[:3], settings)

    assert apart(together, [drawer.draw([order], settings)[0] for order in REQUESTS[:3]]) <= 2
    assert apart(together, drawer.draw(REQUESTS[2::-1], settings)[::-1]) <= 2


def test_a_named_scheduler_keeps_the_models_noise_schedule(own_model: Path) -> None:
    config = own_model / "scheduler" / "scheduler_config.json"
    changes = {"prediction_type": "v_prediction", "beta_end": 0.015, "use_karras_sigmas": True}
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))

    made = load(resolve(str(own_model)), torch.device("cpu"), "dpmsolver++").scheduler

    assert type(made).__name__ == "DPMSolverMultistepScheduler"
    assert (made.config.prediction_type, made.config.beta_end) == ("v_prediction", 0.015)
    assert (made.config.timestep_spacing, made.config.use_karras_sigmas) == ("trailing", False)


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("scheduler/scheduler_config.json", {"_class_name": "os.system"}, "diffusers has no scheduler 'os.system'"),
        ("scheduler/scheduler_config.json", {"_class_name": "DPMSolverSDEScheduler"}, "draws noise that no seed"),
        ("unet/config.json", {"in_channels": 8}, "takes 8 channels where its latents have 4"),
        ("unet/config.json", {"cross_attention_dim": 768}, "width 768 where its text encoders write 32"),
        ("unet/config.json", {"addition_embed_type": "image"}, "more conditions than a text"),
    ],
)
def test_a_model_that_cannot_draw_is_refused(own_model: Path, part: str, change: dict[str, object], words: str) -> None:
    config = own_model / part
    config.write_text(json.dumps(json.loads(config.read_text()) | change))

    with pytest.raises(SpecError, match=words) as caught:
        load(resolve(str(own_model)), torch.device("cpu"))

    assert caught.value.reason == "UnsupportedModel"


def test_a_number_of_steps_that_a_scheduler_does_not_support_is_refused(own_model: Path) -> None:
    config = own_model / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"_class_name": "PNDMScheduler"}))

    with pytest.raises(SpecError, match="PNDMScheduler cannot draw in 3 steps"):
        drawer_of(resolve(str(own_model))).draw(REQUESTS[:1], SETTINGS)


def test_weights_of_another_shape_are_refused(own_model: Path) -> None:
    weights = own_model / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    model = resolve(str(own_model))
    save_file({name: tensor[:1].clone() for name, tensor in tensors.items()}, weights)

    with pytest.raises(SpecError, match=r"has weights in unet/ that have conv_in.weight of shape \[1, 4, 3, 3\]"):
        resolve(str(own_model))
    with pytest.raises(SpecError, match="cannot be loaded"):
        load(model, torch.device("cpu"))


def test_weights_with_older_names_are_loaded(own_model: Path, drawn: list[NDArray[np.uint8]]) -> None:
    vae = own_model / "vae" / "diffusion_pytorch_model.safetensors"
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}  # before diffusers 0.15
    renamed = {}
    for name, tensor in load_file(vae).items():
        place, _, last = name.rpartition(".")
        ending = next((new for new in older if place.endswith(f".attentions.0.{new}")), "")
        renamed[f"{place.removesuffix(ending)}{older.get(ending, '')}.{last}"] = tensor
    save_file(renamed, vae)
    texts = own_model / "text_encoder" / "model.safetensors"
    prefixed = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in load_file(texts).items()}
    positions = {"text_model.embeddings.position_ids": torch.arange(20)[None]}  # before transformers 4.31
    save_file(prefixed | positions, texts, metadata={"format": "pt"})

    assert any(name.endswith("attentions.0.query.weight") for name in renamed)
    assert apart(drawer_of(resolve(str(own_model))).draw(REQUESTS, SETTINGS), drawn) == 0


def test_each_text_is_encoded_only_once(tiny_model: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    components: Components = load(tiny_model, torch.device("cpu"))
    texts = TextStates(components)
    encoded: list[str] = []
    encode = Components.encode
    monkeypatch.setattr(Components, "encode", lambda self, new: (encoded.extend(new), encode(self, new))[1])

    states = texts.of(["a ball", "a star", "a ball"])
    texts.of(["a star"])

    assert encoded == ["a ball", "a star"]
    assert torch.equal(states[0], states[2])
    torch.testing.assert_close(states[1], TextStates(components).of(["a star"])[0])


def test_the_built_in_model_draws_the_same_image_in_any_batch(shapes_model: ModelFolder) -> None:
    drawer = drawer_of(shapes_model)
    settings = DrawingSettings(width=64, height=64, steps=8, guidance=3.0)
    orders = [DrawRequest("a red ball on snow", 5), DrawRequest("a blue star and a green square on sand", 6)]
    orders += [DrawRequest("a purple triangle on night", 7), DrawRequest("a ball", 8)]

    together = drawer.draw(orders, settings)

    assert apart(together, [drawer.draw([order], settings)[0] for order in orders]) <= 2
    assert apart(together, drawer.draw(orders[::-1], settings)[::-1]) <= 2


def test_parallel_drawers_draw_the_same_as_one_drawer(tiny_model: ModelFolder, drawn: list[NDArray[np.uint8]]) -> None:
    from diffugen_generator.diffusion.parallel_drawers import ParallelDrawers

    components = load(tiny_model, torch.device("cpu"))
    drawers = ParallelDrawers(components, TextStates(components), threads=3)

    assert apart(drawers.decode(drawers.sample(REQUESTS, SETTINGS)), drawn) <= 2
    assert apart(drawers.decode(drawers.sample(REQUESTS[:1], SETTINGS)), drawn[:1]) <= 2


@pytest.mark.parametrize(("asked", "threads"), [("1", 1), ("3", 3), ("64", 4)])
def test_the_number_of_threads_is_the_number_of_batches_up_to_four(asked: str, threads: int) -> None:
    from diffugen_generator.stages.model_session import threads_of

    assert threads_of({"OMP_NUM_THREADS": asked}) == threads
    assert 1 <= threads_of({}) <= 4


def test_operations_use_the_threads_of_a_block_and_the_former_number_after_it() -> None:
    from diffugen_generator.diffusion.devices import threads_in_operations

    former = torch.get_num_threads()
    with threads_in_operations(former + 1):
        assert torch.get_num_threads() == former + 1
    assert torch.get_num_threads() == former
    with threads_in_operations(None):
        assert torch.get_num_threads() == former
