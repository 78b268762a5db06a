"""What the fuzz found, each kind by itself."""

from __future__ import annotations

import io
import json
import math
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from diffugen_api import layout
from diffugen_api.errors import SpecError, shortened
from diffugen_generator.bounded_json import json_of
from diffugen_generator.commands.manifests import InvalidManifest, read_datasets
from diffugen_generator.failures import BadShard, Damaged, Failure
from diffugen_generator.families.folder import settings_from
from diffugen_generator.families.unet.tensors import MOST_TENSORS, expected_of
from diffugen_generator.inversion.checkpoints import loads
from diffugen_generator.inversion.local import read_card
from diffugen_generator.inversion.result_names import CARD
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.models import cache
from diffugen_generator.models.checkpoint_pickles import header_of_pickle
from diffugen_generator.models.headers import read_header
from diffugen_generator.models.model_cards import license_in
from diffugen_generator.models.pickled_tensors import read_tensors
from diffugen_generator.publishing.history import kept_folders
from diffugen_generator.publishing.parts import Part
from diffugen_generator.publishing.published import rows_of
from diffugen_generator.samples import image_files
from diffugen_generator.samples.shards import decode_shard
from diffugen_generator.store.folder import FolderStore
from diffugen_generator.worker import read_order
from tests.generator.made import SETTINGS

HEADER = b'{"a": {"shape": [1e999]}}'
DEEP = b"[" * 100_000
HEAD = "apiVersion: diffugen.dev/v1alpha1\nkind: LabeledDataset\nmetadata: {name: a}\nspec:\n"
BOMB = ", ".join(["&a0 [x, x]", *(f"&a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60))])


def refused(folder: Path, spec: str) -> str:
    (folder / "manifest.yaml").write_text(HEAD + spec)
    with pytest.raises(InvalidManifest) as failure:
        read_datasets(folder / "manifest.yaml")
    return str(failure.value)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (f"  seed: {'9' * 5000}\n", "line 5, column 9: this value cannot be read (Exceeds the limit (4300 digits)"),
        ("  regenerateToken: 2026-99-99\n", "line 5, column 20: this value cannot be read (month must be in 1..12)"),
        (f"  classes: [{BOMB}]\n", "with its aliases it has more than 1,000,000 values"),
        ("  classes: &a [*a]\n", "with its aliases it has more than 1,000,000 values"),
        ("  seed: .inf\n", "spec.seed: .inf is not a whole number from 0 to 9007199254740991: change it"),
        (f"  seed: {'9' * 400}\n", "spec.seed: a number of more than 30 digits is not a whole number"),
        ("  image: {width: 1.0e+300}\n", "spec.image.width: 1.0e+300 is not a whole number from 64 to 2048"),
    ],
)
def test_odd_yaml_is_an_error_with_its_place(tmp_path: Path, spec: str, says: str) -> None:
    assert says in refused(tmp_path, spec)


def test_messages_have_a_bounded_length(tmp_path: Path) -> None:
    message = refused(tmp_path, f"  classes: [{', '.join(['1'] * 1000)}]\n  ? {'x' * 5000}\n  : {'y' * 5000}\n")

    assert len(message) <= 4000
    assert "spec.classes[0]: 1 is not a map with name" in message
    assert len(str(SpecError("X", "y" * 10_000))) == len(str(Failure("y" * 10_000))) <= 4000
    assert shortened("a" * 5000 + ": fix it").endswith(": fix it")


@pytest.mark.parametrize("data", [DEEP, b"NaN", b"\xff", b"{", b'{"a": ' + b"9" * 5000 + b"}"])
def test_json_that_cannot_be_read_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"nested|number|UTF-8|JSON|digits"):
        json_of(data)
    with pytest.raises(ValueError, match="not JSON"):
        settings_from(data, "config.json in unet/")
    with pytest.raises(Damaged, match="manifest"):
        list(rows_of("manifest", [_gzipped(data)]))


def _gzipped(data: bytes) -> bytes:
    import gzip

    return gzip.compress(data)


def test_a_header_with_a_number_that_is_none_cannot_be_read() -> None:
    with pytest.raises(ValueError, match="its header cannot be read"):
        read_header(lambda _, count: HEADER[:count] if count > 8 else len(HEADER).to_bytes(8, "little"))


def test_a_shards_message_does_not_quote_all_of_it() -> None:
    row = _gzipped(json.dumps({"do": "x" * 50_000}).encode() * 2)

    with pytest.raises(BadShard, match="plan again") as failure:
        decode_shard(row)
    assert len(str(failure.value)) < 500


