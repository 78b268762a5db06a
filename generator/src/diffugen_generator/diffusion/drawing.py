"""Drawing: prompts and seeds to images, in batches of mixed prompts.

An image depends only on its recipe. Its noise comes from its own generator, on the CPU, seeded with the sample's seed.
The other images of the batch, and their order, change it only by rounding (at most 2/255 in fp32).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from diffugen_api.plan import SpecError
from diffugen_api.prompt_weights import Prompt
from diffugen_generator.diffusion.denoise_paths import DenoisePath, Img2ImgPath
from diffugen_generator.diffusion.masks import SourceImage
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.failures import first_line
from diffugen_generator.families.finite import check_finite
from diffugen_generator.families.model import Conditioning, DiffusionModel, Predictor, first_index


@dataclass(frozen=True, slots=True)
class DrawingSettings:
    """The settings that all images of a batch share."""

    width: int
    """Pixels."""
    height: int
    """Pixels."""
    steps: int
    guidance: float
    """Scale of classifier-free guidance (Ho & Salimans 2022). 1 means no guidance: the negative text is not read.
    A distilled model that reads the scale as an input does not read the negative text, either."""
    negative: Prompt = ""
    strength: float = 1
    """The fraction of the denoising steps to run, in 0..1, if images are drawn from source images."""


@dataclass(frozen=True, slots=True)
class DrawRequest:
    """One image to draw."""

    prompt: Prompt
    seed: int
    """In 0..2**63-1."""
    source: SourceImage | None = None
    """The source image; None if the image is drawn only from text. All requests of a batch have one, or none has."""
    words: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Other names of the objects of a class in the prompt, besides the class's own words. Observers read it."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """One batch while it is sampled from noise to latents."""

    indices: Sequence[int]
    """The index of each row in the requests of `Drawer.sample`; padding has none."""
    requests: Sequence[DrawRequest]
    """The batch's rows, padding included."""
    tokens: int
    """The number of tokens of the texts that the network reads."""
    size: tuple[int, int]
    """The latents' height and width."""
    guided: bool
    """Whether each pass has 2b rows, those of the negative texts first, or only the b rows."""
    passes: int
    """The number of passes of the network."""


class SamplingObserver(Protocol):
    """Observes the network while images are drawn, without changing them."""

    def observing(self, sampling: Sampling) -> AbstractContextManager[None]:
        """Return a context that is entered before the network's first pass over a batch and left after its last."""
        ...


