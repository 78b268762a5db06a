"""`diffugen calibrate`: shows what a calibration chooses on annotated images, and what it is worth there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from diffugen_api.errors import SpecError
from diffugen_api.v1alpha1 import AttentionLabeling, ObjectClass
from diffugen_api.words import Vocabulary
from diffugen_generator.calibration.annotations import Annotations
from diffugen_generator.class_options import class_of
from diffugen_generator.models.resolve import resolve
from diffugen_generator.telemetry.reporter import Reporter


def calibrate(
    model: str,
    images: Path,
    masks: Path,
    classes: Sequence[str],
    display: Reporter,
    *,
    capture: str,
    refine: bool,
    snap: bool,
    background_token: bool,
    device: str | None,
) -> dict[str, Any]:
    """Calibrate and return the result as JSON data; raise `SpecError` naming the option that is wrong."""
    if not classes:
        raise SpecError("NoClasses", "--class: no class is named; repeat it for each class of the masks.")
    try:
        known = [ObjectClass.model_validate(class_of(text)) for text in classes]
        places = {"images": str(images), "masks": str(masks), "backgroundToken": background_token}
        attention = AttentionLabeling.model_validate(
            {"capture": capture, "refine": refine, "snap": snap, "calibration": places}
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = "--class" if "name" in first["loc"] or "synonyms" in first["loc"] else "--capture"
        raise SpecError("InvalidOption", f"{option}: {first['msg']}; give another value.") from None
    annotations = Annotations.read(str(images.resolve()), str(masks.resolve()), None, field="calibrate")
    found = resolve(model, field="--model")

    from diffugen_generator.calibration.calibrate import calibrate as choose  # noqa: PLC0415 - torch
    from diffugen_generator.diffusion.devices import open_device  # noqa: PLC0415
    from diffugen_generator.diffusion.texts import TextStates  # noqa: PLC0415
    from diffugen_generator.families.registry import family_of  # noqa: PLC0415

    with display.task("calibrate", "images") as advance:
        advance.busy("loading the model")
        loaded = family_of(found.pipeline).load(found, open_device(device))
        side = loaded.trained_side
        opened = annotations.opened(known, (side, side), field="calibrate")
        vocabulary = Vocabulary({each.name: each.words for each in known})
        result = choose(loaded, TextStates(loaded), vocabulary, opened, attention, on_progress=advance)
    address = annotations.address(attention, known, found.digest, {}, (side, side))
    return {**result.row(address), "images": len(opened)}


def show_calibration(console: Console, found: dict[str, Any], images: Path, masks: Path) -> None:
    """Print what was chosen, and how a manifest asks for it."""
    heads = sum(sum(weight > 0 for weight in weights) for weights in found["heads"].values())
    token = ", a token for what is no object" if found.get("token") else ""
    chosen = f"{heads} heads of {len(found['heads'])} layers" if heads else "all heads"
    console.print(
        f"\n[bold]{found['images']} images[/]: mIoU {found['before']:.3f} to {found['after']:.3f} on them, with "
        f"{chosen}, the last {found['last']:.0%} of the steps, border {found['border']:g}{token}",
        highlight=False,
        soft_wrap=True,
    )
    places = f"images: {images.resolve()}, masks: {masks.resolve()}"
    places += ", backgroundToken: true" if token else ""
    console.print(
        escape(f"labeling: {{attention: {{calibration: {{{places}}}}}}}"),
        highlight=False,
        soft_wrap=True,
    )
