"""Pickled weights are neither shipped nor loaded without a digest."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from diffugen_api.plan import SpecError
from diffugen_generator.families.unet.components import load
from diffugen_generator.models.resolve import resolve

REPOSITORY = Path(__file__).parents[3]
CPU = torch.device("cpu")


# fault 20 of DiffuGen's catalog
def test_no_pickled_weights_are_shipped() -> None:
    packages = [REPOSITORY / part for part in ("crds", "operator", "generator", "devcluster", "examples")]
    files = [file for package in packages for file in package.rglob("*") if file.is_file()]

    assert any(file.suffix == ".safetensors" for file in files)
    assert not [file for file in files if file.suffix in {".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"}]


# fault 20 of DiffuGen's catalog
def test_pickled_weights_are_loaded_only_with_their_digest_and_run_no_code(
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


@pytest.mark.parametrize("name", ["unet/diffusion_pytorch_model.bin", "dream.ckpt"])
def test_a_pointer_of_git_lfs_is_no_pickle_to_trust(own_model: Path, name: str) -> None:
    for file in (own_model / "unet").glob("*.safetensors"):
        file.unlink()
    (own_model / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n")

    with pytest.raises(SpecError, match=f"has a pointer of Git LFS in place of {name}; fetch the file itself"):
        resolve(str(own_model / name if name.endswith(".ckpt") else own_model))
