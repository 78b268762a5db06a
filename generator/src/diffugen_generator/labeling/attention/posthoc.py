"""Looking at a finished image with the model that drew it: where does it attend to each word?

The image's latents are noised a little (t = 10 % of the training steps) and passed once through the UNet with
its own prompt; what the words of a class attend to is that class's map. It costs one UNet pass (DiffSegmenter,
Wang et al. 2023; iSeg, Sun et al. 2024). The latents are those that the image was drawn from, where it has just
been drawn, since encoding costs more than the pass; an image from the store is encoded, with nearly the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch.nn import functional

from diffugen_api.plan import SpecError
from diffugen_api.prompt_weights import plain, unweighted
from diffugen_generator.diffusion.components import Components
from diffugen_generator.diffusion.denoise_paths import blank_channels
from diffugen_generator.diffusion.latents import encode_images
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.labeling.attention.capture import Captured, capturing, sizes_of
from diffugen_generator.labeling.attention.refinement import ranged, refined
from diffugen_generator.labeling.attention.word_maps import evidence_of, mention_columns
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.labeling.labeler import LabelInput
from diffugen_generator.labeling.words import Vocabulary, mentions

NOISE_AT = 0.1
"""Share of the training steps at which the image is looked at: t = 100 of 1000."""

LARGE = 32
"""Latent cells on a side from which a UNet counts as large: its first layers see texture and are left out."""
LARGE_WEIGHTS = {2: 0.7, 1: 0.3}
"""Weights by level for large UNets: 16 and 32 cells of 64, as in iSeg."""
SMALL_WEIGHTS = {0: 0.7, 1: 0.3}
"""Weights by level for small UNets, whose first level is 16 cells or so."""

_SEE_SALT = 0x9E3779B97F4A7C15
"""Keeps the noise of looking apart from the noise of drawing, which has the same seed."""


def weights_of(unet: Any) -> dict[int, float]:
    """Return the weights of the levels at which a UNet's attention is read, the finest the least level."""
    side = unet.config.sample_size
    side = side if isinstance(side, int) else min(side)
    return LARGE_WEIGHTS if side >= LARGE else SMALL_WEIGHTS


class PosthocAttention:
    """Looks at images with one model on one device."""

    def __init__(self, components: Components, texts: TextStates, vocabulary: Vocabulary, *, refine: bool) -> None:
        """Look for `vocabulary`; with `refine`, spread the maps along self-attention."""
        self._components = components
        self._texts = texts
        self._vocabulary = vocabulary
        self._refine = refine
        self._weights = weights_of(components.unet)
        # The forward process is the same for all schedulers of a model; this one writes it plainly.
        self._forward: Any = DDPMScheduler.from_config(components.scheduler.config)  # type: ignore[no-untyped-call]  # diffusers has no types

    @torch.inference_mode()
    def look(self, seen: Sequence[LabelInput], *, batch: int | None = None) -> list[AttentionMaps]:
        """Return the evidence in images of one size; with `batch`, short lists are padded to that many.

        Images whose prompts take more windows of the text encoder are looked at apart.
        """
        alike: dict[int, list[int]] = {}
        for place, each in enumerate(seen):
            alike.setdefault(self._texts.windows(unweighted(each.prompt)), []).append(place)
        found: dict[int, AttentionMaps] = {}
        for places in alike.values():
            found.update(zip(places, self._look_alike([seen[place] for place in places], batch), strict=True))
        return [found[place] for place in range(len(seen))]

    def _look_alike(self, seen: Sequence[LabelInput], batch: int | None) -> list[AttentionMaps]:
        """Look at images whose prompts take equally many windows."""
        padded = [*seen, *[seen[-1]] * (max(batch or 0, len(seen)) - len(seen))]
        parts = self._components
        named = [mentions(plain(each.prompt), self._vocabulary.called(each.words)) for each in padded]
        latents = self.latents(padded)  # [b, c, h, w]
        sizes = sizes_of(int(latents.shape[2]), int(latents.shape[3]))
        noised, t = self._noised(latents, padded)
        levels = list(self._weights)
        with capturing(
            parts.unet,
            columns=mention_columns([parts.tokenizer.read(each.prompt) for each in padded], named).to(parts.device),
            sizes=sizes,
            cross_levels=levels,
            own_levels=levels if self._refine else (),
        ) as captured:
            prompts = [unweighted(each.prompt) for each in padded]
            added = self._texts.added(self._texts.pooled(prompts), *padded[0].image.shape[:2])
            parts.unet(
                blank_channels(parts, noised).to(parts.dtype),
                t,
                encoder_hidden_states=self._texts.of(prompts),
                added_cond_kwargs=added,
                return_dict=False,
            )
        if not captured.cross:
            raise SpecError(
                "UnsupportedModel",
                f"the model {parts.model.uri} has no cross-attention at levels {levels} of its UNet to label by.",
            )
        maps = self._maps(captured, sizes).cpu()  # [b, columns, h, w]
        return [evidence_of(self._vocabulary, named[i], maps[i]) for i in range(len(seen))]

    @torch.inference_mode()
    def latents(self, seen: Sequence[LabelInput]) -> torch.Tensor:
        """Return the images' latents [b, c, h, w]; those that are not at hand are encoded."""
        at_hand = {place: each.latents for place, each in enumerate(seen) if each.latents is not None}
        missing = [place for place in range(len(seen)) if place not in at_hand]
        if missing:
            encoded = encode_images(self._components, [seen[place].image for place in missing])
            at_hand.update(zip(missing, encoded, strict=True))
        return torch.stack([at_hand[place] for place in range(len(seen))])

    def _noised(self, latents: torch.Tensor, seen: Sequence[LabelInput]) -> tuple[torch.Tensor, torch.Tensor]:
        t = torch.tensor(round(NOISE_AT * self._forward.config.num_train_timesteps), device=latents.device)
        noise = torch.stack(
            [
                torch.randn(
                    latents.shape[1:],
                    generator=torch.Generator("cpu").manual_seed((each.seed + _SEE_SALT) % 2**63),
                )
                for each in seen
            ]
        )
        return self._forward.add_noise(latents, noise.to(latents.device), t.expand(len(seen))), t

    def _maps(self, captured: Captured, sizes: Sequence[tuple[int, int]]) -> torch.Tensor:
        """Merge the captured layers to maps [b, columns, h, w] at the finest captured level."""
        finest = min(captured.cross)
        merged = torch.zeros(())
        for level, layers in sorted(captured.cross.items()):
            mean = torch.stack(layers).mean(dim=0).transpose(1, 2)  # [b, columns, cells]
            mean = mean.reshape(*mean.shape[:2], *sizes[level])  # [b, columns, h, w]
            share = mean / mean.mean(dim=(2, 3), keepdim=True).clamp_min(1e-12)
            grown = functional.interpolate(share, size=sizes[finest], mode="bilinear", align_corners=False)
            merged = grown * self._weights[level] + merged.to(grown.device)
        if not self._refine:
            return ranged(merged)
        return refined(merged, captured.own.get(finest, []))
