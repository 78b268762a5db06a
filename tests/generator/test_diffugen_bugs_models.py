"""What DiffuGen (504bc72) does wrong with models, each as a test of what happens here.

It offloads the model to the CPU, slices its attention and moves it to the device of a generator that is on the CPU; it
loads a taught word for txt2img alone, so that img2img reads `<car-accident>` as text; and it ships pickled weights.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from safetensors.torch import save_file

from diffugen_api.plan import Expansion, SpecError
from diffugen_api.v1alpha1 import LabeledDatasetSpec, embeddings_of
from diffugen_generator.diffusion.drawing import DrawingSettings, DrawRequest
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.failures import UnknownDevice
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.unet.components import Components, load
from diffugen_generator.models.resolve import resolve
from diffugen_generator.planning.plan import plan, stages_of
from diffugen_generator.stages.session_cache import SessionCache
from diffugen_generator.store.folder import FolderStore
from tests.generator import graphs
from tests.generator.drawers import ImageDrawer
from tests.generator.made import an_order, planned_shards, spec_data

REPOSITORY = Path(__file__).parents[2]
CPU = torch.device("cpu")
SETTINGS = DrawingSettings(width=64, height=64, steps=2, guidance=3.0)


def networks(components: Components) -> list[Any]:
    return [components.unet, components.vae, components.encoders[0].network]


def test_bug_14_the_model_stays_where_it_was_put_whole_and_unsliced(
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


def test_bug_14_noise_comes_from_the_cpu_wherever_the_model_is(
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


def test_bug_14_the_device_is_the_one_that_was_asked_for(tiny_model: ModelFolder, tmp_path: Path) -> None:
    order = an_order(tiny_model.uri)
    plan(order, store := FolderStore(tmp_path))
    header, _ = next(planned_shards(order, store))

    for environ, device in (({"DIFFUGEN_DEVICE": "cuda:77"}, None), ({}, "cuda:77")):
        with pytest.raises(UnknownDevice, match="there is no 'cuda:77' here"):
            SessionCache.of(order.spec, device=device, environ=environ).open(header)
    SessionCache.of(order.spec, device="cpu", environ={"DIFFUGEN_DEVICE": "cuda:77"}).open(header)


@pytest.mark.parametrize(
    "later",
    [
        {"img2img": {"from": "base", "variables": {"place": ["sand"]}}},
        {"inpaint": {"from": "base", "replacements": {"ball": ["a <piano>"]}}},
    ],
    ids=["img2img", "inpaint"],
)
def test_bug_17_a_taught_word_is_one_in_stages_of_every_kind(
    tiny_folder: Path, tmp_path: Path, later: dict[str, Any]
) -> None:
    for name, scale in (("piano", 1), ("other", 2)):
        save_file({"<x>": scale * torch.ones(1, 32)}, tmp_path / f"{name}.safetensors")
    piano = {"uri": str(tmp_path / "piano.safetensors"), "token": "<piano>"}
    own = {"uri": str(tmp_path / "other.safetensors"), "token": "<Piano>"}
    (kind,) = later
    base = {"name": "base", "txt2img": {"model": str(tiny_folder), "embeddings": [piano]}}
    spec = LabeledDatasetSpec.model_validate(
        spec_data(
            str(tiny_folder),
            stages=[base, {"name": "later", **later}, {"name": "own", kind: {**later[kind], "embeddings": [own]}}],
        )
    )

    inherited, replaced = (embeddings_of(spec.stages, stage) for stage in spec.stages[1:])

    assert [(field, each.uri) for field, each in inherited.items()] == [
        ("spec.stages[0].txt2img.embeddings[0]", piano["uri"])
    ]
    assert [(field, each.uri) for field, each in replaced.items()] == [
        (f"spec.stages[2].{kind}.embeddings[0]", own["uri"])
    ]
    first, second, third = (stage.recipe.drawing["embeddings"] for stage in stages_of(Expansion(spec)))
    assert first == second != third
    assert first.keys() == third.keys() == {"<piano>"}


@pytest.mark.parametrize(
    ("place", "later"),
    [
        ("<piano>", graphs.redrawn("later", "base")),
        ("snow", graphs.redrawn("later", "base", variables={"place": ["<piano>"]})),
        ("snow", graphs.repainted("later", "base", replacements={"ball": ["a <piano>"]})),
    ],
    ids=["txt2img", "img2img", "inpaint"],
)
def test_bug_17_stages_of_every_kind_draw_with_the_word_that_their_source_was_taught(
    tiny_folder: Path, tmp_path: Path, place: str, later: dict[str, Any]
) -> None:
    def drawn(seed: int) -> dict[str, bytes]:
        word = tmp_path / f"{seed}.safetensors"
        save_file({"<x>": torch.randn(2, 32, generator=torch.Generator().manual_seed(seed))}, word)
        base = graphs.base(str(tiny_folder), embeddings=[{"uri": str(word), "token": "<piano>"}])
        variables = {"object": ["ball"], "place": [place]}
        prompts = {"templates": ["a {object} on {place}"], "variables": variables}
        order = graphs.an_order([base, later], prompts=prompts)
        store = FolderStore(tmp_path / f"store-{seed}")
        graphs.draw_base(order, store, {"ball": graphs.a_box(16, 16, 48, 48)})
        graphs.draw(order, store, "later")
        headers = [header for header, _ in planned_shards(order, store)]
        assert [[word.token for word in header.embeddings] for header in headers] == [["<piano>"], ["<piano>"]]
        images = {name: list(store.root.glob(f"samples/{name}/*/*/image.png")) for name in ("base", "later")}
        return {name: file.read_bytes() for name, (file,) in images.items()}

    one, other = drawn(1), drawn(2)

    sources_differ = one["base"] != other["base"]
    assert sources_differ is (place == "<piano>"), "only a prompt with the word is drawn otherwise"
    assert one["later"] != other["later"]


def test_bug_17_a_word_that_cannot_be_taught_is_told_before_anything_is_drawn(
    tiny_folder: Path, tmp_path: Path
) -> None:
    save_file({"<x>": torch.ones(1, 768)}, tmp_path / "wide.safetensors")
    model = {"model": str(tiny_folder), "embeddings": [{"uri": str(tmp_path / "wide.safetensors"), "token": "<x>"}]}
    spec = an_order(str(tiny_folder), stages=[{"name": "base", "txt2img": model}]).spec

    with pytest.raises(SpecError, match=r"^spec\.stages\[0\]\.txt2img\.embeddings\[0\]\.uri: .* of 768 numbers"):
        stages_of(Expansion(spec))


def test_bug_20_no_pickled_weights_are_shipped() -> None:
    packages = [REPOSITORY / part for part in ("crds", "operator", "generator", "devcluster", "examples")]
    files = [file for package in packages for file in package.rglob("*") if file.is_file()]

    assert any(file.suffix == ".safetensors" for file in files)
    assert not [file for file in files if file.suffix in {".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"}]


def test_bug_20_pickled_weights_are_loaded_only_by_their_digest_and_run_nothing(
    own_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unet = UNet2DConditionModel.from_pretrained(own_model / "unet")
    shutil.rmtree(own_model / "unet")
    unet.save_pretrained(own_model / "unet", safe_serialization=False)
    with pytest.raises(SpecError, match="pickled weights in unet/, which may run code") as caught:
        resolve(str(own_model))
    digest = str(caught.value).split("modelSHA256 to ")[1][:64]
    flags: list[Any] = []
    read = torch.load
    monkeypatch.setattr(
        torch, "load", lambda *given, **more: (flags.append(more.get("weights_only")), read(*given, **more))[1]
    )

    load(resolve(str(own_model), pin=digest), CPU)

    assert flags == [True]
