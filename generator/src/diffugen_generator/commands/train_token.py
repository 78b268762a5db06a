"""`diffugen train-token`: trains a word on a folder of images, with a bar that shows the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any

from rich.console import Console
from rich.markup import escape

from diffugen_api.errors import SpecError
from diffugen_generator.inversion.settings import MOST_VECTORS, TrainingSettings
from diffugen_generator.telemetry.reporter import Reporter


def settings_of(
    *,
    token: str,
    initializer: str,
    vectors: int,
    learn: str,
    templates: Sequence[str],
    steps: int,
    learning_rate: float,
    batch: int,
    accumulate: int,
    seed: int,
    flip: bool,
    size: str,
) -> TrainingSettings:
    """Return the settings of the command's options; raise `SpecError` naming the option that is wrong."""
    if not token or token != token.strip() or " " in token:
        raise _fault("--token", f"{token!r} is not one word; write one such as '<piano>'")
    for name, value, low, high in (
        ("--vectors", vectors, 1, MOST_VECTORS),
        ("--steps", steps, 1, 1_000_000),
        ("--batch", batch, 1, 256),
        ("--accumulate", accumulate, 1, 256),
        ("--seed", seed, 0, 2**53 - 1),
    ):
        if not low <= value <= high:
            raise _fault(name, f"{value} is not between {low:,} and {high:,}; give a number in that range")
    if not 0 < learning_rate <= 1:
        raise _fault("--learning-rate", f"{learning_rate:g} is not above 0 and at most 1; 0.005 suits most models")
    if learn not in {"object", "style"}:
        raise _fault("--learn", f"{learn!r} is neither object nor style; give one of them")
    for template in templates:
        if "{}" not in template:
            raise _fault("--template", f"{template!r} has no {{}} for the word; add it")
    width, height = _size(size)
    return TrainingSettings(
        token=token,
        initializer=initializer,
        vectors=vectors,
        learn="style" if learn == "style" else "object",
        templates=tuple(templates),
        steps=steps,
        learning_rate=learning_rate,
        batch=batch,
        accumulate=accumulate,
        seed=seed,
        flip=flip,
        width=width,
        height=height,
    )


def train_token(
    model: str,
    images: Path,
    settings: TrainingSettings,
    output: Path,
    display: Reporter,
    *,
    masks: Path | None,
    device: str | None,
    stop: Event,
    clip: str | None = None,
) -> dict[str, Any]:
    """Train and return the card; raise `SpecError` or a `Failure`."""
    from diffugen_generator.diffusion.devices import open_device  # noqa: PLC0415 - torch
    from diffugen_generator.inversion.local import Sources, train_here  # noqa: PLC0415
    from diffugen_generator.inversion.training import TrainingState  # noqa: PLC0415
    from diffugen_generator.labeling.detectors.clip import open_clip  # noqa: PLC0415

    with display.task(f"train {settings.token}", "steps") as advance:

        def on_progress(state: TrainingState) -> None:
            advance(state.step, settings.steps)
            advance.busy(f"loss {state.evaluations[-1][1]:.4f}, at first {state.evaluations[0][1]:.4f}")

        return train_here(
            Sources(model, images, masks),
            settings,
            output,
            open_device(device),
            on_progress=on_progress,
            on_loading=lambda: advance.busy("loading the model"),
            stop=stop,
            similarity=None if clip is None else lambda: open_clip(clip, "--clip", None),
        )


def show_trained(console: Console, card: Mapping[str, Any], output: Path, preview: str) -> None:
    """Print the result of a training and where it is stored."""
    loss, token = card["loss"], card["settings"]["token"]
    ended = "no more progress" if card["plateaued"] else "all steps done"
    console.print(
        f"\n[bold]{escape(token)}[/]: {card['steps']:,} steps ({ended}), {card['seconds']:,} s, "
        f"loss {loss['first']:.4f} to {loss['best']:.4f} at step {loss['bestStep']:,}",
        highlight=False,
        soft_wrap=True,
    )
    if (shown := worth_of(card.get("presence", {}))) is not None:
        console.print(f"[dim]presence[/]   {escape(shown)}", highlight=False, soft_wrap=True)
    for name, where in (("embedding", output), ("look at", output / preview)):
        console.print(f"[dim]{name}[/]  {where}", highlight=False, soft_wrap=True)


def worth_of(presence: Mapping[str, Any]) -> str | None:
    """Return the presence figures of a card in words; None if nothing was measured, as in cards of earlier versions."""
    token, initializer = presence.get("token"), presence.get("initializer")
    match presence.get("measure"):
        case "oracle":
            shown = " and ".join(f"a {each}" for each in presence["of"])
            return f"{token:.0%} of {presence['images']} images show {shown}; with the initializer, {initializer:.0%}"
        case "clip":
            return f"similarity with the training images {token:.3f}; with the initializer, {initializer:.3f}"
    return None


def _size(text: str) -> tuple[int, int]:
    """Return width and height of `512` or `768x512`."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdigit() for side in sides):
        raise _fault("--size", f"{text!r} is no size; give pixels such as 512, or 768x512")
    numbers = [int(side) for side in sides]
    width, height = numbers[0], numbers[-1]
    for side in (width, height):
        if not 64 <= side <= 2048 or side % 8:
            raise _fault("--size", f"{side} is not a multiple of 8 from 64 to 2048; give another number")
    return width, height


def _fault(option: str, message: str) -> SpecError:
    return SpecError("InvalidOption", f"{option}: {message}.")
