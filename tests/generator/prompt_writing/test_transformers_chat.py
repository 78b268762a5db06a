"""A chat model of transformers, tiny and with random weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from diffugen_api.errors import SpecError
from diffugen_generator.models.side_models import find_chat_model
from diffugen_generator.prompt_writing.transformers_chat import TransformersChat
from tests.generator.chat_models import TEMPLATE, a_chat_model
from tests.generator.hubs import a_hub

REQUESTS = ["a ball", "a star with a big old ball near sand", "red"]


def loaded(path: str, **settings: Any) -> TransformersChat:
    found = find_chat_model(path, "--model")
    return TransformersChat(
        found, torch.device("cpu"), **{"dtype": "auto", "temperature": 1.0, "most_tokens": 10, **settings}
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return a_chat_model(tmp_path_factory.mktemp("chat"))


def test_the_seed_alone_decides_the_replies(path: str) -> None:
    chat = loaded(path)
    state = torch.random.get_rng_state()

    first = chat.replies(REQUESTS, seed=1)
    torch.rand(3)
    again = loaded(path).replies(REQUESTS, seed=1)

    assert first == again != chat.replies(REQUESTS, seed=2)
    assert len(first) == len(set(first)) == 3
    torch.random.set_rng_state(state)
    chat.replies(REQUESTS, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state), "the process's own randomness goes on undisturbed"


def test_at_temperature_0_the_likeliest_words_are_taken_in_any_batch(path: str) -> None:
    chat = loaded(path, temperature=0.0)

    together = chat.replies(REQUESTS, seed=1)

    assert together == chat.replies(REQUESTS, seed=2)
    assert together == [chat.replies([each], seed=1)[0] for each in REQUESTS], "padding changes nothing"


def test_a_reply_has_no_part_of_the_request_and_no_special_token(path: str) -> None:
    for reply in loaded(path, most_tokens=4).replies(REQUESTS, seed=1):
        assert len(reply.split()) <= 4
        assert "<" not in reply


def test_the_chat_template_writes_the_request(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = loaded(path)
    seen: list[str] = []
    tokenize = type(chat._tokenizer).__call__

    def spy(self: Any, texts: list[str], **options: Any) -> Any:
        seen.extend(texts)
        assert not options["add_special_tokens"], "the template has them"
        return tokenize(self, texts, **options)

    monkeypatch.setattr(type(chat._tokenizer), "__call__", spy)
    chat.replies(["a ball"], seed=0)

    assert seen == ["user a ball a "]


def test_thoughts_that_the_template_begins_are_part_of_the_reply(tmp_path: Path) -> None:
    chat = loaded(a_chat_model(tmp_path, template=f"{TEMPLATE}<think>\n"))

    assert all(reply.startswith("<think>") for reply in chat.replies(REQUESTS, seed=1))


def test_a_model_is_fetched_with_its_chat_template_and_has_the_digest_of_its_folder(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUGEN_MODEL_CACHE", str(tmp_path / "cache"))
    with a_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        commit = hub.publish("org/chat", Path(path))
        found = find_chat_model("hf://org/chat", "--model")

    assert (found.uri, found.digest) == (f"hf://org/chat@{commit}", find_chat_model(path, "--model").digest)
    assert (found.path / "chat_template.jinja").read_text() == TEMPLATE


def test_a_second_copy_of_the_weights_in_another_layout_is_not_read(path: str, tmp_path: Path) -> None:
    for file in Path(path).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "consolidated.safetensors").write_bytes(b"not read")

    assert find_chat_model(str(tmp_path), "--model").digest == find_chat_model(path, "--model").digest


def test_a_model_with_missing_weights_is_refused(path: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in Path(path).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    save_file({name: each for name, each in weights.items() if "mlp" not in name}, tmp_path / "model.safetensors")

    with pytest.raises(SpecError, match="--model: the model .* cannot be loaded as a llama: weights are missing"):
        loaded(str(tmp_path))


def settings_of(path: str, copy: Path, name: str, **changes: Any) -> Path:
    """Copy a model, with changes of one file of settings."""
    for file in Path(path).iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / name).write_text(json.dumps(json.loads((copy / name).read_text()) | changes))
    return copy


def test_a_quantized_model_names_the_package_that_it_needs(path: str, tmp_path: Path) -> None:
    quantized = {"quant_method": "gptq", "bits": 4, "group_size": 128}
    model = settings_of(path, tmp_path, "config.json", quantization_config=quantized)

    with pytest.raises(SpecError, match="cannot be loaded as a llama: Loading a GPTQ .*; install it, or name a model"):
        loaded(str(model))


def test_outputs_that_are_no_numbers_are_refused(path: str) -> None:
    chat = loaded(path)
    torch.nn.init.constant_(chat._model.lm_head.weight, torch.nan)

    with pytest.raises(SpecError, match="its outputs overflow in torch.float32; give --dtype"):
        chat.replies(REQUESTS, seed=1)


@pytest.mark.parametrize("template", ["{{ raise_exception('no') }}", "{{ messages[0].content + 3 }}"])
def test_a_chat_template_that_fails_is_refused(tmp_path: Path, template: str) -> None:
    chat = loaded(a_chat_model(tmp_path, template=template))

    with pytest.raises(SpecError, match="its chat template fails: .*; name a model with a template for one user"):
        chat.replies(REQUESTS, seed=1)