def test_the_header_of_an_array_that_ends_too_early_is_damage() -> None:
    stream = io.BytesIO()
    np.savez(stream, maps=np.zeros((1, 2, 2), np.uint8))
    with zipfile.ZipFile(stream) as archive:
        array = archive.read("maps.npy").replace(b"(1, 2, 2), }", b"((1, 2, 2),}")
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("maps.npy", array)

    with pytest.raises(ValueError, match="not an evidence file"):
        AttentionMaps.loads(stream.getvalue())


def test_an_infinite_size_is_damage(tmp_path: Path) -> None:
    part = Part(FolderStore(tmp_path), "parts/0/", {"uploads": {"a.json": {"size": math.inf, "sha256": ""}}})
    with pytest.raises(Damaged, match=r"part.json is damaged .it does not have a\.json"):
        part.uploaded("a.json")

    (tmp_path / cache._MARK).write_text('{"files": {"a.json": [Infinity, ""]}}')
    assert cache._complete(tmp_path) is None


def test_a_history_that_cannot_be_read_is_not_pruned_by() -> None:
    row = {"dataset": "revisions/0123456789/dataset.json", "publishedAt": "2026-01-01T00:00:00Z"}

    assert kept_folders({**row, "history": [row]}) == ["0123456789"] * 2
    histories: tuple[object, ...] = ([[]], {"a": 1}, [{}], [1])
    for history in histories:
        with pytest.raises(Damaged, match=layout.CURRENT):
            kept_folders({**row, "history": history})


@pytest.mark.parametrize("data", [DEEP, b"[]", b"1", b"{"])
def test_a_damaged_card_or_checkpoint_counts_as_missing(data: bytes, tmp_path: Path) -> None:
    (tmp_path / CARD).write_bytes(data)

    assert read_card(tmp_path) is None
    with pytest.raises(ValueError, match="not a checkpoint"):
        loads(len(data).to_bytes(8, "little") + data, "a", [])


@pytest.mark.parametrize("data", [DEEP, b"1", b"[]"])
def test_a_damaged_work_order_is_named(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "order.json").write_bytes(data)

    with pytest.raises(SpecError, match="the work order .*order.json is not"):
        read_order(tmp_path / "order.json", {})


@pytest.mark.parametrize("stated", [f"[{BOMB}]", "2026-99-99", "[" * 5000, "9" * 5000])
def test_an_odd_model_card_states_no_license(stated: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(f"---\nlicense: {stated}\n---\n")

    assert license_in(tmp_path) == ""


def test_a_pickle_is_not_quoted_in_full(tmp_path: Path) -> None:
    (tmp_path / "word.bin").write_bytes(b"\x80\x02ctorch\n" + b"x" * 50_000 + b"\n.")

    with pytest.raises(ValueError, match="which could run code") as failure:
        read_tensors(tmp_path / "word.bin")
    assert len(str(failure.value)) < 300


def test_an_image_with_too_many_pixels_is_no_image() -> None:
    stream = io.BytesIO()
    from PIL import Image

    Image.new("RGB", (8, 8)).save(stream, "bmp")
    data = bytearray(stream.getvalue())
    data[18:26] = (60_000).to_bytes(4, "little") * 2

    with pytest.raises(ValueError, match="not an image"):
        image_files.decode(bytes(data))


def test_a_network_of_billions_of_layers_is_not_written_out() -> None:
    expected = expected_of("text_encoder", SETTINGS["text_encoder/config.json"] | {"num_hidden_layers": 10**12})

    assert expected is not None
    assert len(expected) == MOST_TENSORS


INFINITE = b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00(G" + struct.pack(">d", math.inf) + b"ttR."


@pytest.mark.parametrize("damage", ["infinite", "deflate", "encrypted", "method"])
def test_a_damaged_checkpoint_is_named(damage: str, tmp_path: Path) -> None:
    file = tmp_path / "model.ckpt"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", INFINITE if damage == "infinite" else pickle.dumps({"state_dict": {}}))
    data = bytearray(file.read_bytes())
    entry = data.find(b"PK\x01\x02")
    if damage == "deflate":
        data[40:45] = b"\xff" * 5
    elif damage == "encrypted":
        data[6] |= 1
        data[entry + 8] |= 1
    elif damage == "method":
        data[8] = data[entry + 10] = 97
    file.write_bytes(data)

    with pytest.raises(ValueError, match=r"cannot be read: it is broken; copy it again\.$"):
        header_of_pickle(file)
