"""Capture: equal to plainly written attention, at any shape; afterwards the network is as before."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0

from diffugen_generator.families.fused_attention import attended_by_head
from diffugen_generator.families.model import HeadWeights
from diffugen_generator.families.unet.attention_capture import capturing, sizes_of
from diffugen_generator.labeling.attention.refinement import ranged, refined

BATCH, TOKENS, COLUMNS, WIDTH = 2, 11, 3, 32


@pytest.fixture(scope="module")
def unet() -> Any:
    torch.manual_seed(1)
    network: Any = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        norm_num_groups=4,
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
    )
    return network.eval()


class Plain(AttnProcessor):
    """Attention as in a textbook: makes and keeps the whole matrix softmax(q kT), and computes the output with it."""

    def __init__(self, kept: dict[bool, list[torch.Tensor]]) -> None:
        self.kept = kept

    def __call__(self, attn: Any, hidden_states: Any, encoder_hidden_states: Any = None, *_: Any, **__: Any) -> Any:
        cross = encoder_hidden_states is not None
        text = encoder_hidden_states if cross else hidden_states
        query, key = attn.head_to_batch_dim(attn.to_q(hidden_states)), attn.head_to_batch_dim(attn.to_k(text))
        probabilities = torch.softmax(query @ key.transpose(1, 2) * attn.scale, dim=-1)
        self.kept[cross].append(probabilities.unflatten(0, (-1, attn.heads)).mean(dim=1))  # [b, cells, n]
        value = attn.head_to_batch_dim(attn.to_v(text))
        return attn.to_out[0](attn.batch_to_head_dim(probabilities @ value))


def inputs(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(BATCH, 4, height, width, generator=generator)
    texts = torch.randn(BATCH, TOKENS, WIDTH, generator=generator) * 3
    columns = torch.rand(BATCH, TOKENS, COLUMNS, generator=generator)
    return latents, texts, columns


@torch.no_grad()
def plainly(unet: Any, latents: torch.Tensor, texts: torch.Tensor) -> dict[bool, list[torch.Tensor]]:
    kept: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    unet.set_attn_processor(Plain(kept))
    unet(latents, 100, texts)
    unet.set_attn_processor(AttnProcessor2_0())
    return kept


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 24), (12, 20), (10, 14)])
@torch.no_grad()
def test_captured_cross_attention_equals_the_textbooks(unet: Any, height: int, width: int) -> None:
    latents, texts, columns = inputs(height, width)
    sizes = sizes_of(height, width)

    with capturing(unet, columns=columns, sizes=sizes, cross_levels=(0, 1, 2)) as captured:
        unet(latents, 100, texts)

    expected = [kept @ columns for kept in plainly(unet, latents, texts)[True]]
    for level in (0, 1, 2):
        cells = sizes[level][0] * sizes[level][1]
        wanted = [each for each in expected if each.shape[1] == cells]
        assert len(captured.cross[level]) == len(wanted) > 0
        for got, want in zip(captured.cross[level], wanted, strict=True):
            torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


class PlainAgreement(AttnProcessor):
    """Attention as in a textbook; keeps each head's probabilities and its part of the layer's output."""

    def __init__(self, kept: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        self.kept = kept

    def __call__(self, attn: Any, hidden_states: Any, encoder_hidden_states: Any = None, *_: Any, **__: Any) -> Any:
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        width = attn.to_q(hidden_states).shape[-1] // attn.heads
        total = attn.to_out[0].bias
        seen, parts = [], []
        for head in range(attn.heads):
            own = slice(head * width, (head + 1) * width)
            query, key, value = (m[..., own] for m in (attn.to_q(hidden_states), attn.to_k(text), attn.to_v(text)))
            seen.append(torch.softmax(query @ key.transpose(1, 2) / width**0.5, dim=-1))
            parts.append(seen[-1] @ value @ attn.to_out[0].weight[:, own].T)
        if encoder_hidden_states is not None:
            self.kept.append((torch.stack(seen), torch.stack(parts)))
        return total + sum(parts)


@torch.no_grad()
def test_a_head_counts_by_how_much_its_output_agrees_with_that_of_all_heads(unet: Any) -> None:
    latents, texts, columns = inputs(16, 16)
    heads = HeadWeights(by_agreement=True)
    with capturing(unet, columns=columns, sizes=sizes_of(16, 16), cross_levels=(0,), heads=heads) as captured:
        unet(latents, 100, texts)
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    unet.set_attn_processor(PlainAgreement(kept))
    unet(latents, 100, texts)
    unet.set_attn_processor(AttnProcessor2_0())

    wanted = []
    for seen, parts in kept:  # [heads, b, cells, tokens] and [heads, b, cells, channels]
        if seen.shape[2] == 256:
            product = (parts * parts.sum(dim=0)).sum(dim=-1).clamp_min(0)
            weights = product / product.sum(dim=0)
            wanted.append((seen * weights[..., None]).sum(dim=0) @ columns)
    assert len(captured.cross[0]) == len(wanted) > 0
    assert len(kept[0][0]) > 1, "with one head there is nothing to weigh"
    for got, want in zip(captured.cross[0], wanted, strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


@torch.no_grad()
def test_capture_does_not_change_the_networks_output(unet: Any) -> None:
    latents, texts, columns = inputs(16, 24)
    before = unet(latents, 100, texts).sample

    with capturing(unet, columns=columns, sizes=sizes_of(16, 24), cross_levels=(0, 1), own_levels=(0,)):
        during = unet(latents, 100, texts).sample

    assert torch.equal(before, during)


@torch.no_grad()
def test_only_the_requested_levels_are_captured(unet: Any) -> None:
    latents, texts, columns = inputs(16, 16)

    with capturing(unet, columns=columns, sizes=sizes_of(16, 16), cross_levels=(1,), own_levels=()) as captured:
        unet(latents, 100, texts)

    assert list(captured.cross) == [1]
    assert captured.own == {}


def test_every_processor_is_put_back_even_after_a_failure(unet: Any) -> None:
    layers: list[Any] = [layer for layer in unet.modules() if isinstance(layer, Attention)]
    mine = [AttnProcessor() if number % 2 else AttnProcessor2_0() for number, _ in enumerate(layers)]
    for layer, processor in zip(layers, mine, strict=True):
        layer.set_processor(processor)
    latents, _, columns = inputs(16, 16)

    with pytest.raises(RuntimeError), capturing(unet, columns=columns, sizes=sizes_of(16, 16), cross_levels=(0,)):
        unet(latents, 100, torch.zeros(BATCH, TOKENS, WIDTH + 1))

    assert all(layer.processor is processor for layer, processor in zip(layers, mine, strict=True))


@torch.no_grad()
def test_refinement_is_the_self_attention_matrix_applied_to_the_maps(unet: Any) -> None:
    latents, texts, columns = inputs(10, 14)
    with capturing(unet, columns=columns, sizes=sizes_of(10, 14), cross_levels=(), own_levels=(0,)) as captured:
        unet(latents, 100, texts)
    maps = torch.rand(BATCH, COLUMNS, 10, 14)

    whole = [each for each in plainly(unet, latents, texts)[False] if each.shape[1] == 140]
    matrix = torch.stack(whole).mean(dim=0)  # [b, 140, 140]
    expected = ranged(maps)
    for _ in range(2):
        expected = ranged((matrix @ expected.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(maps.shape))

    torch.testing.assert_close(refined(maps, captured.own[0], rounds=2), expected, atol=1e-4, rtol=0)


def test_the_matrix_of_all_cells_is_never_made() -> None:
    # 4096 x 4096 cells of 8 heads would take half a gigabyte in fp32; one head with its softmax would take 128 MB
    # VmHWM instead of getrusage: the value of getrusage starts at the memory of the parent process
    code = (
        "import re, torch; torch.set_num_threads(1);"
        "from diffugen_generator.labeling.attention.refinement import refined;"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1]);"
        "small, large = (torch.randn(1, 8, side * side, 40) for side in (16, 64));"
        "refined(torch.rand(1, 3, 16, 16), [(small, small)]); before = peak();"
        "refined(torch.rand(1, 3, 64, 64), [(large, large)]); print(peak() - before)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert int(done.stdout) < 40_000, f"{done.stdout} kB"


@pytest.mark.parametrize("columns", [1, 16, 40])
def test_any_number_of_columns_is_read(columns: int) -> None:
    query, key = torch.randn(2, 3, 20, 16), torch.randn(2, 3, 9, 16)
    values = torch.rand(2, 9, columns)

    expected = torch.softmax(query @ key.transpose(2, 3) / 4, dim=-1) @ values[:, None]

    torch.testing.assert_close(attended_by_head(query, key, values), expected, atol=1e-5, rtol=0)


def test_a_flat_map_is_scaled_to_zero() -> None:
    assert ranged(torch.full((1, 1, 4, 4), 0.3)).abs().max() == 0


def test_levels_halve_and_round_up() -> None:
    assert sizes_of(18, 13, 4) == [(18, 13), (9, 7), (5, 4), (3, 2)]
