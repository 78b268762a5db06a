"""Models of a hub: planned without their weights, fetched once, checked, and equal to the same model in a folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffugen_api.plan import SpecError
from diffugen_generator.failures import ModelRefused, ModelUnreachable
from diffugen_generator.families.unet.components import load
from diffugen_generator.models.model_cards import license_in
from diffugen_generator.models.resolve import resolve
from diffugen_generator.models.small_files import open_file
from tests.generator.hubs import Hub, a_hub

FIELD = "spec.stages[0].txt2img.model"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.setenv("DIFFUGEN_MODEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with a_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def test_a_model_of_the_hub_equals_the_same_folder(hub: Hub, own_model: Path) -> None:
    (own_model / "README.md").write_text("---\nlicense: openrail\n---\n# a model")
    (own_model / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    commit = hub.publish("org/tiny", own_model)

    model = resolve("hf://org/tiny", field=FIELD)

    here = resolve(str(own_model))
    assert (model.uri, model.digest, model.weights) == (f"hf://org/tiny@{commit}", here.digest, here.weights)
    assert load(model, torch.device("cpu")).parameters == load(here, torch.device("cpu")).parameters
    fetched = hub.fetched()
    assert not [name for name in fetched if name.endswith(".bin")]
    assert license_in(model.path) == "openrail"
    assert len([name for name in fetched if name.endswith(".safetensors")]) == 3


def test_a_plan_fetches_no_weights_and_knows_the_same_digest(hub: Hub, tiny_folder: Path) -> None:
    hub.publish("org/tiny", tiny_folder)

    planned = resolve("hf://org/tiny@main", field=FIELD, weights=False)

    assert planned.digest == resolve(str(tiny_folder)).digest
    ranges = {each for _, path, each in hub.asked if path.endswith(".safetensors")}
    assert ranges == {"bytes=0-100000"}, "only headers"
    hub.asked.clear()
    resolve("hf://org/tiny@main", field=FIELD, weights=False)
    assert not hub.fetched()


def test_a_model_whose_cached_weights_changed_is_fetched_again(hub: Hub, tiny_folder: Path) -> None:
    hub.publish("org/tiny", tiny_folder)
    model = resolve("hf://org/tiny", field=FIELD)
    file = model.path / "unet" / "diffusion_pytorch_model.safetensors"
    whole = file.read_bytes()
    file.unlink()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))

    assert resolve("hf://org/tiny", field=FIELD).digest == model.digest
    assert file.read_bytes() == whole


def test_a_repository_whose_weights_lack_a_tensor_is_refused_by_the_plan(hub: Hub, own_model: Path) -> None:
    file = own_model / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["conv_out.bias"]
    save_file(tensors, file)
    commit = hub.publish("org/tiny", own_model)

    with pytest.raises(SpecError, match="' has weights in unet/ that lack 1 of .*, conv_out.bias among") as refused:
        resolve("hf://org/tiny", field=FIELD, weights=False)

    assert str(refused.value).startswith(f"{FIELD}: 'hf://org/tiny@{commit}'")
    assert refused.value.reason == "UnsupportedModel"


def test_a_repository_with_a_broken_header_is_refused_by_the_plan(hub: Hub, own_model: Path) -> None:
    name = "unet/diffusion_pytorch_model.safetensors"
    hub.broken[name] = (30).to_bytes(8, "little") + b"not a header" * 5
    hub.publish("org/tiny", own_model)

    with pytest.raises(SpecError, match=f"has a file {name} whose header cannot be read: it is broken"):
        resolve("hf://org/tiny", field=FIELD, weights=False)


def test_the_planned_commit_draws_even_if_the_branch_has_moved(hub: Hub, own_model: Path, tiny_folder: Path) -> None:
    hub.publish("org/tiny", tiny_folder)
    planned = resolve("hf://org/tiny", field=FIELD, weights=False)
    (own_model / "scheduler" / "more.json").write_text("{}")
    hub.publish("org/tiny", own_model)

    assert resolve(planned.uri).digest == planned.digest
    assert resolve("hf://org/tiny").digest != planned.digest


def test_a_fetched_commit_needs_no_hub(hub: Hub, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.publish("org/tiny", tiny_folder)
    first = resolve("hf://org/tiny")
    hub.asked.clear()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")

    assert resolve(first.uri) == first
    assert not hub.asked


def test_a_file_that_arrives_damaged_is_never_used(hub: Hub, tiny_folder: Path, tmp_path: Path) -> None:
    hub.publish("org/tiny", tiny_folder)
    name = "unet/diffusion_pytorch_model.safetensors"
    data = bytearray((tiny_folder / name).read_bytes())
    data[-1] ^= 1
    hub.broken[name] = bytes(data)

    with pytest.raises(ModelUnreachable, match=rf"{name} of hf://org/tiny@\w+ arrived damaged, twice"):
        resolve("hf://org/tiny")

    hub.broken.clear()
    assert resolve("hf://org/tiny").digest == resolve(str(tiny_folder)).digest


def test_the_token_opens_private_and_gated_repositories(
    hub: Hub, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("org/private", "org/gated"):
        hub.publish(name, tiny_folder)
    hub.private.add("org/private")
    hub.gated.add("org/gated")

    with pytest.raises(SpecError, match=r"^spec.*no repository .*org/private, or it is private; .*HF_TOKEN"):
        resolve("hf://org/private", field=FIELD)
    with pytest.raises(ModelRefused, match=r"^spec.*org/gated is gated; accept its terms .* HF_TOKEN"):
        resolve("hf://org/gated", field=FIELD)

    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert resolve("hf://org/private").digest == resolve("hf://org/gated").digest


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("hf://org/none", "there is no repository .*org/none"),
        ("hf://org/tiny@v9", "has no revision 'v9'"),
        ("hf://org/tiny@main/unet/config.json", "names a file"),
        ("hf:///", "names no repository"),
        ("hf://org/empty", "is no diffusers folder: it has no model_index.json"),
    ],
)
def test_models_that_the_hub_does_not_have_are_refused(
    hub: Hub, tiny_folder: Path, tmp_path: Path, uri: str, words: str
) -> None:
    hub.publish("org/tiny", tiny_folder)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README.md").write_text("nothing")
    hub.publish("org/empty", tmp_path / "empty")

    with pytest.raises(SpecError, match=rf"^spec\.stages\[0\]\.txt2img\.model: .*{words}"):
        resolve(uri, field=FIELD, weights=False)


def test_a_hub_that_does_not_answer_is_a_temporary_failure(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")

    with pytest.raises(ModelUnreachable, match="127.0.0.1:9 does not answer .*HF_ENDPOINT to a mirror"):
        resolve("hf://org/tiny", field=FIELD)


def test_pickled_weights_need_their_digest(hub: Hub, own_model: Path) -> None:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(own_model / "unet")
    shutil.rmtree(own_model / "unet")
    unet.save_pretrained(own_model / "unet", safe_serialization=False)
    hub.publish("org/old", own_model)

    with pytest.raises(SpecError, match=r"only pickled weights in unet/.*modelSHA256 to [0-9a-f]{64}") as caught:
        resolve("hf://org/old", field=FIELD, weights=False)
    digest = str(caught.value).split("modelSHA256 to ")[1][:64]
    model = resolve("hf://org/old", field=FIELD, pin=digest)

    assert model.digest == digest == resolve(str(own_model), pin=digest).digest
    assert torch.equal(load(model, torch.device("cpu")).unet.conv_in.weight, unet.conv_in.weight.to(torch.float32))
    with pytest.raises(SpecError, match=r"^spec\.stages\[0\]\.txt2img\.modelSHA256: .* has the digest .* and not 0000"):
        resolve("hf://org/old", field=FIELD, pin="0" * 64)


def test_a_single_file_is_also_fetched(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "concept").mkdir()
    (tmp_path / "concept" / "learned_embeds.safetensors").write_bytes(b"vectors")
    commit = hub.publish("concepts/piano", tmp_path / "concept")

    for uri in ("hf://concepts/piano", "hf://concepts/piano@main/learned_embeds.safetensors"):
        found, path, _ = open_file(uri, field="f", default="learned_embeds.safetensors")
        assert found == f"hf://concepts/piano@{commit}/learned_embeds.safetensors"
        assert path.read_bytes() == b"vectors"
    with pytest.raises(SpecError, match=r"has no such file|no file"):
        open_file("hf://concepts/piano/other.pt", field="f")
