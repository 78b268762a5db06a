"""The keys and values of a text are computed once for all steps of a batch, and nothing else changes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from diffugen_generator.diffusion.drawing import DrawingSettings, DrawRequest
from diffugen_generator.diffusion.parallel_drawers import ParallelDrawers
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.model import Conditioning
from diffugen_generator.families.placement import unet_layout
from diffugen_generator.families.unet.components import Components, load
from diffugen_generator.families.unet.text_projections import KeptProjection

SETTINGS = DrawingSettings(width=64, height=64, steps=4, guidance=3.0, negative="a star")
REQUESTS = [DrawRequest("a red ball on snow", 1), DrawRequest("a blue star", 2), DrawRequest("a light", 3)]


@pytest.fixture(scope="module")
def components(tiny_model: ModelFolder) -> Components:
    return load(tiny_model, torch.device("cpu"))


def latents_of(components: Components, threads: int = 1) -> torch.Tensor:
    return torch.stack(ParallelDrawers(components, TextStates(components), threads).sample(REQUESTS, SETTINGS))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often each projection of a text is computed."""
    counts: Counter[int] = Counter()
    linear = torch.nn.Linear.forward

    def counted(layer: torch.nn.Linear, states: torch.Tensor) -> torch.Tensor:
        if isinstance(layer, KeptProjection):
            counts[id(layer)] += 1
        return linear(layer, states)

    monkeypatch.setattr(torch.nn.Linear, "forward", counted)
    return counts


def test_each_layer_projects_a_batch_of_texts_once(components: Components, computed: Counter[int]) -> None:
    latents_of(components)

    assert len(computed) == 2 * sum(layer.is_cross_attention for layer in attentions_of(components))
    assert set(computed.values()) == {1}


def attentions_of(components: Components) -> list[Any]:
    return [module for module in components.unet.modules() if hasattr(module, "is_cross_attention")]


def test_latents_are_those_without_kept_projections(components: Components, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = latents_of(components)
    monkeypatch.setattr(KeptProjection, "forward", torch.nn.Linear.forward)

    assert torch.equal(kept, latents_of(components))


def test_threads_that_share_a_network_keep_their_own_texts(components: Components) -> None:
    alone, together = latents_of(components), latents_of(components, threads=3)

    assert torch.allclose(alone, together, rtol=1e-4, atol=1e-2)


def test_a_text_that_is_trained_is_projected_each_time(components: Components, computed: Counter[int]) -> None:
    components.unet.requires_grad_(True)
    try:
        encoded = components.encode(["a ball"])[0]
        predict = components.predictor(Conditioning(encoded.states.clone()[None], encoded.pooled.clone()[None]))
        for _ in range(2):
            predict(torch.zeros(1, 4, 16, 16), torch.tensor(5)).square().sum().backward()
    finally:
        components.unet.requires_grad_(False)
    assert set(computed.values()) == {2}


def test_feature_maps_have_channels_last_on_a_gpu_only(components: Components) -> None:
    convolution = components.unet.down_blocks[0].resnets[0].conv1.weight

    assert convolution.is_contiguous(memory_format=torch.contiguous_format)
    assert components.vae.decoder.conv_out.weight.is_contiguous(memory_format=torch.channels_last)
    assert unet_layout(torch.device("cpu")) == torch.contiguous_format
    assert unet_layout(torch.device("cuda")) == torch.channels_last
