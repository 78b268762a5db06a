"""The model stays on its device, and noise comes from the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0

from diffugen_generator.diffusion.drawing import DrawingSettings, DrawRequest
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.failures import UnknownDevice
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.unet.components import Components, load
from diffugen_generator.planning.plan import plan
from diffugen_generator.stages.session_cache import SessionCache
from diffugen_generator.store.folder import FolderStore
from tests.generator.drawers import ImageDrawer
from tests.generator.made import an_order, planned_shards

CPU = torch.device("cpu")
SETTINGS = DrawingSettings(width=64, height=64, steps=2, guidance=3.0)


def networks(components: Components) -> list[Any]:
    return [components.unet, components.vae, components.encoders[0].network]


# fault 14 of DiffuGen's catalog
def test_the_model_stays_on_its_device_without_offloading_or_slicing(
    tiny_model: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    components = load(tiny_model, CPU)
    moves: list[Any] = []
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *given, **_: (moves.append(given), self)[1])

    ImageDrawer(components, TextStates(components)).draw([DrawRequest("a red ball", 1)], SETTINGS)

    assert not moves
    for network in networks(components):
        assert {parameter.device for parameter in network.parameters()} == {CPU}
        assert not [module for module in network.modules() if hasattr(module, "_hf_hook")]
        attentions = [module for module in network.modules() if isinstance(module, Attention)]
        assert {type(attention.processor) for attention in attentions} <= {AttnProcessor2_0}


# fault 14 of DiffuGen's catalog
def test_noise_comes_from_the_cpu_for_a_model_on_any_device(
    tiny_model: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    generator = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda device: (made.append(device), generator(device))[1])
    components = load(tiny_model, CPU)

    ImageDrawer(components, TextStates(components)).draw(
        [DrawRequest("a red ball", 1), DrawRequest("a star", 2)], SETTINGS
    )

    assert set(made) == {"cpu"}


# fault 14 of DiffuGen's catalog
def test_the_requested_device_is_used(tiny_model: ModelFolder, tmp_path: Path) -> None:
    order = an_order(tiny_model.uri)
    plan(order, store := FolderStore(tmp_path))
    header, _ = next(planned_shards(order, store))

    for environ, device in (({"DIFFUGEN_DEVICE": "cuda:77"}, None), ({}, "cuda:77")):
        with pytest.raises(UnknownDevice, match="there is no 'cuda:77' here"):
            SessionCache.of(order.spec, device=device, environ=environ).open(header)
    SessionCache.of(order.spec, device="cpu", environ={"DIFFUGEN_DEVICE": "cuda:77"}).open(header)
