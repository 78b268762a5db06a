"""A stage draws with its own embeddings and with those of its source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from diffugen_api.plan import Expansion, SpecError
from diffugen_api.v1alpha1 import LabeledDatasetSpec, embeddings_of
from diffugen_generator.planning.plan import stages_of
from diffugen_generator.store.folder import FolderStore
from tests.generator import graphs
from tests.generator.made import an_order, planned_shards, spec_data


# fault 17 of DiffuGen's catalog
@pytest.mark.parametrize(
    "later",
    [
        {"img2img": {"from": "base", "variables": {"place": ["sand"]}}},
        {"inpaint": {"from": "base", "replacements": {"ball": ["a <piano>"]}}},
    ],
    ids=["img2img", "inpaint"],
)
def test_an_embeddings_word_is_one_word_in_stages_of_every_kind(
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


# fault 17 of DiffuGen's catalog
@pytest.mark.parametrize(
    ("place", "later"),
    [
        ("<piano>", graphs.redrawn("later", "base")),
        ("snow", graphs.redrawn("later", "base", variables={"place": ["<piano>"]})),
        ("snow", graphs.repainted("later", "base", replacements={"ball": ["a <piano>"]})),
    ],
    ids=["txt2img", "img2img", "inpaint"],
)
def test_stages_of_every_kind_draw_with_the_embedding_of_their_source(
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


# fault 17 of DiffuGen's catalog
def test_an_embedding_that_does_not_fit_is_an_error_before_anything_is_drawn(tiny_folder: Path, tmp_path: Path) -> None:
    save_file({"<x>": torch.ones(1, 768)}, tmp_path / "wide.safetensors")
    model = {"model": str(tiny_folder), "embeddings": [{"uri": str(tmp_path / "wide.safetensors"), "token": "<x>"}]}
    spec = an_order(str(tiny_folder), stages=[{"name": "base", "txt2img": model}]).spec

    with pytest.raises(SpecError, match=r"^spec\.stages\[0\]\.txt2img\.embeddings\[0\]\.uri: .* of 768 numbers"):
        stages_of(Expansion(spec))
