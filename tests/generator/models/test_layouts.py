"""Every layout in which people have a model: it is read and draws the image of the plain folder, or it is refused."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from diffugen_api.plan import SpecError
from diffugen_generator.diffusion.drawing import DrawingSettings, DrawRequest
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.families.unet.components import load
from diffugen_generator.models.resolve import resolve
from tests.generator.drawers import ImageDrawer
from tests.generator.single_files import write_file, write_folder

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n"


class Layout(NamedTuple):
    """How a model is laid out, and what becomes of it."""

    name: str
    lay: Callable[[Path], Path]
    """Changes a copy of the plain folder; returns what to name as `model`."""
    refused: str = ""
    """A part of the message; empty if it is read."""
    pinned: bool = False
    """Whether the digest is given, as the refusal shows it."""


def changed(file: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Path], Path]:
    """Return what changes the tensors of a file."""

    def lay(folder: Path) -> Path:
        save_file(change(load_file(folder / file)), folder / file, metadata={"format": "pt"})
        return folder

    return lay


def half(folder: Path) -> Path:
    """Leave only weights in half precision, with `fp16` in their names."""
    for file in (UNET, VAE, TEXT):
        whole = folder / file
        save_file(
            {name: each.half() for name, each in load_file(whole).items()}, whole.with_suffix(".fp16.safetensors")
        )
        whole.unlink()
    return folder


def sharded(folder: Path) -> Path:
    """Divide the UNet into parts with an index."""
    network = DiffusionPipeline.from_pretrained(folder).unet
    shutil.rmtree(folder / "unet")
    network.save_pretrained(folder / "unet", max_shard_size="200KB")
    assert len(list((folder / "unet").glob("*-of-*.safetensors"))) > 1
    return folder


def pickled(folder: Path) -> Path:
    torch.save(load_file(folder / UNET), (folder / UNET).with_suffix(".bin"))
    (folder / UNET).unlink()
    return folder


def older_vae(tensors: dict[str, Any]) -> dict[str, Any]:
    """Return an autoencoder with the names of diffusers before 0.17."""
    older = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    renamed = {}
    for name, each in tensors.items():
        for new, old in older.items():
            name = name.replace(new, old) if ".attentions." in name else name  # noqa: PLW2901 - one after the other
        renamed[name] = each
    assert renamed.keys() != tensors.keys()
    return renamed


def older_text(tensors: dict[str, Any]) -> dict[str, Any]:
    """Return a text encoder with the names of transformers before 4.31."""
    whole = {f"text_model.{name.removeprefix('text_model.')}": each for name, each in tensors.items()}
    return whole | {"text_model.embeddings.position_ids": torch.arange(77)[None]}


def cached(*, top: bool) -> Callable[[Path], Path]:
    """Return what lays a model out as the Hugging Face cache does: links into a folder of blobs."""

    def lay(folder: Path) -> Path:
        cache = folder.parent / "models--org--name"
        (cache / "blobs").mkdir(parents=True)
        (cache / "refs").mkdir()
        (cache / "refs" / "main").write_text("abc")
        for file in [each for each in folder.rglob("*") if each.is_file()]:
            blob = cache / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
            link = cache / "snapshots" / "abc" / file.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, blob)
            link.symlink_to(blob)
        return cache if top else cache / "snapshots" / "abc"

    return lay


def single(name: str) -> Callable[[Path], Path]:
    return lambda folder: write_file(folder.parent / name, folder, "1")


def alone(folder: Path) -> Path:
    (folder.parent / "alone").mkdir()
    return write_file(folder.parent / "alone" / "dream.safetensors", folder, "1").parent


def beside_a_folder(folder: Path) -> Path:
    """Put another checkpoint into a folder of diffusers, which is read as before."""
    save_file({"a": torch.zeros(1)}, folder / "v1-5-pruned.safetensors")
    return folder


def saved_by(pipeline: str) -> Callable[[Path], Path]:
    def lay(folder: Path) -> Path:
        index = folder / "model_index.json"
        index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": pipeline}))
        return folder

    return lay


def with_pointer(file: str) -> Callable[[Path], Path]:
    def lay(folder: Path) -> Path:
        (folder / file).write_bytes(POINTER)
        return folder

    return lay


def renamed_pickle(folder: Path) -> Path:
    return write_file(folder.parent / "dream.ckpt", folder, "1").rename(folder.parent / "dream.safetensors")


def pointer_file(folder: Path) -> Path:
    (folder.parent / "dream.safetensors").write_bytes(POINTER)
    return folder.parent / "dream.safetensors"


TABLE = [
    Layout("a folder of diffusers", lambda folder: folder),
    Layout("weights in half precision alone", half),
    Layout("weights in parts", sharded),
    Layout("a pickled UNet", pickled, refused="only pickled weights in unet/, which may run code"),
    Layout("a pickled UNet, pinned", pickled, pinned=True),
    Layout("older names in the autoencoder", changed(VAE, older_vae)),
    Layout("older names in the text encoder", changed(TEXT, older_text)),
    Layout("a snapshot of the Hugging Face cache", cached(top=False)),
    Layout("the top folder of a model in that cache", cached(top=True)),
    Layout("a folder with a checkpoint beside", beside_a_folder),
    Layout("a folder saved by the pipeline of img2img", saved_by("StableDiffusionImg2ImgPipeline")),
    Layout("a folder of another family", saved_by("FluxPipeline"), refused="is a FluxPipeline; what can be drawn with"),
    Layout("a pointer of Git LFS in a folder", with_pointer(UNET), refused=f"in place of {UNET}; fetch the file"),
    Layout("a single file", single("dream.safetensors")),
    Layout("a folder that holds only a single file", alone),
    Layout("a single file that is a pickle", single("dream.ckpt"), refused="is a pickle, which may run code when"),
    Layout("a single file that is a pickle, pinned", single("dream.ckpt"), pinned=True),
    Layout("a pickle with the name of a single file", renamed_pickle, refused="that is a pickle and not safetensors"),
    Layout("a pointer of Git LFS in place of a single file", pointer_file, refused=r"in place of dream\.safetensors"),
]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of diffusers, whose weights are exact in half precision."""
    folder = write_folder(tmp_path_factory.mktemp("plain") / "folder", "1")
    for file in (UNET, VAE, TEXT):
        save_file(
            {name: each.half().float() for name, each in load_file(folder / file).items()},
            folder / file,
            metadata={"format": "pt"},
        )
    return folder


