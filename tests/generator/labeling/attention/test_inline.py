"""Inline capture compared with DAAM's definition, written plainly: every step, layer and head by itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch.nn import functional

from diffugen_api.words import Vocabulary
from diffugen_generator.diffusion.drawing import Drawer, DrawingSettings, DrawRequest
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.unet.attention_capture import capturing, sizes_of
from diffugen_generator.families.unet.attention_sums import Summed, summing
from diffugen_generator.families.unet.components import load
from diffugen_generator.labeling.attention.inline import InlineAttention

TOKENS, WIDTH, STEPS = 9, 32, 3
COMMON: dict[str, Any] = {
    "sample_size": 16, "layers_per_block": 1, "norm_num_groups": 4, "cross_attention_dim": WIDTH,
}  # fmt: skip
SD1 = COMMON | {
    "block_out_channels": (8, 16, 16, 16),
    "down_block_types": ("CrossAttnDownBlock2D",) * 4,  # the last layer at 1/8 of the size: DAAM does not read there
    "up_block_types": ("CrossAttnUpBlock2D",) * 4,
    "attention_head_dim": 2,
}
SD2 = COMMON | {
    "block_out_channels": (8, 16, 16, 16),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "attention_head_dim": (1, 2, 4, 4),
    "use_linear_projection": True,
    "upcast_attention": True,
}
SDXL = COMMON | {
    "block_out_channels": (8, 16, 16),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (1, 2, 4),
    "transformer_layers_per_block": (1, 2, 3),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 24,
}
SHAPES = {"sd1": SD1, "sd2": SD2, "sdxl": SDXL}
SMALL_SD1 = COMMON | {
    "block_out_channels": (8, 16),
    "down_block_types": ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2,
    "attention_head_dim": 2,
}
SMALL_SDXL = SDXL | {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (1, 2),
    "transformer_layers_per_block": (1, 2),
}
SMALL = {"small sd1": SMALL_SD1, "small sdxl": SMALL_SDXL}
"""For the tests that compile: compiling takes a time for each layer."""


def pipeline_of(shape: str) -> Any:
    torch.manual_seed(4)
    unet: Any = UNet2DConditionModel(**(SHAPES | SMALL)[shape])
    unet.eval()
    with torch.no_grad():  # sharp attention: with unchanged random weights it is nearly uniform
        for name, weights in unet.named_parameters():
            if ".attn2.to_q." in name or ".attn2.to_k." in name:
                weights.mul_(4)
    scheduler = DDIMScheduler(clip_sample=False, steps_offset=1)
    parts: dict[str, Any] = {"vae": None, "text_encoder": None, "tokenizer": None, "unet": unet, "scheduler": scheduler}
    if "sdxl" in shape:
        made: Any = StableDiffusionXLPipeline(**parts, text_encoder_2=None, tokenizer_2=None)
    else:
        made = StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    made.set_progress_bar_config(disable=True)
    return made


def draw(pipeline: Any, *, batch: int, size: tuple[int, int], guidance: float) -> torch.Tensor:
    """Draw latents with the pipeline of diffusers itself."""
    generator = torch.Generator().manual_seed(6)
    texts = torch.randn(2, batch, TOKENS, WIDTH, generator=generator) * 3
    more: dict[str, Any] = {}
    if isinstance(pipeline, StableDiffusionXLPipeline):
        pooled = torch.randn(2, batch, 24, generator=generator)
        more = {"pooled_prompt_embeds": pooled[0], "negative_pooled_prompt_embeds": pooled[1]}
    return pipeline(
        prompt_embeds=texts[0], negative_prompt_embeds=texts[1], height=size[0] * 8, width=size[1] * 8,
        num_inference_steps=STEPS, guidance_scale=guidance, output_type="latent",
        generator=[torch.Generator().manual_seed(50 + i) for i in range(batch)], **more,
    ).images  # fmt: skip


class Kept:
    """Attention probabilities as DAAM reads them, without any shortcut for speed."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, torch.Tensor]] = []
        """For each step and layer, the layer's name and its probabilities [rows, heads, cells, tokens]."""

    def see(self, name: str, attn: Any, hidden_states: torch.Tensor, texts: torch.Tensor) -> None:
        query = attn.head_to_batch_dim(attn.to_q(hidden_states)).float()
        key = attn.head_to_batch_dim(attn.to_k(texts)).float()
        probabilities = (query @ key.transpose(1, 2) * attn.scale).softmax(dim=-1)
        self.seen.append((name, probabilities.unflatten(0, (-1, attn.heads))))

    def maps(self, *, batch: int, size: tuple[int, int], guidance: float) -> torch.Tensor:
        """Heat maps [batch, tokens, h, w] by DAAM's definition: every step, layer, head and token by itself."""
        height, width = size
        sums: dict[tuple[str, int, int, int], torch.Tensor] = {}
        for name, probabilities in self.seen:
            _, heads, cells, tokens = probabilities.shape
            factor = next(f for f in (1, 2, 4, 8) if math.ceil(height / f) * math.ceil(width / f) == cells)
            if factor == 8 or name.startswith("mid_block"):
                continue
            conditional = probabilities[batch:] if guidance > 1 else probabilities
            for i in range(batch):
                for head in range(heads):
                    for token in range(tokens):
                        image = conditional[i, head, :, token].reshape(math.ceil(height / factor), -1)
                        sums[name, head, i, token] = sums.get((name, head, i, token), 0) + image
        maps = torch.zeros(batch, TOKENS, height, width)
        layers = {(name, head) for name, head, _, _ in sums}
        for (_, _, i, token), image in sums.items():
            large = functional.interpolate(image[None, None], size=size, mode="bicubic").clamp(min=0)
            maps[i, token] += large[0, 0] / len(layers)
        return maps


