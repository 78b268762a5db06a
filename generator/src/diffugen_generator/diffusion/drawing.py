"""Drawing: prompts and seeds to images, in batches of mixed prompts.

An image depends on its recipe alone. Its noise comes from a generator of its own, on the CPU, seeded with
the sample's seed; what else is in the batch, and in which request, changes it by rounding only (at most 2/255
in fp32).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from diffugen_api.plan import SpecError
from diffugen_api.prompt_weights import Prompt
from diffugen_generator.diffusion.components import Components
from diffugen_generator.diffusion.denoise_paths import DenoisePath, Img2ImgPath
from diffugen_generator.diffusion.latents import latent_range
from diffugen_generator.diffusion.masks import SourceImage
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.failures import first_line

Predictor = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""What a model predicts for latents [b, c, h, w] at a step of its scheduler."""


@dataclass(frozen=True, slots=True)
class DrawingSettings:
    """What all images of a batch share."""

    width: int
    """Pixels."""
    height: int
    """Pixels."""
    steps: int
    guidance: float
    """Scale of classifier-free guidance (Ho & Salimans 2022); 1 is without, and then the negative text is not read.
    A model that was distilled to read it as an input reads no negative text either."""
    negative: Prompt = ""
    strength: float = 1
    """Part of the way that is drawn anew, in 0..1, where images are drawn from others."""


@dataclass(frozen=True, slots=True)
class DrawRequest:
    """One image to draw."""

    prompt: Prompt
    seed: int
    """In 0..2**63-1."""
    source: SourceImage | None = None
    """What it is drawn from; None for text alone. All requests of a batch have one, or none has."""
    words: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What objects of a class are called in the prompt besides the class's own words; for whoever looks on."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """One batch on its way from noise to latents."""

    places: Sequence[int]
    """Where each of the requests stood in what was asked for; what was padded has none."""
    requests: Sequence[DrawRequest]
    """The batch's rows, padding included."""
    tokens: int
    """Length of the texts that the UNet reads."""
    size: tuple[int, int]
    """The latents' height and width."""
    guided: bool
    """Whether the UNet is given 2b rows, the negative texts' first, or the b rows alone."""
    passes: int
    """How often the UNet will run."""


class SamplingObserver(Protocol):
    """Looks on while images are drawn, without changing them."""

    def observing(self, sampling: Sampling) -> AbstractContextManager[None]:
        """Return what is entered before the UNet's first pass over a batch and left after its last."""
        ...


