"""Checks whether a class is in the image at all. Attention cannot show this: it finds a place for every word.

The denoising error can show it. If an object is in the image, the model predicts the noise better with the object's
word in the prompt than without it (the idea of diffusion classifiers, Li et al. 2023,
https://arxiv.org/abs/2303.16203). The image's latents are noised at two timesteps. The error with the prompt is
compared with the error with the prompt without the class's words, with the same noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import torch

from diffugen_api.prompt_weights import Prompt, plain
from diffugen_api.words import Vocabulary, mentions
from diffugen_generator.diffusion.noise import seeded_noise
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.families.finite import check_finite
from diffugen_generator.families.model import DiffusionModel

NOISE_AT: Final = (0.2, 0.4)
"""Shares of the training steps. On the built-in model, all shares from 0.1 to 0.5 separate present classes from absent
ones; at higher shares the content of the image is lost."""

_SALT: Final = 0x5851F42D4C957F2D
"""Makes this noise different from the noise of drawing and of `posthoc`, which use the same seed."""


class PresenceCheck:
    """Compares prediction errors with one model on one device."""

    def __init__(self, model: DiffusionModel, texts: TextStates, vocabulary: Vocabulary) -> None:
        """Check for the classes of `vocabulary`."""
        self._model = model
        self._texts = texts
        self._vocabulary = vocabulary

    @torch.inference_mode()
    def of(
        self,
        latents: Sequence[torch.Tensor],
        prompts: Sequence[Prompt],
        seeds: Sequence[int],
        words: Sequence[Mapping[str, Sequence[str]]] = (),
    ) -> list[tuple[float, ...]]:
        """Return, for each image, the relative drop of the error for each class that its prompt names.

        Args:
            latents: [c, h, w] scaled, of one size.
            prompts: the prompts of the images.
            seeds: the samples' seeds; the noise derives from them.
            words: other names of the objects of a class in each prompt, besides the class's own words.
        """
        called = words or [{}] * len(prompts)
        without = [self.without(plain(prompt), own) for prompt, own in zip(prompts, called, strict=True)]
        rows: list[tuple[int, str]] = []  # the image, and the text for its prediction
        for place, prompt in enumerate(prompts):
            rows += [(place, text) for text in (plain(prompt), *without[place])]
        windows = [self._texts.windows(plain(prompt)) for prompt in prompts]
        errors = torch.stack([self._errors(latents, rows, seeds, windows, at=at) for at in NOISE_AT])  # [t, rows]
        found, row = [], 0
        for count in map(len, without):
            own, others = errors[:, row], errors[:, row + 1 : row + 1 + count]
            drops = ((others - own[:, None]) / others.clamp_min(1e-12)).mean(dim=0)
            found.append(tuple(float(each) for each in drops))
            row += 1 + count
        return found

    def without(self, prompt: str, words: Mapping[str, Sequence[str]] | None = None) -> list[str]:
        """Return the prompt without each of its classes in turn, in the order of the evidence."""
        named = [each for each in mentions(prompt, self._vocabulary.called(words or {})) if not each.background]
        texts = []
        for name in self._vocabulary.classes:
            places = [(mention.begin, mention.end) for mention in named if mention.name == name]
            if places:
                kept = prompt
                for begin, end in reversed(places):
                    kept = kept[:begin] + kept[end:]
                texts.append(" ".join(kept.split()))
        return texts

    def _errors(
        self,
        latents: Sequence[torch.Tensor],
        rows: Sequence[tuple[int, str]],
        seeds: Sequence[int],
        windows: Sequence[int],
        *,
        at: float,
    ) -> torch.Tensor:
        """Return the mean squared error of the prediction for each row, in passes of as many rows as images."""
        alike: dict[int, list[int]] = {}  # all texts of one image have the same length
        for number, (place, _) in enumerate(rows):
            alike.setdefault(windows[place], []).append(number)
        errors = torch.zeros(len(rows))
        for length, numbers in alike.items():
            for start in range(0, len(numbers), len(latents)):
                part = numbers[start : start + len(latents)]
                some = [rows[number] for number in part]
                errors[part] = self._errors_alike(latents, some, seeds, at=at, windows=length)
        return errors

    def _errors_alike(
        self,
        latents: Sequence[torch.Tensor],
        some: Sequence[tuple[int, str]],
        seeds: Sequence[int],
        *,
        at: float,
        windows: int,
    ) -> torch.Tensor:
        """Return the errors of rows whose texts are filled up to `windows` windows."""
        model = self._model
        step = model.training_step(at)
        clean = torch.stack([latents[index] for index, _ in some])  # [rows, c, h, w]
        noise = seeded_noise(clean.shape[1:], [seeds[index] for index, _ in some], _SALT + step)
        noised = model.forward_noised(clean, noise, step)
        predict = model.predictor(self._texts.conditioning([text for _, text in some], windows))
        predicted = predict(noised, torch.tensor(step, device=model.device))
        errors = model.prediction_error(predicted, clean, noise, step).cpu()
        check_finite(errors, "the prediction errors of minPresence", model.dtype)
        return errors
