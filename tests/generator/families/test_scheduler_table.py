"""All schedulers x spacings x prediction types x steps: the plan accepts what runs, and refuses what does not."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler

from diffugen_api.plan import SpecError
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.unet.samplers import NAMED, OWN, check_sampler
from diffugen_generator.families.unet.schedulers import DiffusersSampler, open_scheduler, run_steps, try_out

BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SPACINGS = ("leading", "linspace", "trailing")
PREDICTIONS = ("epsilon", "v_prediction", "sample")
FEW = {"num_train_timesteps": 100}
"""So that the tests are short; the bounds depend only on the number of training steps."""
NO_SIGNAL = {"rescale_betas_zero_snr": True}
"""At its last timestep nothing but noise is left."""
COSINE = "squaredcos_cap_v2"
KINDS = [("", name) for name in NAMED] + [(kind, "") for kind in sorted(OWN)]


def settings(kind: str, **changes: Any) -> dict[str, Any]:
    return {"_class_name": kind or "DDIMScheduler", "num_train_timesteps": 1000, **BETAS, **changes}


def accepted(folder: Path, name: str, steps: int, strength: float = 1) -> bool:
    """Whether the plan accepts the steps."""
    try:
        model = ModelFolder("model", folder, "")
        check_sampler(model, name or None, steps, field="model", stage="stage", strength=strength)
    except SpecError:
        return False
    return True


def runs(scheduler: Any, steps: int) -> str:
    """Return why the scheduler fails; empty if all of its steps run."""
    try:
        try_out(scheduler, steps, 0)
    except (ValueError, IndexError) as error:
        return str(error) or type(error).__name__
    return ""


def disagreements(
    tmp_path: Path, kind: str, name: str, cases: Iterable[tuple[dict[str, Any], Sequence[int]]]
) -> list[str]:
    """Return the cases in which the plan accepts what fails, or refuses what runs.

    A case is changes to the settings, and the numbers of steps that are tried with them.
    """
    found = []
    for number, (changes, counts) in enumerate(cases):
        folder = tmp_path / str(number)
        (folder / "scheduler").mkdir(parents=True)
        (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(settings(kind, **changes)))
        scheduler = open_scheduler(folder / "scheduler", name or None)
        for steps in counts:
            fault = runs(scheduler, steps)
            if accepted(folder, name, steps) is bool(fault):
                found.append(f"{changes} {steps}: {fault or 'it runs'}")
    return found


def test_settings_with_an_infinite_number_as_diffusers_writes_them(tmp_path: Path) -> None:
    scheduler: Any = DPMSolverMultistepScheduler(num_train_timesteps=100)
    scheduler.save_pretrained(tmp_path / "scheduler")
    assert "-Infinity" in (tmp_path / "scheduler" / "scheduler_config.json").read_text()

    for name in ("", *NAMED):
        assert accepted(tmp_path, name, 5)
        assert runs(open_scheduler(tmp_path / "scheduler", name or None), 5) == ""


def ids(case: tuple[str, str]) -> str:
    return case[1] or case[0]


@pytest.mark.parametrize("case", KINDS, ids=ids)
def test_few_steps(tmp_path: Path, case: tuple[str, str]) -> None:
    cases = (
        ({**FEW, "timestep_spacing": spacing, "prediction_type": prediction, "steps_offset": 1}, (1, 2, 5, 12))
        for spacing, prediction in product(SPACINGS, PREDICTIONS)
    )

    assert disagreements(tmp_path, *case, cases) == []


@pytest.mark.parametrize("case", KINDS, ids=ids)
def test_about_as_many_steps_as_the_model_was_trained_with(tmp_path: Path, case: tuple[str, str]) -> None:
    name = "".join(case).upper()
    # LMS integrates at each step; LCM and TCD are distilled to 50 steps
    trained = 12 if "LMS" in name else 100 if "LCM" in name or "TCD" in name else 24
    cases = (
        (
            {"timestep_spacing": spacing, "steps_offset": offset, "num_train_timesteps": trained},
            (51 * trained // 100, trained - 2, trained - 1, trained),
        )
        for spacing, offset in product(SPACINGS, (0, 1))
    )

    assert disagreements(tmp_path, *case, cases) == []


@pytest.mark.parametrize("case", KINDS, ids=ids)
def test_a_model_that_is_left_no_signal(tmp_path: Path, case: tuple[str, str]) -> None:
    cases = (
        (
            {**FEW, **NO_SIGNAL, "timestep_spacing": spacing, "prediction_type": prediction},
            (1, 2, 5, 100) if (spacing, prediction) == ("leading", "epsilon") else (1, 2, 5),
        )
        for spacing, prediction in product(SPACINGS, PREDICTIONS)
    )

    assert disagreements(tmp_path, *case, cases) == []


def test_below_full_strength_the_timestep_without_signal_is_not_among_the_steps(tmp_path: Path) -> None:
    (tmp_path / "scheduler").mkdir()
    content = settings("", **FEW, **NO_SIGNAL, timestep_spacing="trailing")
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(content))
    scheduler = open_scheduler(tmp_path / "scheduler", "ddim")

    with pytest.raises(ValueError, match="not finite"):
        try_out(scheduler, 5, 0)
    assert not accepted(tmp_path, "ddim", 5)
    try_out(scheduler, 5, 1)
    assert accepted(tmp_path, "ddim", 5, strength=0.8)


@pytest.mark.parametrize("case", KINDS, ids=ids)
@pytest.mark.parametrize("schedule", [{**NO_SIGNAL, "prediction_type": "v_prediction"}, {"beta_schedule": COSINE}])
def test_the_steps_that_the_plan_accepts_are_drawn(
    tmp_path: Path, case: tuple[str, str], schedule: dict[str, Any]
) -> None:
    """As a stage runs them: some schedulers look up the first timestep, and find none or another one."""
    kind, name = case
    (tmp_path / "scheduler").mkdir()
    content = settings(kind, **FEW, **schedule, timestep_spacing="trailing")
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(content))
    steps = 20
    if not accepted(tmp_path, name, steps):
        return
    sampler = DiffusersSampler(open_scheduler(tmp_path / "scheduler", name or None), torch.device("cpu"))
    latents, generators = torch.ones(1, 1, 1, 1), [torch.Generator().manual_seed(0)]

    for begin in (0, 4 * sampler.order):
        sampler.set_steps(steps, (8, 8))
        sampler.begin_at(begin)
        for t in sampler.timesteps[begin:]:
            latents = sampler.step(sampler.scaled(latents, t) / 2, t, latents, generators)


@pytest.mark.parametrize("case", KINDS, ids=ids)
def test_a_cosine_schedule(tmp_path: Path, case: tuple[str, str]) -> None:
    cases = (({"beta_schedule": COSINE, "timestep_spacing": spacing}, (1, 5, 20)) for spacing in SPACINGS)

    assert disagreements(tmp_path, *case, cases) == []


VALUES: dict[str, Sequence[Any]] = {
    "prediction_type": ("v_prediction", "flow_prediction", "epsilons", None, 1),
    "beta_schedule": ("linear", "sigmoid", "laplace", "exp", "linar", None),
    "timestep_spacing": (*SPACINGS, "leading "),
    "beta_start": (-0.1, 0, 0.5, 1, "0.1", None),
    "beta_end": (-0.1, 0, 0.5, 1, "0.1", None),
    "trained_betas": (None, [0.01] * 10, [0.01] * 100, [2.0] * 100, ["0.1"] * 100, "0.1", []),
    "algorithm_type": ("dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++", "deis", "noise_prediction", "d"),
    "solver_type": ("midpoint", "heun", "logrho", "bh1", "bh2", "bh3", None),
    "final_sigmas_type": ("zero", "sigma_min", "one", None),
    "solver_order": (1, 2, 3, 4, 0, "2", None),
    "interpolation_type": ("linear", "log_linear", "cubic"),
    "variance_type": ("fixed_small", "fixed_large", "fixed_small_log", "fixed_large_log", "learned", "learned_range"),
    "predict_x0": (True, False),
    "original_inference_steps": (50, 100, 200),
    "corrector_order": (1, 2),
    "steps_offset": (0, 1, 50, -1, "1", 1.5, None),
}
"""Values of settings: such as models have, and such as a file that was edited by hand could have."""
LATENT: dict[str, Sequence[Any]] = {
    "algorithm_type": ("dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++", "deis"),
    "solver_type": ("midpoint", "heun", "logrho", "bh1", "bh2"),
}
"""Values to try where the last step does not end at a noise level of 0."""


@pytest.mark.filterwarnings("ignore:(divide by zero|invalid value):RuntimeWarning")
@pytest.mark.parametrize("kind", sorted(OWN))
def test_settings_that_a_scheduler_cannot_use_are_refused_by_the_plan(tmp_path: Path, kind: str) -> None:
    read = inspect.signature(getattr(diffusers, kind).__init__).parameters
    changes = [{key: value} for key, values in VALUES.items() for value in (values if key in read else values[:1])]
    changes += [{"use_karras_sigmas": True, "use_beta_sigmas": True}]
    changes += [{"final_sigmas_type": "sigma_min", key: value} for key, values in LATENT.items() for value in values]
    (tmp_path / "scheduler").mkdir()
    let_through, refused = [], []
    for change in changes:
        content = settings(kind, **FEW, skip_prk_steps=True, **change)
        (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(content))
        try:
            run_steps(tmp_path / "scheduler", None, steps=5)
            fault = ""
        except ValueError as error:
            fault = str(error)
        plan_accepts = accepted(tmp_path, "", steps=5)
        if fault and plan_accepts:
            let_through.append(f"{change}: {fault}")
        elif not fault and not plan_accepts and not change.keys() & NUMBERS:
            refused.append(change)

    assert let_through == []
    assert refused == []


NUMBERS = {"beta_start", "beta_end", "trained_betas", "steps_offset"}
"""Settings whose wrong values the plan refuses although some schedulers run with them."""
