"""LoRAs: images equal those of diffusers' `load_lora_weights` and `set_adapters`; misfits are refused by the plan."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from diffugen_api.plan import Expansion, SpecError, stage_recipe
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.lora import Lora
from diffugen_generator.families.unet.components import load
from diffugen_generator.models.resolve import resolve
from diffugen_generator.planning.plan import plan
from diffugen_generator.samples.shards import read_shard
from diffugen_generator.stages.session_cache import SessionCache
from diffugen_generator.store.folder import FolderStore
from tests.generator.graphs import an_order, base, redrawn
from tests.generator.models import diffusers_loras
from tests.generator.models.diffusers_loras import NAMES, WEIGHTS
from tests.generator.pipelines import write_shape

Tensors = dict[str, torch.Tensor]
RANK = 3


def matrices(networks: Mapping[str, Any], seed: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Random matrices for layers of all kinds, by network and layer in the names of diffusers."""
    torch.manual_seed(seed)
    found = {}
    for network, module in networks.items():
        ends = ("to_q", "to_v", "to_out.0", "ff.net.2", "proj_in", "conv1", "q_proj", "out_proj", "mlp.fc1")
        for name, layer in module.named_modules():
            if name.endswith(ends) and hasattr(layer, "weight"):
                weight = layer.weight
                rest = (1,) * (weight.ndim - 2)
                down = torch.randn(RANK, *weight.shape[1:]) * 0.3
                found[f"{network}.{name}"] = (down, torch.randn(len(weight), RANK, *rest) * 0.3)
    return found


