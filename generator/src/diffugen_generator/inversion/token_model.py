"""A frozen model with one new word: its vectors are the only parameters.

Built on the parts of a UNet pipeline with one CLIP text encoder (Stable Diffusion 1.x, 2.x) or two (XL).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from numpy.typing import NDArray
from torch.nn import functional

from diffugen_api.errors import SpecError
from diffugen_generator.diffusion.components import Components, TextEncoder
from diffugen_generator.diffusion.denoise_paths import blank_channels
from diffugen_generator.diffusion.latents import encode_images
from diffugen_generator.diffusion.tokens import PromptTokenizer
from diffugen_generator.inversion.spliced_embedding import SplicedEmbedding
from diffugen_generator.models.embeddings import Embedding


@dataclass(frozen=True, slots=True)
class NormRange:
    """The range in which the lengths of new vectors are kept: two deviations around the vocabulary's mean."""

    low: float
    high: float

    @classmethod
    def of(cls, table: torch.Tensor) -> NormRange:
        """Return the range of a vocabulary [words, width]."""
        lengths = table.float().norm(dim=1)
        mean, deviation = float(lengths.mean()), float(lengths.std())
        return cls(max(mean - 2 * deviation, 0.0), mean + 2 * deviation)


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence as the text encoders read it: token ids [limit] of each."""

    ids: tuple[tuple[int, ...], ...]


class TokenModel:
    """Predicts noise with a word whose vectors can be trained."""

    def __init__(self, components: Components, token: str, initializer: str, count: int, *, field: str) -> None:
        """Add `token` of `count` vectors, which start as those of the words `initializer`.

        Changes the embedding look-up of the components' text encoders until `close`. Raises `SpecError` naming `field`
        where the initializer is no words of the model.
        """
        self.components = components
        self.field = field
        self._forward: Any = DDPMScheduler.from_config(components.scheduler.config)  # type: ignore[no-untyped-call]  # diffusers has no types
        self._tables = [encoder.network.get_input_embeddings() for encoder in components.encoders]
        starts = [self._start(encoder, initializer, count) for encoder in components.encoders]
        self.vectors = [torch.nn.Parameter(start) for start in starts]
        """[count, width] in fp32 for each text encoder."""
        self.norms = [NormRange.of(table.weight) for table in self._tables]
        word = Embedding(token, tuple(start.cpu().numpy() for start in starts))
        names = ("tokenizer", "tokenizer_2")
        encoders = []
        for encoder, name, own, vectors in zip(components.encoders, names, self._tables, self.vectors, strict=False):
            tokenizer = PromptTokenizer(components.model, name, [word])
            encoder.network.set_input_embeddings(SplicedEmbedding(own, vectors, tokenizer.first_learnt))
            encoders.append(TextEncoder(tokenizer, encoder.network, encoder.last))
        self.taught = replace(components, encoders=tuple(encoders))
        """The components with the word, to draw with."""

    def close(self) -> None:
        """Give the text encoders their own look-up back."""
        for encoder, own in zip(self.components.encoders, self._tables, strict=True):
            encoder.network.set_input_embeddings(own)

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.components.device

    @property
    def training_steps(self) -> int:
        """Timesteps of the model's noise schedule."""
        return int(self._forward.config.num_train_timesteps)

    def latents(self, images: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """Return the scaled latents [n, c, h, w] of images, encoded one by one: memory stays that of one."""
        encoded = torch.cat([encode_images(self.components, [image]) for image in images])
        return encoded.clone()  # outside of inference mode: the loss looks at them

    def sentences(self, texts: Sequence[str]) -> list[Sentence]:
        """Return sentences as ids; raise `SpecError` where one is too long for the text encoder's window."""
        read = []
        for number, text in enumerate(texts):
            each = [encoder.tokenizer.read(text) for encoder in self.taught.encoders]
            if any(tokens.windows > 1 for tokens in each):
                raise SpecError(
                    "SentenceTooLong",
                    f"{self.field}.templates[{number}]: {text!r} is longer than the text encoder reads at once; "
                    "shorten it, or train fewer vectors.",
                )
            read.append(Sentence(tuple(tokens.ids for tokens in each)))
        return read

    def loss(
        self,
        latents: torch.Tensor,
        noise: torch.Tensor,
        steps: torch.Tensor,
        sentences: Sequence[Sentence],
        masks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return each row's mean squared error [b] of the model's prediction.

        Args:
            latents: [b, c, h, w] scaled, in fp32.
            noise: standard normal, of the same shape.
            steps: [b] timesteps of the noise schedule.
            sentences: of each row.
            masks: [b, 1, h, w] in 0..1, how much each cell counts; all alike where absent.
        """
        parts = self.components
        noised = self._forward.add_noise(latents, noise, steps).to(parts.dtype)
        states, pooled = self._states(sentences)
        height, width = (int(side) * parts.reduction for side in latents.shape[2:])
        predicted = parts.unet(
            blank_channels(parts, noised),
            steps,
            encoder_hidden_states=states,
            added_cond_kwargs=self._added(pooled, height, width),
            return_dict=False,
        )[0].float()
        errors: torch.Tensor = (predicted - self._target(latents, noise, steps)).square()  # [b, c, h, w]
        if masks is None:
            return errors.mean(dim=(1, 2, 3))
        return (errors * masks).sum(dim=(1, 2, 3)) / (masks.sum(dim=(1, 2, 3)) * errors.shape[1])

    @torch.no_grad()
    def keep_norms(self) -> None:
        """Bring vectors that left the range of the vocabulary's lengths back to its border."""
        for vectors, norms in zip(self.vectors, self.norms, strict=True):
            lengths = vectors.norm(dim=1, keepdim=True).clamp_min(1e-8)
            vectors.mul_(lengths.clamp(norms.low, norms.high) / lengths)

    def _start(self, encoder: TextEncoder, initializer: str, count: int) -> torch.Tensor:
        """Return the vectors [count, width] that training begins with: those of the initializer's tokens in turn.

        One vector of several tokens is their mean.
        """
        tokens = encoder.tokenizer.read(initializer)
        ids = [each for each, (begin, end) in zip(tokens.ids, tokens.spans, strict=True) if begin < end]
        if not ids:
            raise SpecError("NoInitializer", f"{self.field}.initializer: {initializer!r} has no word; write one.")
        table: torch.Tensor = encoder.network.get_input_embeddings().weight
        rows = table[torch.tensor(ids, device=table.device)].float()
        if count == 1:
            return rows.mean(dim=0, keepdim=True).clone()
        return rows[torch.arange(count) % len(rows)].clone()

    def _states(self, sentences: Sequence[Sentence]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the states [b, limit, width] that the UNet reads, and what is pooled [b, width] ([b, 0] without)."""
        states, pooled = [], torch.zeros(len(sentences), 0, device=self.device)
        for number, encoder in enumerate(self.taught.encoders):
            ids = torch.tensor([sentence.ids[number] for sentence in sentences], device=self.device)
            if encoder.last:
                states.append(encoder.network(ids)[0])
                continue
            read = encoder.network(ids, output_hidden_states=True)
            states.append(read.hidden_states[-2])
            if (projection := getattr(encoder.network, "text_projection", None)) is not None:
                ends = (ids == encoder.tokenizer.end).int().argmax(dim=1)  # the first end mark
                pooled = projection(read.last_hidden_state[torch.arange(len(ids), device=self.device), ends])
        return torch.cat(states, dim=-1), pooled

    def _added(self, pooled: torch.Tensor, height: int, width: int) -> dict[str, torch.Tensor] | None:
        if not self.components.is_sdxl:
            return None
        sizes = torch.tensor([height, width, 0, 0, height, width], dtype=pooled.dtype, device=pooled.device)
        return {"text_embeds": pooled, "time_ids": sizes.expand(len(pooled), -1)}

    def _target(self, latents: torch.Tensor, noise: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        kind = self._forward.config.prediction_type
        if kind == "epsilon":
            return noise
        if kind == "v_prediction":
            velocity: torch.Tensor = self._forward.get_velocity(latents, noise, steps)
            return velocity
        if kind == "sample":
            return latents
        raise SpecError("UnsupportedModel", f"{self.field}.model: textual inversion cannot train {kind!r} prediction.")


def masks_of(masks: Sequence[NDArray[np.bool_] | None], cells: tuple[int, int]) -> torch.Tensor | None:
    """Return masks [height, width] on the grid (h, w) of latents, [n, 1, h, w] in 0..1; None where none is given."""
    if all(mask is None for mask in masks):
        return None
    given = [np.ones(cells, np.float32) if mask is None else mask.astype(np.float32) for mask in masks]
    shrunk = [functional.adaptive_avg_pool2d(torch.from_numpy(mask)[None], cells) for mask in given]  # [1, h, w]
    return torch.stack(shrunk).clamp_min(0)