class Drawer:
    """Draws with one model on one device."""

    def __init__(self, components: Components, texts: TextStates) -> None:
        """Draw with `components`; `texts` is shared with whoever else reads prompts."""
        self._components = components
        self._texts = texts
        accepted = inspect.signature(components.scheduler.step).parameters
        self._noisy = "generator" in accepted
        """Whether the scheduler may add noise on the way, as ancestral ones do."""

    def draw(
        self, requests: Sequence[DrawRequest], settings: DrawingSettings, *, batch: int | None = None
    ) -> list[NDArray[np.uint8]]:
        """Draw `requests` at once: images [height, width, 3], sRGB; arguments as `sample`."""
        drawn = self.decode(self.sample(requests, settings, batch=batch))
        return [_put_back(request, image) for request, image in zip(requests, drawn, strict=True)]

    @torch.inference_mode()
    def sample(
        self,
        requests: Sequence[DrawRequest],
        settings: DrawingSettings,
        *,
        batch: int | None = None,
        observer: SamplingObserver | None = None,
    ) -> list[torch.Tensor]:
        """Return the latents of `requests`, [c, h, w] in fp32, scaled as the UNet sees them.

        With `batch`, short lists are padded to that many by repeating the last request, so that the GPU sees
        one shape only; what was padded is not returned. Images whose texts take more windows of the text encoder
        are drawn apart: a text filled up with empty windows would be another text. `watch` looks on.
        """
        alike: dict[int, list[int]] = {}
        for place, request in enumerate(requests):
            alike.setdefault(self._windows(request, settings), []).append(place)
        drawn: dict[int, torch.Tensor] = {}
        for windows, places in alike.items():
            some = [requests[place] for place in places]
            drawn.update(
                zip(
                    places,
                    self._sample_alike(some, settings, windows=windows, batch=batch, places=places, observer=observer),
                    strict=False,
                )
            )
        return [drawn[place] for place in range(len(requests))]

    def _windows(self, request: DrawRequest, settings: DrawingSettings) -> int:
        """Return how many windows the longer of a request's two texts takes."""
        own = self._texts.windows(request.prompt)
        return max(own, self._texts.windows(settings.negative)) if self._guided(settings) else own

    def _guided(self, settings: DrawingSettings) -> bool:
        """Return whether every step is done twice, with the negative text first."""
        return settings.guidance > 1 and self._components.unet.config.time_cond_proj_dim is None

    def _sample_alike(
        self,
        requests: Sequence[DrawRequest],
        settings: DrawingSettings,
        *,
        windows: int,
        batch: int | None,
        places: Sequence[int],
        observer: SamplingObserver | None,
    ) -> torch.Tensor:
        """Return the latents [b, c, h, w] of requests whose texts take `windows` windows, padding included."""
        padded = [*requests, *[requests[-1]] * (max(batch or 0, len(requests)) - len(requests))]
        parts = self._components
        generators = [torch.Generator("cpu").manual_seed(request.seed) for request in padded]
        noise: torch.Tensor = self._noise(generators, settings)  # [b, c, h, w]
        scheduler = parts.scheduler
        self._set_steps(settings.steps)
        way = self._way(padded, noise, settings)
        latents = way.start
        extra = {"generator": generators} if self._noisy else {}
        size = (int(latents.shape[2]), int(latents.shape[3]))
        predict = self._predictor([request.prompt for request in padded], settings, windows, way)
        tokens = windows * parts.tokenizer.limit
        sampling = Sampling(places, padded, tokens, size, self._guided(settings), len(way.timesteps))
        with observer.observing(sampling) if observer else nullcontext():
            for place, t in enumerate(way.timesteps):
                stepped = scheduler.step(predict(latents, t), t, latents, **extra, return_dict=False)[0]
                latents = way.kept(stepped, place)
        return latents

    def _way(self, requests: Sequence[DrawRequest], noise: torch.Tensor, settings: DrawingSettings) -> DenoisePath:
        sources = [request.source for request in requests if request.source is not None]
        if not sources:
            return DenoisePath(self._components.scheduler, noise)
        return Img2ImgPath(self._components, sources, noise, steps=settings.steps, strength=settings.strength)

    def _predictor(
        self, prompts: Sequence[Prompt], settings: DrawingSettings, windows: int, way: DenoisePath
    ) -> Predictor:
        """Return what the model predicts for latents [b, c, h, w] at a step, guided, in fp32."""
        parts = self._components
        texts, pooled = self._texts.of(prompts, windows), self._texts.pooled(prompts)  # [b, tokens, width], [b, width]
        strength = parts.unet.config.time_cond_proj_dim
        guided = self._guided(settings)
        if guided:
            nothing = parts.zero_negative_embeds and not settings.negative
            negative = self._texts.of([settings.negative], windows) * (not nothing)
            pooled_negative = self._texts.pooled([settings.negative]) * (not nothing)
            texts = torch.cat([negative.expand_as(texts), texts])  # [2b, tokens, width], negative first
            pooled = torch.cat([pooled_negative.expand_as(pooled), pooled])
        inputs: dict[str, Any] = {"encoder_hidden_states": texts}
        if (added := self._texts.added(pooled, settings.height, settings.width)) is not None:
            inputs["added_cond_kwargs"] = added
        if strength is not None:
            inputs["timestep_cond"] = _waves(settings.guidance - 1, int(strength)).to(texts).expand(len(texts), -1)

        def predict(latents: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            doubled = torch.cat([latents, latents]) if guided else latents
            scaled = way.shown(parts.scheduler.scale_model_input(doubled, t)).to(parts.dtype)
            predicted: torch.Tensor = parts.unet(scaled, t, **inputs, return_dict=False)[0].float()
            if not guided:
                return predicted
            without, with_text = predicted.chunk(2)
            return without + settings.guidance * (with_text - without)

        return predict

    def _set_steps(self, steps: int) -> None:
        scheduler = self._components.scheduler
        try:
            scheduler.set_timesteps(steps, device=self._components.device)
        except ValueError as error:
            name = type(scheduler).__name__
            raise SpecError(
                "UnsupportedSteps",
                f"steps: {name} cannot draw in {steps} steps: {first_line(error)}; give the stage another number of "
                "steps, or another scheduler.",
            ) from error

    def _noise(self, generators: list[torch.Generator], settings: DrawingSettings) -> torch.Tensor:
        """Return standard normal latents [b, c, h, w] in fp32, each from its own generator."""
        parts = self._components
        shape = (
            int(parts.vae.config.latent_channels),
            settings.height // parts.reduction,
            settings.width // parts.reduction,
        )
        noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
        return noise.to(parts.device, memory_format=torch.channels_last)

    @torch.inference_mode()
    def decode(self, latents: Sequence[torch.Tensor]) -> list[NDArray[np.uint8]]:
        """Turn latents [c, h, w] of one size into images [height, width, 3], sRGB."""
        vae = self._components.vae
        stacked = torch.stack(list(latents)).to(memory_format=torch.channels_last)  # [b, c, h, w]
        scale, shift = latent_range(vae, stacked)
        decoded = vae.decode((stacked / scale + shift).to(vae.dtype), return_dict=False)[0].float()
        levels = (decoded / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
        return list(levels.permute(0, 2, 3, 1).contiguous().cpu().numpy())


def _put_back(request: DrawRequest, drawn: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return what was drawn, with the source where it shows."""
    return drawn if request.source is None else request.source.put_back(drawn)


def _waves(value: float, width: int) -> torch.Tensor:
    """Return a number as sines and cosines [1, width], as distilled models read the guidance scale.

    Vaswani et al. 2017, by way of https://github.com/google-research/vdm (model_vdm.py, get_timestep_embedding).
    """
    half = width // 2
    phases = 1000 * value * torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half))
    return functional.pad(torch.cat([phases.sin(), phases.cos()]), (0, width % 2))[None]
