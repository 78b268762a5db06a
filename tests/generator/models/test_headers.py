"""Incomplete weights are found by their header, in any place, before anything is fetched or drawn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from diffugen_api.plan import SpecError
from diffugen_api.v1alpha1 import S3
from diffugen_generator.models.buckets import BucketFolder
from diffugen_generator.models.headers import Head
from diffugen_generator.models.resolve import resolve

UNET = "unet/diffusion_pytorch_model.safetensors"


class Bucket:
    """A folder with the interface of a bucket."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ranges: list[tuple[str, int, int]] = []

    def details(self, _: str) -> Iterator[tuple[str, int, str]]:
        for file in sorted(self.folder.rglob("*.*")):
            yield file.relative_to(self.folder).as_posix(), file.stat().st_size, "an-etag"

    def stream(self, name: str) -> Iterator[bytes]:
        whole = (self.folder / name).read_bytes()
        for start in range(0, len(whole), 1000):
            yield whole[start : start + 1000]

    def read_range(self, name: str, offset: int, count: int) -> bytes:
        self.ranges.append((name, offset, count))
        return (self.folder / name).read_bytes()[offset : offset + count]


@pytest.fixture
def bucket(own_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the model at `s3://data/model`."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    begin = BucketFolder.__init__

    def in_folder(self: BucketFolder, uri: str, field: str, s3: S3 | None, *, single: bool = False) -> None:
        begin(self, uri, field, s3, single=single)
        self._store = Bucket(own_model)  # type: ignore[assignment]

    monkeypatch.setattr(BucketFolder, "__init__", in_folder)
    return own_model


@pytest.mark.parametrize("weights", [False, True])
def test_incomplete_weights_in_a_bucket_are_refused(bucket: Path, *, weights: bool) -> None:
    whole = (bucket / UNET).read_bytes()
    (bucket / UNET).write_bytes(whole[:-7])

    with pytest.raises(SpecError, match=rf"^the\.field: 's3://data/model' has a file {UNET} of .*; copy it again\.$"):
        resolve("s3://data/model", field="the.field", weights=weights)

    (bucket / UNET).write_bytes(whole)
    assert resolve("s3://data/model", field="the.field", weights=False).weights > {UNET}


@pytest.mark.parametrize("step", [1, 7, 4096])
def test_the_header_is_checked_in_a_file_read_in_pieces(own_model: Path, step: int) -> None:
    whole = (own_model / UNET).read_bytes()[: 1 << 16]
    head = Head(UNET)
    for start in range(0, len(whole), step):
        head.take(whole[start : start + step])

    head.check((own_model / UNET).stat().st_size)
    Head("unet/weights.bin").check(5)
    with pytest.raises(ValueError, match="of 65,536 bytes whose header tells of"):
        head.check(len(whole))


def without(model: Path, tensor: str) -> None:
    """Remove a tensor from the UNet's weights."""
    tensors = load_file(model / UNET)
    del tensors[tensor]
    save_file(tensors, model / UNET)


LACKING = r"has weights in unet/ that lack 1 of \d+ tensors, conv_out.bias among them: copy it again, or name another"


@pytest.mark.parametrize("weights", [False, True])
def test_a_bucket_whose_weights_lack_a_tensor_is_refused(bucket: Path, *, weights: bool) -> None:
    without(bucket, "conv_out.bias")

    with pytest.raises(SpecError, match=rf"^the\.field: 's3://data/model' {LACKING}"):
        resolve("s3://data/model", field="the.field", weights=weights)


def test_a_folder_whose_weights_lack_a_tensor_is_refused(own_model: Path) -> None:
    without(own_model, "conv_out.bias")

    with pytest.raises(SpecError, match=LACKING):
        resolve(str(own_model))


def test_only_the_header_of_an_object_is_read_for_its_shapes(bucket: Path) -> None:
    folder = BucketFolder("s3://data/model", "the.field", None)

    shapes = folder.header(UNET).shapes

    whole = {name: tuple(tensor.shape) for name, tensor in load_file(bucket / UNET).items()}
    header = int.from_bytes((bucket / UNET).read_bytes()[:8], "little")
    assert shapes == whole
    assert folder._store.ranges == [(UNET, 0, 8), (UNET, 8, header)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("start", [b"", b"\xff" * 8, (5).to_bytes(8, "little") + b"[1,2]", b"version https://git-lfs"])
def test_an_object_without_a_header_is_refused(bucket: Path, start: bytes) -> None:
    (bucket / UNET).write_bytes(start)

    with pytest.raises(
        SpecError, match=rf"^the\.field: 's3://data/model' has a file {UNET}, and its header (is|cannot)"
    ):
        BucketFolder("s3://data/model", "the.field", None).header(UNET)
