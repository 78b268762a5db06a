"""Models in single files: read by their headers, converted by diffusers, equal to the folder of the same weights."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from diffugen_api.plan import SpecError
from diffugen_api.v1alpha1 import S3
from diffugen_generator.cli import app
from diffugen_generator.diffusion.drawing import DrawingSettings, DrawRequest
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.families.unet.components import Components, load
from diffugen_generator.models.buckets import BucketFolder
from diffugen_generator.models.model_cards import license_in
from diffugen_generator.models.resolve import resolve
from tests.generator.drawers import ImageDrawer
from tests.generator.hubs import Hub, a_hub
from tests.generator.models.test_headers import Bucket
from tests.generator.single_files import LAYOUTS, write_file, write_folder
from tests.generator.test_cli import a_manifest

CPU = torch.device("cpu")
SETTINGS = DrawingSettings(width=64, height=64, steps=2, guidance=3.0, negative="a star")
REQUESTS = [DrawRequest("a red ball on snow", 1), DrawRequest("a photo of a cat", 2**63 - 1)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


def uri_of(layout: str, file: Path | str) -> str:
    return f"{file}#{'v_prediction' if layout == '2-v' else 'epsilon'}" if layout in {"2", "2-v"} else str(file)


def networks_of(loaded: Components) -> list[Any]:
    return [loaded.unet, loaded.vae, *(each.network for each in loaded.encoders)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_single_file_has_the_weights_and_draws_the_images_of_the_folder(layout: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", layout)
    file = write_file(tmp_path / "file.safetensors", folder, layout)

    single, plain = (load(resolve(uri), CPU) for uri in (uri_of(layout, file), str(folder)))

    assert len(networks_of(single)) == (4 if layout.startswith("XL") else 3)
    for one, other in zip(networks_of(single), networks_of(plain), strict=True):
        weights = dict(other.named_parameters())
        assert {name for name, _ in one.named_parameters()} == set(weights)
        assert all(torch.equal(each, weights[name]) for name, each in one.named_parameters())
    assert type(single.scheduler) is type(plain.scheduler)
    ours, same = (ImageDrawer(each, TextStates(each)).draw(REQUESTS, SETTINGS) for each in (single, plain))
    assert np.array_equal(np.stack(ours), np.stack(same))
    assert np.stack(ours).std() > 5
    if "inpaint" not in layout:  # diffusers' pipeline for inpainting draws nothing from text alone
        assert np.abs(np.stack(ours) / 255 - drawn_by_diffusers(folder)).max() <= 2.5 / 255


def drawn_by_diffusers(folder: Path) -> Any:
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        [each.prompt for each in REQUESTS],
        negative_prompt=[SETTINGS.negative] * len(REQUESTS),
        num_inference_steps=SETTINGS.steps,
        guidance_scale=SETTINGS.guidance,
        width=SETTINGS.width,
        height=SETTINGS.height,
        generator=[torch.Generator().manual_seed(each.seed) for each in REQUESTS],
        output_type="np",
    ).images


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the first generation; don't change it, copy it."""
    top = tmp_path_factory.mktemp("file")
    return write_file(top / "dream.safetensors", write_folder(top / "folder", "1"), "1")


@pytest.fixture(scope="module")
def pickle(file: Path) -> Path:
    """The same checkpoint as a pickle of torch."""
    return write_file(file.with_suffix(".ckpt"), file.parent / "folder", "1")


@pytest.fixture
def top(file: Path, tmp_path: Path) -> Path:
    """A folder that holds only the file and a card."""
    (tmp_path / "top").mkdir()
    shutil.copy(file, tmp_path / "top")
    (tmp_path / "top" / "README.md").write_text("---\nlicense: openrail\n---\n")
    return tmp_path / "top"


