"""The training loop: a few images, cached latents, and the new vectors alone in the optimizer.

All random values of a step are derived from the seed and the step's number. So a resumed training takes the same steps
as one that was never stopped. The loss of a step is mostly noise, because its timesteps are random. So progress is
measured with a fixed set of noise, timesteps and images at regular intervals. The vectors of the best evaluation are
the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch

from diffugen_api.errors import SpecError
from diffugen_generator.families.token_training import Sentence, TokenModel
from diffugen_generator.inversion.images import TrainingImage, mirrored
from diffugen_generator.inversion.loss_masks import masks_of
from diffugen_generator.inversion.settings import TrainingSettings

EVALUATIONS: Final = 40
"""About how many evaluations a whole training has."""
_LEAST_EVERY: Final = 10
"""Steps between two evaluations, at least."""
_EVALUATED_AT: Final = (0.15, 0.35, 0.55, 0.75)
"""Fractions of the noise schedule that an evaluation uses."""
_EVALUATED_ROWS: Final = 32
"""Rows of an evaluation, at most."""
_IMPROVEMENT: Final = 1e-3
"""A better loss must be lower than the best one by at least this fraction of it."""
_SALT: Final = 0x2545F4914F6CDD1D
"""Makes the evaluation's noise different from that of the steps."""


@dataclass(slots=True)
class TrainingState:
    """The state of a training: everything that is needed to resume it."""

    step: int
    """Updates that were done."""
    vectors: list[torch.Tensor]
    """[n, width] for each text encoder."""
    best: list[torch.Tensor]
    """The vectors of the best evaluation."""
    moments: list[tuple[torch.Tensor, torch.Tensor]]
    """Adam's two averages for each of `vectors`."""
    losses: list[float] = field(default_factory=list)
    """The loss of each step."""
    evaluations: list[tuple[int, float]] = field(default_factory=list)
    """Step and loss of each evaluation; the first is before any step."""
    plateaued: bool = False
    resumed: list[int] = field(default_factory=list)
    """The steps of the checkpoints from which the training went on after it had ended."""

    @property
    def best_loss(self) -> float:
        """The least loss of an evaluation."""
        return min(loss for _, loss in self.evaluations)


OnStep = Callable[[TrainingState], None]
"""Called with the state after each step."""