def peft(parts: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> Tensors:
    return {f"{n}.lora_{w}.weight": m for n, pair in parts.items() for w, m in zip("AB", pair, strict=True)}


def diffusers_layout(parts: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> Tensors:
    def named(name: str, which: str) -> str:
        if name.startswith("text") or "attn" not in name:
            return f"{name}.lora{'_linear_layer' if name.startswith('text') else ''}.{which}.weight"
        stem, _, layer = name.removesuffix(".0").rpartition(".")
        return f"{stem}.processor.{layer}_lora.{which}.weight"

    return {named(n, w): m for n, pair in parts.items() for w, m in zip(("down", "up"), pair, strict=True)}


def kohya(parts: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> Tensors:
    two = any(name.startswith("text_encoder_2") for name in parts)
    prefixes = {"unet": "lora_unet_", "text_encoder": "lora_te1_" if two else "lora_te_", "text_encoder_2": "lora_te2_"}
    found: Tensors = {}
    for name, (down, up) in parts.items():
        network, _, layer = name.partition(".")
        if network != "unet" and not layer.startswith("text_model."):
            layer = f"text_model.{layer}"
        key = prefixes[network] + layer.replace(".", "_")
        found |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
        found[f"{key}.alpha"] = torch.tensor(2.0)
    return found


LAYOUTS: dict[str, Callable[[Mapping[str, tuple[torch.Tensor, torch.Tensor]]], Tensors]] = {
    "peft": peft,
    "diffusers": diffusers_layout,
    "kohya": kohya,
}


def ours(model: Path, loras: Sequence[Lora] = ()) -> dict[str, Any]:
    """The networks that the generator loads, by their names in diffusers."""
    found = load(resolve(str(model)), torch.device("cpu"), loras=loras)
    return {"unet": found.unet, **{n: e.network for n, e in zip(NAMES[1:], found.encoders, strict=False)}}


@torch.no_grad()
def test_networks_compute_what_those_of_diffusers_do(tmp_path: Path) -> None:
    """All models and layouts in one test, as diffusers runs in one process for all of them."""
    shapes = ("sd1", "sd2", "xl")
    for shape in shapes:
        model = write_shape(tmp_path / shape / "model", shape)
        for layout, written in LAYOUTS.items():
            (tmp_path / shape / layout).mkdir()
            for number in range(len(WEIGHTS)):
                path = tmp_path / shape / layout / f"{number}.safetensors"
                save_file(written(matrices(ours(model), number)), path)

    diffusers_loras.compute(tmp_path)

    for shape in shapes:
        folder = tmp_path / shape
        plain = torch.load(folder / "plain.pt")
        for layout in LAYOUTS:
            paths = [folder / layout / f"{number}.safetensors" for number in range(len(WEIGHTS))]
            loras = [Lora(str(path), path, weight) for path, weight in zip(paths, WEIGHTS, strict=True)]
            expected = torch.load(folder / f"{layout}.pt")
            assert (expected - plain).abs().max() > 0.1, "the LoRAs do something"
            found = diffusers_loras.outputs_of(ours(folder / "model", loras), xl=shape == "xl")
            assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3), f"{shape}, {layout}"


def test_the_scale_in_the_header_of_a_peft_file_counts(tiny_model: ModelFolder, tmp_path: Path) -> None:
    before = load(tiny_model, torch.device("cpu")).unet.mid_block.attentions[0].proj_in.weight
    name = "mid_block.attentions.0.proj_in"
    down, up = torch.ones(RANK, *before.shape[1:]), torch.ones(len(before), RANK, 1, 1)
    settings = {"unet.r": RANK, "unet.lora_alpha": 6, "unet.alpha_pattern": {"proj_in": 9}}
    path = tmp_path / "scaled.safetensors"
    save_file(
        {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up},
        path,
        metadata={"lora_adapter_metadata": json.dumps(settings)},
    )

    fused = load(tiny_model, torch.device("cpu"), loras=[Lora("x", path, 0.5)])

    after = fused.unet.mid_block.attentions[0].proj_in.weight
    assert torch.allclose(after - before, torch.full_like(before, 0.5 * 9 / RANK * RANK), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "rank"),
    [
        ('{"unet.alpha_pattern": {"*": 9}}', RANK),
        ('{"unet.alpha_pattern": {"(.|.|[a-z])*[A-Z]": 9}}', RANK),
        ('{"unet.lora_alpha": [9]}', RANK),
        ('{"unet.alpha_pattern": 9}', RANK),
        ("[" * 100_000, RANK),
        ("{}", 0),
    ],
)
def test_odd_settings_in_the_header_are_refused(
    tiny_model: ModelFolder, settings: str, rank: int, tmp_path: Path
) -> None:
    name = f"unet.{CROSS.removeprefix('unet.').partition('.lora')[0].partition('_lora')[0]}"
    path = tmp_path / "lora.safetensors"
    matrices = {f"{name}.lora_A.weight": torch.ones(rank, 32), f"{name}.lora_B.weight": torch.ones(32, rank)}
    save_file(matrices, path, metadata={"lora_adapter_metadata": settings})

    with pytest.raises(SpecError, match="the LoRA x does not fit the model: "):
        load(tiny_model, torch.device("cpu"), loras=[Lora("x", path, 1.0)])


def test_each_layer_has_its_own_alpha(tiny_model: ModelFolder, tmp_path: Path) -> None:
    # diffusers 0.42 uses the most frequent alpha of a file for all attention layers
    plain = load(tiny_model, torch.device("cpu"))
    parts = {f"unet.{name}": pair for name, pair in matrices({"u": plain.unet}, 3).items() if "mid_block" in name}
    parts = {name.replace("unet.u.", "unet."): pair for name, pair in parts.items()}
    tensors = kohya(parts)
    alphas = [name for name in tensors if name.endswith(".alpha")]
    tensors |= {name: torch.tensor(float(number + 1)) for number, name in enumerate(alphas)}
    path = tmp_path / "lora.safetensors"
    save_file(tensors, path)

    fused = load(tiny_model, torch.device("cpu"), loras=[Lora("x", path, 0.5)])

    assert len(parts) > 5
    for number, (name, (down, up)) in enumerate(parts.items()):
        layer = name.removeprefix("unet.")
        before, after = (each.unet.get_submodule(layer).weight for each in (plain, fused))
        added = 0.5 * (number + 1) / RANK * (up.flatten(1) @ down.flatten(1)).reshape(before.shape)
        assert torch.allclose(after, before + added, atol=1e-5), name


def a_lora(model: ModelFolder, path: Path, seed: int = 0) -> str:
    components = load(model, torch.device("cpu"))
    save_file(peft(matrices({"unet": components.unet, "text_encoder": components.encoders[0].network}, seed)), path)
    return str(path)


def test_a_stage_draws_with_its_loras_and_those_of_its_source(tiny_model: ModelFolder, tmp_path: Path) -> None:
    lora = a_lora(tiny_model, tmp_path / "one.safetensors")
    other = a_lora(tiny_model, tmp_path / "two.safetensors", 1)
    plain = an_order([base(tiny_model.uri), redrawn("mud", "base")])
    with_loras = an_order(
        [
            base(tiny_model.uri, loras=[{"uri": lora, "weight": 0.4}]),
            redrawn("mud", "base", loras=[{"uri": other}]),
        ]
    )
    images, ids = [], []
    for name, order in (("plain", plain), ("loras", with_loras)):
        store = FolderStore(tmp_path / name)
        plan(order, store)
        header, rows = read_shard(store, f"plans/{order.revision}/base/00000.jsonl.gz")
        images.append(SessionCache(device="cpu").open(header).draw([rows[0].sample])[0].image)
        ids.append({row.sample.id for row in rows})
        derived, _ = read_shard(store, f"plans/{order.revision}/mud/00000.jsonl.gz")
    assert not ids[0] & ids[1]
    assert np.abs(images[0].astype(int) - images[1]).max() > 20
    assert [(each.uri, each.weight) for each in header.loras] == [(lora, 0.4)]
    assert [(each.uri, each.weight) for each in derived.loras] == [(other, 1.0), (lora, 0.4)]


def test_addresses_cover_digests_and_weights_but_not_their_order() -> None:
    def sample_of(loras: list[tuple[str, float]]) -> str:
        spec = an_order([base("builtin://shapes")]).spec
        recipe = stage_recipe(spec, spec.stages[0], "ab" * 32, loras=loras)
        return next(iter(Expansion(spec).samples_of(recipe))).id

    one, two = ("aa" * 32, 0.5), ("bb" * 32, 1.0)
    assert sample_of([one, two]) == sample_of([two, one])
    assert len({sample_of(each) for each in ([], [one], [two], [one, two], [("aa" * 32, 0.6)])}) == 5


def test_a_file_that_changed_after_the_plan_is_refused(tiny_model: ModelFolder, tmp_path: Path) -> None:
    lora = a_lora(tiny_model, tmp_path / "one.safetensors")
    order, store = an_order([base(tiny_model.uri, loras=[{"uri": lora}])]), FolderStore(tmp_path / "store")
    plan(order, store)
    header, _ = read_shard(store, f"plans/{order.revision}/base/00000.jsonl.gz")
    a_lora(tiny_model, Path(lora), seed=5)

    with pytest.raises(SpecError, match=r"loras\[0\] of stage base: .* has the digest .* plan again"):
        SessionCache(device="cpu").open(header)


CROSS = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight"
MISFITS: dict[str, tuple[Tensors, str]] = {
    "another family": ({"transformer.blocks.0.lora_A.weight": torch.ones(2, 4)}, "has no tensor that is a LoRA of a"),
    "no lora": ({"weights": torch.ones(2, 4)}, "has no tensor that is a LoRA of a UNet"),
    "xl": ({CROSS: torch.ones(2, 2048)}, "is for texts of width 2048, as in Stable Diffusion XL, and the model has 32"),
    "second encoder": (
        {"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(2, 40)},
        "is for two text encoders, as in Stable Diffusion XL, and the model has one",
    ),
    "wide encoder": (
        {"lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight": torch.ones(2, 768)},
        "is for vectors of its text encoder of width 768",
    ),
    "dora": ({CROSS: torch.ones(2, 32), "unet.x.dora_scale": torch.ones(2)}, "is a DoRA, which is not supported"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_the_plan_refuses_a_lora_that_does_not_fit(case: str, tiny_model: ModelFolder, tmp_path: Path) -> None:
    tensors, why = MISFITS[case]
    path = tmp_path / "lora.safetensors"
    save_file(tensors, path)
    order = an_order([base(tiny_model.uri, loras=[{"uri": str(path)}])])

    with pytest.raises(SpecError, match=re.escape(why)) as refused:
        plan(order, FolderStore(tmp_path / "store"))
    assert refused.value.reason == "UnsupportedLora"
    assert str(refused.value).startswith(f"spec.stages[0].txt2img.loras[0].uri: '{path}' ")


def test_a_pickled_or_missing_file_is_refused(tiny_model: ModelFolder, tmp_path: Path) -> None:
    pickled = tmp_path / "lora.bin"
    torch.save({"a": torch.ones(1)}, pickled)
    for uri, why in ((str(pickled), "is not a safetensors file"), (str(tmp_path / "none"), "there is no file")):
        order = an_order([base(tiny_model.uri, loras=[{"uri": uri}])])
        with pytest.raises(SpecError, match=why):
            plan(order, FolderStore(tmp_path / "store"))


def test_layers_that_the_model_lacks_are_named_before_anything_is_drawn(
    tiny_model: ModelFolder, tmp_path: Path
) -> None:
    path = tmp_path / "lora.safetensors"
    save_file({CROSS.replace("0.attn2", "7.attn2"): torch.ones(2, 32)}, path)

    with pytest.raises(SpecError, match=r"does not fit the model: the model has no layer unet\.mid_block\S*7\.attn2"):
        load(tiny_model, torch.device("cpu"), loras=[Lora("x", path, 1.0)])


@pytest.mark.parametrize("text", ["a ball <lora:fog:0.8>", "<LoRA:fog>, a ball"])
def test_a_lora_in_a_prompt_is_refused_with_the_field_to_use(text: str) -> None:
    data = an_order([base("builtin://shapes")]).spec.model_dump(mode="json", by_alias=True)
    data["prompts"] |= {"templates": [text], "variables": {}}

    with pytest.raises(SpecError, match=r"spec\.prompts\.templates\[0\].*loras: \[\{uri: …/fog\.safetensors, weight"):
        Expansion(LabeledDatasetSpec.model_validate(data)).check_weights()