@pytest.fixture(scope="module")
def image(plain: Path) -> NDArray[np.uint8]:
    """What the plain folder draws."""
    return drawn(str(plain))


@pytest.fixture
def copy(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the plain folder that a test may change; its home is above it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    yield Path(shutil.copytree(plain, tmp_path / "models" / "folder"))
    shutil.rmtree(tmp_path / "models")


def drawn(uri: str, pin: str | None = None) -> NDArray[np.uint8]:
    loaded = load(resolve(uri, pin=pin), torch.device("cpu"))
    settings = DrawingSettings(width=64, height=64, steps=1, guidance=3.0, negative="a star")
    [image] = ImageDrawer(loaded, TextStates(loaded)).draw([DrawRequest("a red ball on snow", 7)], settings)
    return image


def digest_shown(uri: str) -> str:
    with pytest.raises(SpecError, match="modelSHA256 to ") as caught:
        resolve(uri)
    match = re.search(r"modelSHA256 to ([0-9a-f]{64})", str(caught.value))
    assert match is not None
    return match[1]


@pytest.mark.parametrize("layout", TABLE, ids=lambda layout: layout.name)
def test_a_layout_draws_the_image_of_the_plain_folder_or_is_refused(
    copy: Path, image: NDArray[np.uint8], layout: Layout
) -> None:
    uri = str(layout.lay(copy))
    if layout.refused:
        with pytest.raises(SpecError, match=layout.refused) as caught:
            resolve(uri, field="the.model", weights=False)
        assert str(caught.value).startswith("the.model: ")
        return
    pin = digest_shown(uri) if layout.pinned else None
    from_home = f"~/{Path(uri).relative_to(Path.home())}"

    assert np.array_equal(drawn(from_home, pin), image)
    assert resolve(uri, pin=pin).digest == resolve(from_home, pin=pin).digest


def test_another_model_draws_another_image(copy: Path, image: NDArray[np.uint8]) -> None:
    changed(UNET, lambda tensors: {name: each * 1.1 for name, each in tensors.items()})(copy)

    assert not np.array_equal(drawn(str(copy)), image)