class Training:
    """Trains the vectors of one word."""

    def __init__(self, model: TokenModel, images: Sequence[TrainingImage], settings: TrainingSettings) -> None:
        """Encode the images and the sentences, once for all steps."""
        self._model = model
        self._settings = settings
        shown = [*images, *(mirrored(images) if settings.flip else ())]
        self._latents = model.latents([image.pixels for image in shown])  # [n, c, h, w]
        cells = (int(self._latents.shape[2]), int(self._latents.shape[3]))
        masks = masks_of([image.mask for image in shown], cells)
        self._masks = masks if masks is None else masks.to(self._latents.device)
        self._sentences = _read_sentences(model, settings)
        self.every = max(_LEAST_EVERY, settings.steps // EVALUATIONS)
        """Steps between two evaluations."""

    def begin(self) -> TrainingState:
        """Return the state before the first step."""
        vectors = [each.detach().clone() for each in self._model.vectors]
        moments = [(torch.zeros_like(each), torch.zeros_like(each)) for each in vectors]
        state = TrainingState(0, vectors, [each.clone() for each in vectors], moments)
        state.evaluations.append((0, self._evaluate()))
        return state

    def run(self, state: TrainingState, on_step: OnStep = lambda _: None) -> TrainingState:
        """Train from `state` until the last step or a plateau, and return the last state.

        An exception that `on_step` raises ends the training; the state that `on_step` received can be resumed.
        """
        self._set(state.vectors)
        optimizer = torch.optim.Adam(self._model.vectors, lr=self._settings.learning_rate)
        for parameter, (first, second) in zip(self._model.vectors, state.moments, strict=True):
            optimizer.state[parameter] = {
                "step": torch.tensor(float(state.step)),
                "exp_avg": first.clone(),
                "exp_avg_sq": second.clone(),
            }
        while state.step < self._settings.steps and not state.plateaued:
            state.losses.append(self._update(optimizer, state.step))
            state.step += 1
            state.vectors = [each.detach().clone() for each in self._model.vectors]
            moments = [optimizer.state[each] for each in self._model.vectors]
            state.moments = [(each["exp_avg"].clone(), each["exp_avg_sq"].clone()) for each in moments]
            if state.step % self.every == 0 or state.step == self._settings.steps:
                self._judge(state)
            on_step(state)
        self._set(state.best)
        return state

    def _update(self, optimizer: torch.optim.Optimizer, step: int) -> float:
        """Do one update; return its mean loss."""
        settings = self._settings
        optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for part in range(settings.accumulate):
            generator = torch.Generator("cpu").manual_seed(_seed_of(settings.seed, step * settings.accumulate + part))
            rows = torch.randint(len(self._latents), (settings.batch,), generator=generator)
            texts = torch.randint(len(self._sentences), (settings.batch,), generator=generator).tolist()
            times = torch.randint(self._model.training_steps, (settings.batch,), generator=generator)
            noise = torch.randn((settings.batch, *self._latents.shape[1:]), generator=generator)
            loss = self._losses(rows, texts, times, noise).mean() / settings.accumulate
            loss.backward()  # type: ignore[no-untyped-call]  # torch's is not typed
            total += loss.item()
        optimizer.step()
        self._model.keep_norms()
        return total

    def _losses(self, rows: torch.Tensor, texts: list[int], times: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        device = self._latents.device
        return self._model.loss(
            self._latents[rows.to(device)],
            noise.to(device),
            times.to(device),
            [self._sentences[number] for number in texts],
            None if self._masks is None else self._masks[rows.to(device)],
        )

    @torch.no_grad()
    def _evaluate(self) -> float:
        """Return the mean loss over images, timesteps and noise that are the same at each evaluation."""
        generator = torch.Generator("cpu").manual_seed(_seed_of(self._settings.seed, _SALT))
        places = [(image, share) for share in _EVALUATED_AT for image in range(len(self._latents))][:_EVALUATED_ROWS]
        total = 0.0
        for start in range(0, len(places), self._settings.batch):
            part = places[start : start + self._settings.batch]
            rows = torch.tensor([image for image, _ in part])
            times = torch.tensor([round(share * self._model.training_steps) for _, share in part])
            texts = [(start + number) % len(self._sentences) for number in range(len(part))]
            noise = torch.randn((len(part), *self._latents.shape[1:]), generator=generator)
            total += float(self._losses(rows, texts, times, noise).sum())
        return total / len(places)

    def _judge(self, state: TrainingState) -> None:
        """Evaluate, keep the vectors if they are the best, and check whether there is still progress."""
        loss = self._evaluate()
        if loss < state.best_loss:
            state.best = [each.clone() for each in state.vectors]
        state.evaluations.append((state.step, loss))
        state.plateaued = plateaued([loss for _, loss in state.evaluations], self._settings.patience)

    @torch.no_grad()
    def _set(self, vectors: Sequence[torch.Tensor]) -> None:
        for parameter, value in zip(self._model.vectors, vectors, strict=True):
            parameter.copy_(value)


def plateaued(losses: Sequence[float], patience: int) -> bool:
    """Return whether the last `patience` losses are no better than those before them; never with a patience of 0."""
    if not patience or len(losses) <= patience:
        return False
    return min(losses[-patience:]) > min(losses[:-patience]) * (1 - _IMPROVEMENT)


def _seed_of(seed: int, number: int) -> int:
    """Return the seed of one step: different for all steps and for trainings with different seeds."""
    mixed = (seed * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % 2**64
    mixed = ((mixed ^ (mixed >> 31)) * 0xD6E8FEB86659FD93) % 2**64
    return mixed >> 1


def _read_sentences(model: TokenModel, settings: TrainingSettings) -> list[Sentence]:
    """Return the training sentences as ids; built-in ones that are too long for the text encoder are left out.

    Raises `SpecError` if one of the user's own is too long, or all built-in ones are.
    """
    if settings.templates:
        return model.sentences(settings.sentences())
    read: list[Sentence] = []
    faults: list[SpecError] = []
    for text in settings.sentences():
        try:
            read += model.sentences([text])
        except SpecError as error:
            faults.append(error)
    if not read:
        raise faults[0]
    return read
