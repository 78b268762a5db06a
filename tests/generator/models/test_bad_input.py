"""Bad models and embeddings: `diffugen run` draws nothing and exits with 64; one sentence names field and fix."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from diffugen_generator.cli import app
from tests.generator.test_cli import a_manifest

BASE = "spec.stages[0].txt2img"
MODEL = f"{BASE}.model"
WORD = f"{BASE}.embeddings[0]"
SCHEDULER = "scheduler/scheduler_config.json"
EMPTY = '{"model": {"vocab": {}}}'
TEXT = "text_encoder/config.json"


def changed(file: str, **settings: Any) -> Callable[[Path], dict[str, Any]]:
    def change(model: Path) -> dict[str, Any]:
        path = model / file
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))
        return {}

    return change


def rewritten(file: str, content: str) -> Callable[[Path], dict[str, Any]]:
    def rewrite(model: Path) -> dict[str, Any]:
        (model / file).write_text(content)
        return {}

    return rewrite


UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXTS = "text_encoder/model.safetensors"


def weights(change: Callable[[bytes], bytes]) -> Callable[[Path], dict[str, Any]]:
    def spoil(model: Path) -> dict[str, Any]:
        (model / UNET).write_bytes(change((model / UNET).read_bytes()))
        return {}

    return spoil


def tensors(file: str, name_of: Callable[[str], str]) -> Callable[[Path], dict[str, Any]]:
    """Rename the tensors of a file; those without a new name are left out."""

    def spoil(model: Path) -> dict[str, Any]:
        kept = {name_of(name): tensor for name, tensor in load_file(model / file).items() if name_of(name)}
        save_file(kept, model / file, metadata={"format": "pt"})
        return {}

    return spoil


def without(file: str) -> Callable[[Path], dict[str, Any]]:
    return lambda model: (model / file).unlink() or {}


def pickled(model: Path) -> dict[str, Any]:
    weights = model / VAE
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    return {}


def word(
    token: str = "<x>", width: int = 32, spoil: bytes | None = None, short: int = 0
) -> Callable[[Path], dict[str, Any]]:
    def add(model: Path) -> dict[str, Any]:
        path = model.parent / "x.safetensors"
        save_file({"<x>": torch.zeros(1, width)}, path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size - short])
        if spoil is not None:
            path.write_bytes(spoil)
        return {"embeddings": [{"uri": str(path), "token": token}]}

    return add


@pytest.mark.parametrize(
    ("spoil", "field", "words"),
    [
        (lambda m: shutil.rmtree(m) or {}, MODEL, "there is no folder .*; mount the model's diffusers folder there"),
        (lambda m: (m / "model_index.json").unlink() or {}, MODEL, "it has no model_index.json"),
        (changed("model_index.json", _class_name="FluxPipeline"), MODEL, "is a FluxPipeline; what can be drawn"),
        (changed("unet/config.json", cross_attention_dim=768), MODEL, "width 768 .* 32: .*; save it again"),
        (without(VAE), MODEL, "has no weights in vae/"),
        (pickled, MODEL, r"only pickled weights in vae/.*save it again .*\.modelSHA256 to [0-9a-f]{64}"),
        (lambda _: {"modelSHA256": "0" * 64}, "txt2img.modelSHA256", "and not 0000.*leave the field out"),
        (lambda _: {"scheduler": "magic"}, "spec.stages[0].txt2img.scheduler", "'magic' is not ddim, ddpm"),
        (word("ball"), f"{WORD}.token", "is a word that the model knows already; write another"),
        (word("two words"), f"{WORD}.token", "is not one word"),
        (word(width=768), f"{WORD}.uri", "vectors of 768 numbers where .* reads 32; give one"),
        (word(short=1), f"{WORD}.uri", "cannot be read; give a whole"),
        (word(spoil=b"nonsense"), f"{WORD}.uri", "cannot be read; give a whole"),
        (lambda _: {"embeddings": [{"uri": "/none.pt", "token": "<x>"}]}, f"{WORD}.uri", "no file '/none.pt'; give"),
        (weights(lambda whole: whole[:-1]), MODEL, f"{UNET} of [0-9,]+ bytes whose header .*; copy it again"),
        (weights(lambda whole: whole + b"x"), MODEL, f"{UNET} of [0-9,]+ bytes whose header .*; copy it again"),
        (weights(lambda whole: whole[:1000]), MODEL, f"{UNET} whose header cannot be read: .*; copy it again"),
        (weights(lambda _: b""), MODEL, f"{UNET} whose header cannot be read: .*; copy it again"),
        (weights(lambda _: b"version https://git-lfs"), MODEL, f"in place of {UNET}; fetch .*lfs pull"),
        (changed(SCHEDULER, _class_name="os.system"), MODEL, "a scheduler 'os.system' .*; name one in"),
        (changed(SCHEDULER, _class_name="FooScheduler"), MODEL, r"'FooScheduler' .*; name one in .*txt2img\.scheduler"),
        (changed(SCHEDULER, _class_name="DPMSolverSDEScheduler"), MODEL, "noise that no seed .*; name one in"),
        (changed(SCHEDULER, _class_name="PNDMScheduler"), f"{BASE}.steps", "1 .* at least 4; give it as many, or name"),
        (lambda _: {"scheduler": "lcm", "steps": 51}, f"{BASE}.steps", "51 .* at most 50; give it as many, or name"),
        (rewritten("tokenizer/tokenizer.json", "{"), MODEL, "tokenizer.json in tokenizer/ that is not JSON: .*; copy"),
        (rewritten("tokenizer/tokenizer.json", "{}"), MODEL, "in tokenizer/ without a vocabulary; save it again"),
        (rewritten("tokenizer/tokenizer_config.json", "["), MODEL, "tokenizer_config.json in .* not JSON: .*; copy"),
        (rewritten("tokenizer/tokenizer.json", EMPTY), "tokenizer of the model", "cannot be read: .*; save it again"),
        (without("tokenizer/tokenizer.json"), MODEL, "neither tokenizer.json nor vocab.json and merges.txt .*; save"),
        (changed("tokenizer/tokenizer_config.json", model_max_length=1), MODEL, "texts of 1 tokens.*: fix model_max"),
        (changed(TEXT, hidden_size=None), MODEL, f"hidden_size None in {TEXT} where a number .*: fix it, or save"),
        (changed(TEXT, vocab_size=0), MODEL, f"vocab_size 0 in {TEXT} where a number of 1 or more .*: fix it"),
        (changed(TEXT, max_position_embeddings="77"), MODEL, f"max_position_embeddings '77' in {TEXT} .*: fix it"),
        (changed("unet/config.json", in_channels="four"), MODEL, "in_channels 'four' in unet/config.json .*: fix it"),
        (changed("unet/config.json", sample_size=None), MODEL, "no sample_size in unet/config.json, .*: write it"),
        (changed("unet/config.json", sample_size=[16]), MODEL, r"sample_size \[16\] in unet/config.json, .*: write it"),
        (changed("vae/config.json", latent_channels=4.5), MODEL, "latent_channels 4.5 in vae/config.json .*: fix it"),
        (tensors(UNET, lambda name: "" if "attn2" in name else name), MODEL, "unet/ that lack .*attn2.*: copy it"),
        (tensors(VAE, lambda name: "" if name.startswith("decoder.up") else name), MODEL, "vae/ that lack .*decoder"),
        (tensors(TEXTS, lambda name: f"{name}.other"), MODEL, "text_encoder/ that lack .*embeddings.*: copy it again"),
    ],
)  # fmt: skip
def test_bad_models_and_embeddings_give_one_sentence_and_exit_code_64(
    own_model: Path, tmp_path: Path, spoil: Callable[[Path], dict[str, Any]], field: str, words: str
) -> None:
    settings = spoil(own_model)
    stage = {"name": "base", "txt2img": {"model": str(own_model), "steps": 1, **settings}}
    manifest = a_manifest(tmp_path, str(own_model), stages=[stage])

    ended = CliRunner(env={"COLUMNS": "1000"}).invoke(app, ["run", str(manifest), "--store", str(tmp_path / "out")])

    said = " ".join(ended.stderr.split())
    assert ended.exit_code == 64, said
    assert field in said
    assert re.search(words, said), said
    assert not list((tmp_path / "out").rglob("image.*"))


BAD: list[tuple[Callable[[Path], dict[str, Any]], str]] = [
    (changed(SCHEDULER, _class_name="FooScheduler"), "model"),
    (changed("tokenizer/tokenizer_config.json", model_max_length=1), "model"),
    (rewritten("tokenizer/tokenizer.json", "{"), "model"),
    (changed(TEXT, hidden_size=None), "model"),
    (changed("unet/config.json", sample_size=None), "model"),
    (lambda _: {"scheduler": "lcm", "steps": 60}, "steps"),
]


@pytest.mark.parametrize(("spoil", "field"), BAD)
def test_a_fault_of_a_later_stage_is_reported_before_the_first_stage_draws(
    own_model: Path, tiny_folder: Path, tmp_path: Path, spoil: Callable[[Path], dict[str, Any]], field: str
) -> None:
    base = {"name": "base", "txt2img": {"model": str(tiny_folder), "steps": 1}}
    later = {"from": "base", "model": str(own_model), "variables": {"color": ["green"]}, **spoil(own_model)}
    manifest = a_manifest(tmp_path, str(tiny_folder), stages=[base, {"name": "later", "img2img": later}])

    ended = CliRunner(env={"COLUMNS": "1000"}).invoke(app, ["run", str(manifest), "--store", str(tmp_path / "out")])

    said = " ".join(ended.stderr.split())
    assert ended.exit_code == 64, said
    assert f"spec.stages[1].img2img.{field}: " in said
    assert not list((tmp_path / "out").rglob("image.*"))


def test_a_named_scheduler_replaces_a_models_own_that_cannot_draw(own_model: Path, tmp_path: Path) -> None:
    changed(SCHEDULER, _class_name="FooScheduler")(own_model)
    stage = {"name": "base", "txt2img": {"model": str(own_model), "steps": 1, "scheduler": "ddim"}}

    ended = CliRunner().invoke(
        app, ["run", str(a_manifest(tmp_path, str(own_model), stages=[stage])), "--store", str(tmp_path / "out")]
    )

    assert ended.exit_code == 0, ended.stderr
    assert list((tmp_path / "out").rglob("image.*"))


def test_plan_runs_the_schedulers_when_it_is_asked(own_model: Path, tmp_path: Path) -> None:
    changed(SCHEDULER, _class_name="EulerAncestralDiscreteScheduler", beta_end=0.999)(own_model)
    manifest = str(a_manifest(tmp_path, str(own_model)))

    assert CliRunner().invoke(app, ["plan", manifest]).exit_code == 0
    ended = CliRunner().invoke(app, ["plan", manifest, "--run-schedulers"])

    assert (ended.exit_code, ended.stdout) == (64, "")
    assert f"{BASE}.steps: the scheduler of" in ended.stderr
    assert "numbers that are not finite; give the stage another number of steps" in ended.stderr