@contextmanager
def keeping(unet: Any) -> Iterator[Kept]:
    """Keep the cross-attention inside the `with`, with any processors: it is computed from the layers' inputs."""
    kept = Kept()
    with ExitStack() as undo:
        for name, layer in unet.named_modules():
            if isinstance(layer, Attention):

                def hook(
                    attn: Any, args: Any, kwargs: dict[str, Any], name: str = name.removeprefix("_orig_mod.")
                ) -> None:
                    if (texts := kwargs.get("encoder_hidden_states")) is not None:
                        kept.see(name, attn, args[0], texts)

                undo.callback(layer.register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield kept


def watched(pipeline: Any, *, batch: int, size: tuple[int, int], guidance: float) -> tuple[Summed, torch.Tensor]:
    every_token = torch.eye(TOKENS).expand(batch, -1, -1)
    with summing(pipeline.unet, columns=every_token, size=size, guided=guidance > 1) as summed:
        latents = draw(pipeline, batch=batch, size=size, guidance=guidance)
    return summed, latents


@pytest.mark.parametrize("guidance", [1.0, 5.0], ids=["unguided", "guided"])
@pytest.mark.parametrize(("batch", "size"), [(1, (16, 16)), (3, (16, 24)), (2, (20, 12))])
@pytest.mark.parametrize("shape", list(SHAPES))
def test_inline_maps_equal_those_of_daam(shape: str, batch: int, size: tuple[int, int], guidance: float) -> None:
    pipeline = pipeline_of(shape)
    with keeping(pipeline.unet) as kept:
        draw(pipeline, batch=batch, size=size, guidance=guidance)
    expected = kept.maps(batch=batch, size=size, guidance=guidance)

    summed, _ = watched(pipeline, batch=batch, size=size, guidance=guidance)

    torch.testing.assert_close(summed.maps(), expected, atol=1e-4, rtol=0)
    assert float(expected.std(dim=(2, 3)).mean()) > 1e-2, "maps that say something"


def sliced(pipeline: Any) -> None:
    pipeline.enable_attention_slicing(1)


def fused(pipeline: Any) -> None:
    pipeline.unet.fuse_qkv_projections()


def compiled(pipeline: Any) -> None:
    pipeline.unet = torch.compile(pipeline.unet, backend="eager")


def compiled_in_place(pipeline: Any) -> None:
    pipeline.unet.compile(backend="eager")


@pytest.mark.parametrize(
    ("change", "shape"),
    [
        (sliced, "sd1"),
        (fused, "sd1"),
        (sliced, "sd2"),
        (fused, "sd2"),
        (sliced, "sdxl"),
        (fused, "sdxl"),
        (compiled, "small sdxl"),
        (compiled_in_place, "small sd1"),
    ],
)
def test_capture_works_with_any_processors_and_restores_them(change: Callable[[Any], None], shape: str) -> None:
    how: dict[str, Any] = {"batch": 2, "size": (16, 16), "guidance": 5.0}
    pipeline = pipeline_of(shape)
    change(pipeline)
    before = draw(pipeline, **how)
    processors = [id(layer) for layer in pipeline.unet.attn_processors.values()]

    # Both maps come from the same drawing: other ways to compute attention round differently. As attention is sharp,
    # the difference grows from step to step until the drawings differ, and not only their maps.
    with keeping(pipeline.unet) as kept:
        summed, during = watched(pipeline, **how)

    assert [id(layer) for layer in pipeline.unet.attn_processors.values()] == processors
    torch.testing.assert_close(summed.maps(), kept.maps(**how), atol=1e-5, rtol=0)
    torch.testing.assert_close(during, before, atol=1e-4, rtol=0)
    torch.testing.assert_close(draw(pipeline, **how), before, atol=1e-5, rtol=0)


def test_a_compiled_unet_is_compiled_once_and_runs_uncompiled_during_capture() -> None:
    pipeline, graphs = pipeline_of("small sd1"), []

    def backend(module: Any, _: Any) -> Any:
        graphs.append(module)
        return module.forward

    pipeline.unet = torch.compile(pipeline.unet, backend=backend)
    how: dict[str, Any] = {"batch": 1, "size": (16, 16), "guidance": 1.0}
    draw(pipeline, **how)
    compiled_graphs = len(graphs)
    columns = torch.eye(TOKENS)[None]

    with capturing(pipeline.unet, columns=columns, sizes=sizes_of(16, 16), cross_levels=(0,), own_levels=(0,)) as read:
        draw(pipeline, **how)
    draw(pipeline, **how)

    assert len(read.cross[0]) > 0
    assert compiled_graphs == len(graphs) > 0


def test_a_failure_while_drawing_restores_every_processor() -> None:
    pipeline = pipeline_of("sd1")
    processors = dict(pipeline.unet.attn_processors)

    with (
        pytest.raises(ValueError, match="given 4 rows where 2 were announced"),
        summing(pipeline.unet, columns=torch.zeros(2, TOKENS, 1), size=(16, 16), guided=False),
    ):
        draw(pipeline, batch=2, size=(16, 16), guidance=5.0)

    assert pipeline.unet.attn_processors == processors


SETTINGS = DrawingSettings(width=96, height=64, steps=3, guidance=2.0, negative="a blue star")
VOCABULARY = Vocabulary({"ball": ["ball"], "traffic light": ["traffic light"]}, ["snow"])
REQUESTS = [
    DrawRequest("a red ball on snow", 5),
    DrawRequest("a traffic light and a ball", 6),
    DrawRequest("a star", 7),
    DrawRequest("a red light and " * 5 + "a ball", 8),  # two windows of the text encoder
]


@pytest.mark.parametrize("refine", [False, True])
def test_each_image_is_read_at_its_own_tokens_in_any_batch(tiny_model: ModelFolder, refine: bool) -> None:
    components = load(tiny_model, torch.device("cpu"))
    drawer = Drawer(components, TextStates(components))
    together = InlineAttention(components, VOCABULARY, refine=refine)

    plain = drawer.sample(REQUESTS, SETTINGS)
    latents = drawer.sample(REQUESTS, SETTINGS, batch=5, observer=together)

    for one, other in zip(plain, latents, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    assert [(together.evidence[i].classes, together.evidence[i].background) for i in range(4)] == [
        (("ball",), ("snow",)),
        (("ball", "traffic light"), ()),
        ((), ()),
        (("ball",), ()),
    ]
    for place, order in enumerate(REQUESTS):
        alone = InlineAttention(components, VOCABULARY, refine=refine)
        drawer.sample([order], SETTINGS, observer=alone)
        assert alone.evidence[0].maps.shape[1:] == (16, 24)
        assert np.abs(alone.evidence[0].maps.astype(int) - together.evidence[place].maps).max(initial=0) <= 2


def test_refining_changes_the_maps(tiny_model: ModelFolder) -> None:
    components = load(tiny_model, torch.device("cpu"))
    drawer = Drawer(components, TextStates(components))
    observers = [InlineAttention(components, VOCABULARY, refine=refine) for refine in (False, True)]
    for inline in observers:
        drawer.sample(REQUESTS[:1], SETTINGS, observer=inline)

    assert not np.array_equal(observers[0].evidence[0].maps, observers[1].evidence[0].maps)