@pytest.fixture
def hub(top: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with a_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.publish("org/dream", top)
        yield hub


@pytest.fixture
def bucket(top: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """The folder at `s3://data/models`."""
    bucket, begin = Bucket(top), BucketFolder.__init__

    def in_folder(self: BucketFolder, uri: str, field: str, s3: S3 | None, *, single: bool = False) -> None:
        begin(self, uri, field, s3, single=single)
        self._store = bucket  # type: ignore[assignment]

    monkeypatch.setattr(BucketFolder, "__init__", in_folder)
    return bucket


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_the_digest_is_the_sha256_of_the_file_and_the_same_in_every_place(
    file: Path, top: Path, hub: Hub, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.branches["org/dream@main"]
    monkeypatch.setenv("HOME", str(top.parent))
    named = {
        str(file): str(file),
        "~/top/dream.safetensors": "~/top/dream.safetensors",
        str(top): f"{top}/dream.safetensors",
        "hf://org/dream@main/dream.safetensors": f"hf://org/dream@{commit}/dream.safetensors",
        "hf://org/dream/dream.safetensors@main": f"hf://org/dream@{commit}/dream.safetensors",
        "hf://org/dream/dream.safetensors": f"hf://org/dream@{commit}/dream.safetensors",
        "hf://org/dream": f"hf://org/dream@{commit}/dream.safetensors",
        "s3://data/models/dream.safetensors": "s3://data/models/dream.safetensors",
        "s3://data/models": "s3://data/models/dream.safetensors",
    }

    for uri, full in named.items():
        for weights in (False, True):
            found = resolve(uri, weights=weights)
            assert (found.uri, found.digest, found.pipeline) == (full, sha256(file), "StableDiffusionPipeline")
            assert resolve(full, weights=weights).digest == found.digest
    assert license_in(resolve("hf://org/dream").path) == "openrail"


def test_a_plan_reads_only_the_header_of_a_remote_file(hub: Hub, bucket: Bucket, top: Path) -> None:
    for uri in ("hf://org/dream@main/dream.safetensors", "s3://data/models/dream.safetensors"):
        assert resolve(uri, weights=False).checkpoint is None

    size = (top / "dream.safetensors").stat().st_size
    asked = [each for each in hub.asked if each[1].endswith("dream.safetensors")]
    assert asked
    assert all(each[0] == "HEAD" or each[2].startswith("bytes=0-") for each in asked)
    assert all(int(each[2].rpartition("-")[2]) < size / 2 for each in asked if each[2])
    assert [offset for _, offset, _ in bucket.ranges] == [0, 8]
    assert load(resolve("hf://org/dream@main/dream.safetensors"), CPU).inpaints is False


def test_what_the_network_predicts_is_part_of_the_digest_only_if_the_file_does_not_say_it(file: Path) -> None:
    plain, same, other = (resolve(f"{file}{end}") for end in ("", "#epsilon", "#v_prediction"))

    assert (plain.digest, same.digest) == (sha256(file), sha256(file))
    assert other.digest not in {plain.digest, ""}
    assert other.uri == f"{file}#v_prediction"
    assert load(other, CPU).scheduler.config.prediction_type == "v_prediction"
    with pytest.raises(SpecError, match=r"ends with #v, and a checkpoint may end with #epsilon or #v_prediction"):
        resolve(f"{file}#v")


def test_a_pickle_is_loaded_only_with_its_sha256_and_runs_no_code(
    file: Path, pickle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    field = "spec.stages[0].txt2img.model"
    with pytest.raises(SpecError, match=rf"is a pickle, .*set spec\S+modelSHA256 to {sha256(pickle)} if you trust it"):
        resolve(str(pickle), field=field)
    with pytest.raises(SpecError, match=rf"^spec\S+modelSHA256: .*has the SHA-256 {sha256(pickle)}, and not 0000"):
        resolve(str(pickle), field=field, pin="0" * 64)
    flags: list[Any] = []
    read = torch.load
    monkeypatch.setattr(
        torch, "load", lambda *given, **more: (flags.append(more.get("weights_only")), read(*given, **more))[1]
    )

    found = resolve(str(pickle), field=field, pin=sha256(pickle))

    one, other = load(found, CPU).unet.state_dict(), load(resolve(str(file)), CPU).unet.state_dict()
    assert (found.digest, flags) == (sha256(pickle), [True])
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_a_pickle_of_the_hub_is_refused_before_it_is_fetched(hub: Hub, pickle: Path, top: Path) -> None:
    shutil.copy(pickle, top)
    hub.publish("org/pickled", top)

    with pytest.raises(SpecError, match=r"modelSHA256 to [0-9a-f]{64} if you trust it"):
        resolve("hf://org/pickled@main/dream.ckpt", weights=False)
    assert "dream.ckpt" not in hub.fetched()

    assert resolve("hf://org/pickled@main/dream.ckpt", pin=sha256(pickle), weights=False).digest == sha256(pickle)


class Callback:
    """What trainers leave in checkpoints."""


def spoiled(file: Path, folder: Path, how: str) -> Path:
    """Return a broken copy of a checkpoint."""
    copy = folder / "broken.safetensors"
    if how == "cut":
        copy.write_bytes(file.read_bytes()[:-7])
    elif how == "pointer":
        copy.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n")
    elif how == "pickle":
        torch.save({"state_dict": {}}, copy)
    elif how == "lacking":
        tensors = load_file(file)
        del tensors["model.diffusion_model.out.2.bias"]
        save_file(tensors, copy)
    elif how == "lora":
        save_file({"lora_unet_mid.lora_up.weight": torch.zeros(2, 2)}, copy)
    elif how == "several":
        shutil.copy(file, folder / "a.safetensors")
        shutil.copy(file, folder / "b.safetensors")
        return folder
    elif how == "nothing":
        return folder / "none.safetensors"
    elif how == "code":
        copy = copy.with_suffix(".ckpt")
        torch.save({"state_dict": {}, "callbacks": Callback()}, copy)
    else:
        copy = copy.with_suffix(".ckpt")
        copy.write_bytes(b"no archive")
    return copy


FAULTS = {
    "cut": r"broken\.safetensors of [0-9,]+ bytes whose header tells of [0-9,]+: it was cut short",
    "pointer": r"a pointer of Git LFS in place of broken\.safetensors; fetch the file itself with `git lfs pull`",
    "pickle": r"broken\.safetensors that is a pickle and not safetensors, and may run code .*; save it as safetensors",
    "lacking": r"lacks the tensor model\.diffusion_model\.out\.2\.bias: copy it again, or name another checkpoint",
    "lora": r"is a LoRA; name it in the stage's field loras, beside its model",
    "several": r"is no diffusers folder and has 2 checkpoints: name one of a\.safetensors, b\.safetensors",
    "nothing": r"there is no file .*none\.safetensors'; give an absolute path, s3://BUCKET/FILE or hf://",
    "code": r"is a pickle that names tests\.\S+\.Callback, which could run code; save it as safetensors",
    "archive": r"is no checkpoint of torch 1\.6 or later, or it was cut short; save it as safetensors",
}


@pytest.mark.parametrize("how", FAULTS)
def test_a_file_that_cannot_be_used_is_refused_with_the_field_and_the_fix(file: Path, tmp_path: Path, how: str) -> None:
    broken = spoiled(file, tmp_path, how)
    pin = sha256(broken) if broken.suffix == ".ckpt" else None

    with pytest.raises(SpecError, match=rf"^the\.model: .*{FAULTS[how]}") as caught:
        resolve(str(broken), field="the.model", pin=pin, weights=False)

    assert caught.value.reason == ("UnknownModel" if how == "nothing" else "UnsupportedModel")


@pytest.mark.parametrize(
    ("place", "how"),
    [(place, how) for how in ("pickle", "lacking", "lora", "several", "nothing") for place in ("hub", "bucket")]
    + [("bucket", "cut")],  # the digest on the hub is that of the file as it is there
)
def test_a_remote_file_that_cannot_be_used_is_refused_by_its_header(
    file: Path, tmp_path: Path, hub: Hub, bucket: Bucket, place: str, how: str
) -> None:
    (tmp_path / "remote").mkdir()
    broken = spoiled(file, tmp_path / "remote", how)
    name = "" if broken.is_dir() else broken.name
    hub.publish("org/broken", tmp_path / "remote")
    bucket.folder = tmp_path / "remote"
    (tmp_path / "remote" / "README.md").write_text("something else")
    words = r"there is no '(hf|s3)://.*none\.safetensors'.*; check its name" if how == "nothing" else FAULTS[how]
    uri = f"hf://org/broken@main/{name}".rstrip("/") if place == "hub" else f"s3://data/models/{name}"

    with pytest.raises(SpecError, match=rf"^the\.model: .*{words.replace('copy it again', '.*')}"):
        resolve(uri, field="the.model", weights=False)


def run(folder: Path, model: str, **settings: Any) -> Result:
    stage = {"name": "base", "txt2img": {"model": model, "steps": 1, **settings}}
    manifest = a_manifest(folder, model, stages=[stage])
    return CliRunner(env={"COLUMNS": "1000"}).invoke(app, ["run", str(manifest), "--store", str(folder / "out")])


def test_a_dataset_is_drawn_with_a_pickle_that_is_pinned(pickle: Path, tmp_path: Path) -> None:
    ended = run(tmp_path, str(pickle), modelSHA256=sha256(pickle))

    assert ended.exit_code == 0, ended.stderr
    recipes = [json.loads(file.read_bytes()) for file in (tmp_path / "out").rglob("recipe.json")]
    assert recipes
    assert {each["drawing"]["model"] for each in recipes} == {sha256(pickle)}


@pytest.mark.parametrize("how", ["lora", "lacking", "pickle"])
def test_nothing_is_drawn_with_a_file_that_cannot_be_used(file: Path, tmp_path: Path, how: str) -> None:
    ended = run(tmp_path, str(spoiled(file, tmp_path, how)))

    said = " ".join(ended.stderr.split())
    assert ended.exit_code == 64, said
    assert re.search(rf"spec\.stages\[0\]\.txt2img\.model: .*{FAULTS[how]}", said), said
    assert not list((tmp_path / "out").rglob("image.*"))
