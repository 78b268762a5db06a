"""`diffugen prompts`: writes prompts with a chat model, into a file for `spec.prompts.file`."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from rich.console import Console

from diffugen_api.errors import SpecError
from diffugen_api.v1alpha1 import ObjectClass
from diffugen_generator.class_options import class_of
from diffugen_generator.models.side_models import SideModel, find_chat_model
from diffugen_generator.prompt_writing.replies import NEAR_DUPLICATE
from diffugen_generator.prompt_writing.writing import ChatModel, Wanted, Written, write_prompts
from diffugen_generator.telemetry.reporter import Reporter

_ENDINGS: Final = (".txt", ".jsonl")
_DTYPES: Final = ("auto", "float32", "bfloat16", "float16")
_MOST_TEMPERATURE: Final = 5
_FIELD: Final = "--model"


@dataclass(frozen=True, slots=True)
class Generation:
    """How the model generates."""

    dtype: str
    temperature: float
    most_tokens: int


OpenModel = Callable[[SideModel, str | None, Generation], ChatModel]
"""Loads a model on a device."""


def wanted_of(
    classes: Sequence[str], *, count: int, together: int, about: str, seed: int, batch: int, tries: int
) -> Wanted:
    """Return what the options ask for; raise `SpecError` naming the option that is wrong."""
    if not classes:
        raise _fault("--class", "it is missing; give a class, once for each")
    for name, value, low, high in (
        ("--count", count, 1, 1_000_000),
        ("--together", together, 1, 8),
        ("--seed", seed, 0, 2**53 - 1),
        ("--batch", batch, 1, 1024),
        ("--tries", tries, 1, 100),
    ):
        if not low <= value <= high:
            raise _fault(name, f"{value} is not between {low:,} and {high:,}; give a number in that range")
    found: dict[str, Sequence[str]] = {}
    for text in classes:
        try:
            each = TypeAdapter(ObjectClass).validate_python(class_of(text))
        except ValidationError:
            raise _fault("--class", f"{text!r} is no class; write NAME, or NAME=WORD,WORD with its synonyms") from None
        for word in each.words:
            if owner := next((name for name, words in found.items() if _in(word, words)), ""):
                raise _fault("--class", f"{word!r} already names the class {owner!r}; remove one of them")
        found[each.name] = each.words
    return Wanted(found, count, together, about.strip(), seed, batch, tries)


def generation_of(*, dtype: str, temperature: float, most_tokens: int) -> Generation:
    """Return how the model generates; raise `SpecError` naming the option that is wrong."""
    if dtype not in _DTYPES:
        raise _fault("--dtype", f"{dtype!r} is none of {', '.join(_DTYPES)}; give one of them")
    if not 0 <= temperature <= _MOST_TEMPERATURE:
        raise _fault("--temperature", f"{temperature:g} is not between 0 and {_MOST_TEMPERATURE}; 0.9 suits many")
    if not 8 <= most_tokens <= 8192:
        raise _fault("--max-tokens", f"{most_tokens} is not between 8 and 8,192; give a number in that range")
    return Generation(dtype, temperature, most_tokens)


def write_file(
    model: str,
    wanted: Wanted,
    generation: Generation,
    output: Path,
    display: Reporter,
    *,
    device: str | None,
    stop: Event,
    open_model: OpenModel | None = None,
) -> dict[str, Any]:
    """Write the prompts into a file, all at once, and return the result; raise `SpecError` or a `Failure`."""
    _check_output(output)
    uri = model if "://" in model else str(Path(model).expanduser().absolute())
    with display.task("write prompts", "prompts") as advance:
        advance.busy("loading the model")
        found = find_chat_model(uri, _FIELD)
        chat = (open_model or _load)(found, device, generation)
        written = write_prompts(wanted, chat, on_progress=advance, stop=stop.is_set)
    result = _result(written, wanted, generation, found, output)
    data = _content(written, result, output)
    _replace(output, data)
    return {**result, "sha256": hashlib.sha256(data).hexdigest()}


def show_written(console: Console, result: Mapping[str, Any]) -> None:
    """Print what was written."""
    classes = ", ".join(f"{name} {count:,}" for name, count in result["classes"].items())
    rejected = ", ".join(f"{count:,} {why}" for why, count in result["rejected"].items()) or "none"
    console.print(
        f"[bold]{result['prompts']:,}[/] prompts ({classes}) from {result['replies']:,} replies; rejected: {rejected}",
        highlight=False,
        soft_wrap=True,
    )
    if (missing := result["asked"] - result["prompts"]) > 0:
        console.print(
            f"[yellow]![/] {missing:,} fewer than asked for: {_why_fewer(result['rejected'])}",
            highlight=False,
            soft_wrap=True,
        )
    for name, where in (("prompts", result["output"]), ("SHA-256", result["sha256"])):
        console.print(f"[dim]{name}[/]  {where}", highlight=False, soft_wrap=True)


def _why_fewer(rejected: Mapping[str, int]) -> str:
    """Return the cause of most rejections, and what helps."""
    if max(rejected, key=lambda why: rejected[why], default=NEAR_DUPLICATE) == NEAR_DUPLICATE:
        return "the model repeats itself; more --tries, a higher --temperature or another --about helps"
    return "the model seldom does what it is asked; more --tries, a lower --temperature or a larger model helps"


def _load(found: SideModel, device: str | None, generation: Generation) -> ChatModel:
    from diffugen_generator.diffusion.devices import open_device  # noqa: PLC0415 - torch
    from diffugen_generator.prompt_writing.transformers_chat import TransformersChat  # noqa: PLC0415

    return TransformersChat(
        found,
        open_device(device),
        dtype=generation.dtype,
        temperature=generation.temperature,
        most_tokens=generation.most_tokens,
    )


def _check_output(output: Path) -> None:
    """Raise `SpecError` if the file cannot be written; before a model is loaded."""
    if output.suffix not in _ENDINGS:
        raise _fault("--output", f"{str(output)!r} ends in neither .txt nor .jsonl; give a name with one of them")
    if output.exists():
        raise _fault("--output", f"{str(output)!r} is there already; remove it, or give another name")
    folder = output.absolute().parent
    if not folder.is_dir():
        raise _fault("--output", f"there is no folder {str(folder)!r}; make it first")
    if not os.access(folder, os.W_OK):
        raise _fault("--output", f"the folder {str(folder)!r} cannot be written to; name a file in another folder")


def _result(written: Written, wanted: Wanted, generation: Generation, found: SideModel, output: Path) -> dict[str, Any]:
    return {
        "output": str(output),
        "prompts": len(written.prompts),
        "asked": wanted.count,
        "classes": {name: written.classes[name] for name in wanted.classes},
        "replies": written.replies,
        "rejected": dict(written.rejected),
        "model": found.uri,
        "modelDigest": found.digest,
        "seed": wanted.seed,
        "temperature": generation.temperature,
    }


def _content(written: Written, result: Mapping[str, Any], output: Path) -> bytes:
    """Return the file's content; text has a comment that says where it comes from."""
    if output.suffix == ".jsonl":
        lines = [json.dumps({"prompt": prompt}, ensure_ascii=False) for prompt in written.prompts]
    else:
        origin = f"{result['model']}, digest {result['modelDigest'][:12]}"
        head = f"# written by {origin}; seed {result['seed']}, temperature {result['temperature']:g}"
        lines = [head, *written.prompts]
    return ("\n".join(lines) + "\n").encode()


def _replace(output: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    handle, name = tempfile.mkstemp(dir=output.absolute().parent, prefix=f".{output.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(output)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _in(word: str, words: Sequence[str]) -> bool:
    return " ".join(word.lower().split()) in {" ".join(each.lower().split()) for each in words}


def _fault(option: str, message: str) -> SpecError:
    return SpecError("InvalidOption", f"{option}: {message}.")
