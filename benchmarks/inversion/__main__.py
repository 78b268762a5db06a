"""Measures the cost of training a word, and how well the word works: `make bench-inversion`.

1. A word is trained for the built-in model on five images of a purple star, starting from "star". Measured: how often
   images with the initializer and with the word show a purple star; the seconds of the training; and the same training
   stopped after half of its steps and resumed from its checkpoint.
2. Networks of the size of Stable Diffusion 1.5 with random weights. Measured: the seconds of a step and of its parts,
   for this project and for diffusers' example, at the same image size and batch. The vocabulary has 49,408 words, as in
   the real model.
3. Labels of the built-in model before and after a calibration with one image of each class, for three seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from benchmarks.inversion import calibration, diffusers_style
from benchmarks.inversion.diffusers_style import StepTimes
from benchmarks.inversion.presence import COLOR, INITIALIZER, SHAPE, example_images, presence
from benchmarks.throughput.random_models import write_sd15

from diffugen_generator.families.registry import family_of
from diffugen_generator.inversion.checkpoints import dumps, loads
from diffugen_generator.inversion.images import TrainingImage
from diffugen_generator.inversion.settings import TrainingSettings
from diffugen_generator.inversion.training import Training, TrainingState
from diffugen_generator.models.resolve import resolve

RESULTS = Path(__file__).parents[1] / "results" / "inversion.json"
BOUNDS: dict[str, tuple[float, float]] = {
    "seconds": (0, 600),
    "presence_before": (0, 0.30),
    "presence_after": (0.80, 1),
    "presence_after_resume": (0.80, 1),
    "step_speedup_over_diffusers": (1.3, 100),
    "calibration_gain_miou": (0.08, 1),
    "calibration_gain_unrefined_miou": (-0.01, 1),
    "calibration_gain_snapped_miou": (-0.002, 1),
    "calibration_gain_token_unrefined_miou": (0.0, 1),
    "calibration_gain_token_snapped_miou": (-0.002, 1),
}
"""The lower and the upper bound of each figure."""

TOKEN: Final = "<gem>"
_CPU: Final = torch.device("cpu")
_TEMPLATES: Final = ("a {}", "a photo of a {}")
_VOCABULARY: Final = 49_408
_IMAGES: Final = 5


def holds(found: dict[str, Any], figure: str) -> bool:
    """Return whether a figure is within its bounds."""
    low, high = BOUNDS[figure]
    return bool(low <= found[figure] <= high)


def measure_presence(images: int, steps: int) -> dict[str, Any]:
    """Train a word for the built-in model, once without a stop and once stopped after half of the steps."""
    settings = TrainingSettings(
        TOKEN, INITIALIZER, vectors=2, templates=_TEMPLATES, steps=steps, learning_rate=0.01, batch=8, width=64,
        height=64,
    )  # fmt: skip
    folder = resolve("builtin://shapes")
    family = family_of(folder.pipeline)
    loaded = family.load(folder, _CPU)
    examples = example_images(_IMAGES, seed=3)
    before, named = presence(loaded, INITIALIZER, images), presence(loaded, f"{COLOR} {SHAPE}", images)

    began, cpu = time.perf_counter(), time.process_time()
    model = family.token_model(loaded, TOKEN, INITIALIZER, settings.vectors, field="bench")
    training = Training(model, examples, settings)
    state = training.run(training.begin())
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    after = presence(model.taught, TOKEN, images)
    model.close()

    resumed = _resumed(loaded, examples, settings)
    with _taught(loaded, settings, resumed) as taught:
        after_resume = presence(taught, TOKEN, images)
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "steps": state.step,
        "presence_before": before,
        "presence_after": after,
        "presence_after_resume": after_resume,
        "presence_named": named,
        "images": images,
        "same_vectors_after_resume": all(
            torch.equal(one, other) for one, other in zip(state.best, resumed.best, strict=True)
        ),
        "losses": [round(loss, 5) for loss in state.losses],
        "evaluations": [[step, round(loss, 5)] for step, loss in state.evaluations],
    }


class _Stop(Exception):  # noqa: N818 - ends a training
    pass


def _resumed(loaded: Any, examples: list[TrainingImage], settings: TrainingSettings) -> TrainingState:
    """Return the state of a training that was stopped after half of its steps and resumed from its checkpoint."""
    family = family_of(loaded.model.pipeline)
    saved = b""

    def stop(state: TrainingState) -> None:
        nonlocal saved
        if state.step == settings.steps // 2:
            saved = dumps(state, "bench")
            raise _Stop

    model = family.token_model(loaded, TOKEN, INITIALIZER, settings.vectors, field="bench")
    training = Training(model, examples, settings)
    with suppress(_Stop):
        training.run(training.begin(), stop)
    model.close()
    model = family.token_model(loaded, TOKEN, INITIALIZER, settings.vectors, field="bench")
    state = loads(saved, "bench", model.vectors)
    if state is None:
        raise AssertionError("the checkpoint is of this training")
    state = Training(model, examples, settings).run(state)
    model.close()
    return state


class _taught:  # noqa: N801 - a context
    """The model with the vectors of a finished training during the block."""

    def __init__(self, loaded: Any, settings: TrainingSettings, state: TrainingState) -> None:
        family = family_of(loaded.model.pipeline)
        self._model = family.token_model(loaded, TOKEN, INITIALIZER, settings.vectors, field="bench")
        with torch.no_grad():
            for parameter, value in zip(self._model.vectors, state.best, strict=True):
                parameter.copy_(value)

    def __enter__(self) -> Any:
        return self._model.taught

    def __exit__(self, *_: object) -> None:
        self._model.close()


def measure_speed(side: int, batch: int, steps: int) -> dict[str, Any]:
    """Measure steps on networks of the size of Stable Diffusion 1.5: ours and those of diffusers' example in turn."""
    rng = np.random.default_rng(1)
    pixels = [rng.integers(0, 255, (side, side, 3), dtype=np.uint8) for _ in range(batch)]
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder) / "sd15"
        write_sd15(where, resolve("builtin://shapes"))
        model = resolve(str(where))
        loaded = family_of(model.pipeline).load(model, _CPU)
        taught = family_of(model.pipeline).token_model(loaded, TOKEN, INITIALIZER, 1, field="bench")
        settings = TrainingSettings(
            TOKEN, INITIALIZER, templates=_TEMPLATES, steps=1000, batch=batch, width=side, height=side, patience=0
        )
        examples = [TrainingImage(f"{number}.png", each) for number, each in enumerate(pixels)]
        training = Training(taught, examples, settings)
        ids = torch.tensor([each.ids[0] for each in taught.sentences(settings.sentences())])
        known = int(ids.max())
        networks = diffusers_style.Networks.load(str(where))
    networks.text_encoder.resize_token_embeddings(_VOCABULARY, mean_resizing=False)
    ids[ids == known] = _VOCABULARY
    theirs = diffusers_style.train(
        networks, pixels, ids, initializer=0, vocabulary=_VOCABULARY, steps=steps, learning_rate=5e-3, batch=batch,
        seed=0,
    )  # fmt: skip
    ours, state = StepTimes(), training.begin()
    for times in theirs:
        _our_step(training, state, ours)
        theirs_row = times.row()
    ours_row = ours.row()
    speedup = theirs_row["seconds_per_step"] / ours_row["seconds_per_step"]
    return {
        "step_speedup_over_diffusers": round(speedup, 2),
        "step_speedup_by_cpu_seconds": round(theirs_row["cpu_seconds_per_step"] / ours_row["cpu_seconds_per_step"], 2),
        "step": {"side": side, "batch": batch, "steps": steps, "ours": ours_row, "diffusers": theirs_row},
    }