class Drawer:
    """Draws with one model on one device."""

    def __init__(self, model: DiffusionModel, texts: TextStates) -> None:
        """Draw with `model`; `texts` is shared with all other users of this model's text encoders."""
        self._model = model
        self._texts = texts

    @torch.inference_mode()
    def sample(
        self,
        requests: Sequence[DrawRequest],
        settings: DrawingSettings,
        *,
        batch: int | None = None,
        observer: SamplingObserver | None = None,
    ) -> list[torch.Tensor]:
        """Return the latents of `requests`, [c, h, w] in fp32, with the scale of the network's input.

        With `batch`, short lists are padded to that length by repeating the last request, so that the GPU gets only one
        shape; padding is not returned. Images whose texts take more windows of the text encoder are drawn in batches of
        their own, because a text padded with empty windows is another text. `observer` observes each batch.

        Raises `SpecError` naming `run.dtype` if latents are not finite.
        """
        alike: dict[int, list[int]] = {}
        for index, request in enumerate(requests):
            alike.setdefault(self._windows(request, settings), []).append(index)
        drawn: dict[int, torch.Tensor] = {}
        for windows, indices in alike.items():
            some = [requests[index] for index in indices]
            latents = self._sample_alike(
                some, settings, windows=windows, batch=batch, indices=indices, observer=observer
            )
            drawn.update(zip(indices, latents, strict=False))
        return [drawn[index] for index in range(len(requests))]

    def decode(self, latents: Sequence[torch.Tensor]) -> list[NDArray[np.uint8]]:
        """Turn latents [c, h, w] of one size into images [height, width, 3], sRGB."""
        return self._model.decode(latents)

    def _windows(self, request: DrawRequest, settings: DrawingSettings) -> int:
        """Return the number of windows of the longer of a request's two texts."""
        own = self._texts.windows(request.prompt)
        return max(own, self._texts.windows(settings.negative)) if self._guided(settings) else own

    def _guided(self, settings: DrawingSettings) -> bool:
        """Return whether every step runs for both texts, the negative text first."""
        return settings.guidance > 1 and self._model.reads_negative

    def _sample_alike(
        self,
        requests: Sequence[DrawRequest],
        settings: DrawingSettings,
        *,
        windows: int,
        batch: int | None,
        indices: Sequence[int],
        observer: SamplingObserver | None,
    ) -> torch.Tensor:
        """Return the latents [b, c, h, w] of requests whose texts take `windows` windows, padding included."""
        padded = [*requests, *[requests[-1]] * (max(batch or 0, len(requests)) - len(requests))]
        generators = [torch.Generator("cpu").manual_seed(request.seed) for request in padded]
        noise = self._noise(generators, settings)  # [b, c, h, w]
        size = (int(noise.shape[2]), int(noise.shape[3]))
        sampler = self._model.sampler
        self._set_steps(settings, size, drawn_from=padded[0].source)
        path = self._path(padded, noise, settings)
        latents = path.start
        conditioning = self._conditioning([request.prompt for request in padded], settings, windows)
        predict = self._predictor(conditioning, settings, path)
        tokens = int(conditioning.states.shape[1])
        sampling = Sampling(indices, padded, tokens, size, self._guided(settings), len(path.timesteps))
        with observer.observing(sampling) if observer else nullcontext():
            for number, t in enumerate(path.timesteps):
                stepped = sampler.step(predict(latents, t), t, latents, generators)
                latents = path.kept(stepped, number)
        check_finite(latents[: len(requests)], "the drawn latents", self._model.dtype)
        return latents

    def _path(self, requests: Sequence[DrawRequest], noise: torch.Tensor, settings: DrawingSettings) -> DenoisePath:
        sources = [request.source for request in requests if request.source is not None]
        if not sources:
            return DenoisePath(self._model.sampler, noise)
        return Img2ImgPath(self._model, sources, noise, steps=settings.steps, strength=settings.strength)

    def _conditioning(self, prompts: Sequence[Prompt], settings: DrawingSettings, windows: int) -> Conditioning:
        """Return the texts that every step reads: b prompts; if guided, b times the negative text before them."""
        own = self._texts.conditioning(prompts, windows)
        if not self._guided(settings):
            return own
        negative = self._texts.conditioning([settings.negative], windows)
        share = 0 if self._model.zero_negative_embeds and not settings.negative else 1
        return Conditioning(
            torch.cat([(negative.states * share).expand_as(own.states), own.states]),  # [2b, tokens, width]
            torch.cat([(negative.pooled * share).expand_as(own.pooled), own.pooled]),  # [2b, width]
        )

    def _predictor(self, conditioning: Conditioning, settings: DrawingSettings, path: DenoisePath) -> Predictor:
        """Return a function: the model's guided prediction in fp32 for latents [b, c, h, w] at a timestep."""
        sampler, guided = self._model.sampler, self._guided(settings)
        network = self._model.predictor(conditioning, guidance=settings.guidance, surroundings=path.surroundings)

        def predict(latents: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            doubled = torch.cat([latents, latents]) if guided else latents
            predicted = network(sampler.scaled(doubled, t), t)
            if not guided:
                return predicted
            without, with_text = predicted.chunk(2)
            return without + settings.guidance * (with_text - without)

        return predict

    def _set_steps(self, settings: DrawingSettings, size: tuple[int, int], drawn_from: SourceImage | None) -> None:
        """Set the steps and where they begin; raise `SpecError` if they cannot be run."""
        sampler, steps = self._model.sampler, settings.steps
        strength = settings.strength if drawn_from is not None else 1
        try:
            sampler.set_steps(steps, size)
            sampler.begin_at(first_index(steps, strength, sampler.order))
        except ValueError as error:
            raise SpecError(
                "UnsupportedSteps",
                f"steps: {sampler.name} cannot draw in {steps} steps at strength {strength:g}: {first_line(error)}; "
                "give the stage another number of steps, or another scheduler.",
            ) from error

    def _noise(self, generators: Sequence[torch.Generator], settings: DrawingSettings) -> torch.Tensor:
        """Return standard normal latents [b, c, h, w] in fp32, each from its own generator."""
        shape = self._model.latent_shape(settings.height, settings.width)
        noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
        return noise.to(self._model.device)
