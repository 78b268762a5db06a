"""A frozen UNet pipeline with one new word: its vectors are the only parameters.

It uses the components of a pipeline with one CLIP text encoder (Stable Diffusion 1.x, 2.x) or two (XL).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffugen_api.errors import SpecError
from diffugen_generator.families.embedding import Embedding
from diffugen_generator.families.model import Conditioning
from diffugen_generator.families.token_training import NormRange, Sentence
from diffugen_generator.families.unet.components import Components
from diffugen_generator.families.unet.schedulers import forward_process, prediction_target
from diffugen_generator.families.unet.spliced_embedding import SplicedEmbedding
from diffugen_generator.families.unet.text_encoding import TextEncoder
from diffugen_generator.families.unet.tokens import PromptTokenizer


class UNetTokenModel:
    """Predicts noise with a word whose vectors can be trained."""

    def __init__(self, components: Components, token: str, initializer: str, count: int, *, field: str) -> None:
        """Add `token` with `count` vectors, which start as the vectors of the words `initializer`.

        Changes the embedding look-up of the components' text encoders until `close`. Raises `SpecError` naming `field`
        if the initializer has no words of the model.
        """
        self._components = components
        self._field = field
        self._forward: Any = forward_process(components.scheduler)
        self._tables = [encoder.network.get_input_embeddings() for encoder in components.encoders]
        starts = [_start(encoder, initializer, count, field) for encoder in components.encoders]
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
        """The components with the word, for drawing."""

    def close(self) -> None:
        """Restore the text encoders' own look-up."""
        for encoder, own in zip(self._components.encoders, self._tables, strict=True):
            encoder.network.set_input_embeddings(own)

    @property
    def training_steps(self) -> int:
        """The number of timesteps of the model's noise schedule."""
        return int(self._forward.config.num_train_timesteps)

    def latents(self, images: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """Return the scaled latents [n, c, h, w] of images, encoded one by one to need the memory of only one image."""
        encoded = torch.cat([self._components.encode_images([image]) for image in images])
        return encoded.clone()  # a tensor of inference mode cannot be part of a loss

    def sentences(self, texts: Sequence[str]) -> list[Sentence]:
        """Return sentences as ids; raise `SpecError` if one is too long for the text encoder's window."""
        read = []
        for number, text in enumerate(texts):
            each = [encoder.tokenizer.read(text) for encoder in self.taught.encoders]
            if any(tokens.windows > 1 for tokens in each):
                raise SpecError(
                    "SentenceTooLong",
                    f"{self._field}.templates[{number}]: {text!r} is longer than the text encoder reads at once; "
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
        """Return each row's mean squared error [b] of the UNet's prediction; arguments as in `TokenModel`."""
        noised = self._forward.add_noise(latents, noise, steps)
        predicted = self._components.predictor(self._conditioning(sentences))(noised, steps)
        target = prediction_target(self._forward, latents, noise, steps)
        errors: torch.Tensor = (predicted - target).square()  # [b, c, h, w]
        if masks is None:
            return errors.mean(dim=(1, 2, 3))
        return (errors * masks).sum(dim=(1, 2, 3)) / (masks.sum(dim=(1, 2, 3)) * errors.shape[1])

    @torch.no_grad()
    def keep_norms(self) -> None:
        """Scale vectors whose length is outside the vocabulary's range back to the border of the range."""
        for vectors, norms in zip(self.vectors, self.norms, strict=True):
            lengths = vectors.norm(dim=1, keepdim=True).clamp_min(1e-8)
            vectors.mul_(lengths.clamp(norms.low, norms.high) / lengths)

    def _conditioning(self, sentences: Sequence[Sentence]) -> Conditioning:
        """Return the states [b, limit, width] that the UNet reads, and the pooled states ([b, 0] if there are none).

        The result is that of `TextEncoding` for a text without weights, but with gradients.
        """
        device = self._components.device
        states, pooled = [], torch.zeros(len(sentences), 0, device=device)
        for number, encoder in enumerate(self.taught.encoders):
            ids = torch.tensor([sentence.ids[number] for sentence in sentences], device=device)
            if encoder.last:
                states.append(encoder.network(ids)[0])
                continue
            read = encoder.network(ids, output_hidden_states=True)
            states.append(read.hidden_states[-2])
            if (projection := getattr(encoder.network, "text_projection", None)) is not None:
                ends = (ids == encoder.tokenizer.end).int().argmax(dim=1)  # the first end mark
                pooled = projection(read.last_hidden_state[torch.arange(len(ids), device=device), ends])
        return Conditioning(torch.cat(states, dim=-1), pooled)


def _start(encoder: TextEncoder, initializer: str, count: int, field: str) -> torch.Tensor:
    """Return the start vectors [count, width] of a training: those of the initializer's tokens in turn.

    If `count` is 1 and there are several tokens, the vector is their mean.
    """
    tokens = encoder.tokenizer.read(initializer)
    ids = [each for each, (begin, end) in zip(tokens.ids, tokens.spans, strict=True) if begin < end]
    if not ids:
        raise SpecError("NoInitializer", f"{field}.initializer: {initializer!r} has no word; write one.")
    table: torch.Tensor = encoder.network.get_input_embeddings().weight
    rows = table[torch.tensor(ids, device=table.device)].float()
    if count == 1:
        return rows.mean(dim=0, keepdim=True).clone()
    return rows[torch.arange(count) % len(rows)].clone()