def _our_step(training: Training, state: TrainingState, times: StepTimes) -> None:
    """Do one step from `state`, which is changed, and time it."""

    def stop(_: TrainingState) -> None:
        raise _Stop

    began, cpu = time.perf_counter(), time.process_time()
    with suppress(_Stop):
        training.run(state, stop)
    times.steps.append(time.perf_counter() - began)
    times.cpu.append(time.process_time() - cpu)
    times.losses.append(state.losses[-1])


def compare_losses(steps: int) -> dict[str, Any]:
    """Return the losses of diffusers' training on the built-in model with the same images and sentences."""
    folder = resolve("builtin://shapes")
    family = family_of(folder.pipeline)
    loaded = family.load(folder, _CPU)
    model = family.token_model(loaded, TOKEN, INITIALIZER, 1, field="bench")
    settings = TrainingSettings(TOKEN, INITIALIZER, templates=_TEMPLATES)
    ids = torch.tensor([each.ids[0] for each in model.sentences(settings.sentences())])
    model.close()
    vocabulary = int(ids.max())
    word = loaded.read(INITIALIZER).ids[1]
    steps_of_diffusers = diffusers_style.train(
        diffusers_style.Networks.load(str(folder.path)), [each.pixels for each in example_images(_IMAGES, seed=3)], ids,
        initializer=word, vocabulary=vocabulary, steps=steps, learning_rate=0.01, batch=8, seed=0,
    )  # fmt: skip
    *_, times = steps_of_diffusers
    return {"diffusers_losses_on_shapes": times.row()["losses"]}


def main() -> None:
    """Measure, print the figures against their bounds, and write the results."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--images", type=int, default=64, help="images for each presence")
    arguments.add_argument("--steps", type=int, default=300)
    arguments.add_argument("--side", type=int, default=128, help="pixels of the images of the step comparison")
    arguments.add_argument("--batch", type=int, default=1)
    arguments.add_argument("--timed", type=int, default=6, help="steps that are timed")
    only = arguments.add_mutually_exclusive_group()
    only.add_argument("--only-speed", action="store_true", help="measure the steps again and keep the rest")
    only.add_argument("--only-calibration", action="store_true", help="measure the calibration again and keep the rest")
    arguments.add_argument("--judged", type=int, default=192, help="images whose labels are judged")
    arguments.add_argument("--folder", type=Path, help="where these images are kept; thrown away if absent")
    options = arguments.parse_args()
    load_before = os.getloadavg()[0]
    if options.only_speed or options.only_calibration:
        found: dict[str, Any] = json.loads(RESULTS.read_text())
    else:
        torch.set_num_threads(1)  # the layers of the built-in model are too small for more
        found = measure_presence(options.images, options.steps)
        found |= compare_losses(found["steps"])
    if not options.only_speed:
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as temporary:
            found |= calibration.measure(options.folder or Path(temporary), options.judged)
    if not options.only_calibration:
        torch.set_num_threads(os.cpu_count() or 1)
        found |= measure_speed(options.side, options.batch, options.timed)
    found["machine"] = {"cores": os.cpu_count(), "load_before": round(load_before, 1), "device": "cpu"}
    for figure, (low, high) in BOUNDS.items():
        print(f"{figure:<30} {found[figure]:>8} ({low:g} to {high:g}) {'holds' if holds(found, figure) else 'MISSED'}")
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
