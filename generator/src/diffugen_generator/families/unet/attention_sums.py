"""Sums attention over a whole sampling, as DAAM does, but in batches and only for the words that matter.

DAAM (Tang et al. 2023, https://github.com/castorini/daam, daam/trace.py and heatmap.py) sums the probabilities of each
layer and head over the steps, for the conditional half of the batch. It reads the down and up blocks, except layers at
an eighth of the latents' resolution. It enlarges each sum to the latents' size (bicubic), sets values below 0 to 0, and
takes the mean over layers and heads. DAAM keeps a map for every token of one prompt. Here a layer keeps only the
requested columns, for every image of the batch.

Shapes: see the legend in `labeling.attention`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch.nn import functional

from diffugen_generator.families.fused_attention import attended_by_head
from diffugen_generator.families.model import EQUAL_HEADS, HeadWeights
from diffugen_generator.families.unet.attention_capture import (
    ObservingProcessor,
    cells_of,
    levels_by_cells,
    queries_and_keys,
    sizes_of,
    wrapped,
)

LEFT_OUT = 3
"""DAAM does not read this level: an eighth of the latents' resolution."""
MIDDLE = "mid_block"


class Summed:
    """Sums of attention, by layer: [b, heads, cells, columns]."""

    def __init__(self, sizes: Sequence[tuple[int, int]], heads: HeadWeights = EQUAL_HEADS) -> None:
        """Start without sums; `sizes` are the feature maps' (h, w) by level, `heads` is how heads are joined."""
        self._sizes = sizes
        self._chosen = heads.chosen
        self.by_layer: dict[str, tuple[int, torch.Tensor]] = {}
        """Level and sum of each layer."""
        self.own: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        """Queries and keys [b, heads, cells, d] of self-attention layers in the last pass."""

    def add(self, layer: str, level: int, seen: torch.Tensor) -> None:
        """Add the attention of one pass."""
        _, before = self.by_layer.get(layer, (level, None))
        self.by_layer[layer] = (level, seen if before is None else before + seen)

    def maps(self) -> torch.Tensor:
        """Return the heat maps [b, columns, h, w] at the latents' size: the mean over heads, weighted if chosen."""
        total, count = torch.zeros(()), 0.0
        for name, by_head in self.by_head():
            weights = self._chosen.get(name, ()) if self._chosen else (1.0,) * by_head.shape[1]
            if any(weights):
                scale = torch.tensor(weights, device=by_head.device)[:, None, None, None]
                total, count = (by_head * scale).sum(dim=1) + total.to(by_head.device), count + sum(weights)
        return total / max(1e-12, count)

    def by_head(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield each layer's name and the maps of its heads: [b, heads, columns, h, w] at the latents' size."""
        for name, (level, seen) in self.by_layer.items():
            heads = seen.shape[1]
            cells = seen.permute(0, 1, 3, 2).flatten(0, 1)  # [b * heads, columns, cells]
            cells = cells.reshape(*cells.shape[:2], *self._sizes[level])
            large = functional.interpolate(cells, size=self._sizes[0], mode="bicubic", align_corners=False)
            yield name, large.clamp_min(0).reshape(-1, heads, *large.shape[1:])


@contextmanager
def summing(
    unet: Any,
    *,
    columns: torch.Tensor,
    size: tuple[int, int],
    guided: bool,
    own_level: int | None = None,
    passes: int = 0,
    heads: HeadWeights = EQUAL_HEADS,
) -> Iterator[Summed]:
    """Sum the attention of all UNet passes inside the `with`; afterwards every processor is restored.

    Args:
        unet: any diffusers UNet.
        columns: [b, tokens, columns]; a column for each token that is read.
        size: the latents' (h, w).
        guided: whether the UNet gets 2b rows, those of the negative texts first, or only the b rows.
        own_level: the level at which self-attention's queries and keys of the last pass are kept, if any.
        passes: the number of passes; used only with `own_level` and for the last share of the passes.
        heads: how heads are joined, and which share of the passes is read.
    """
    sizes = sizes_of(*size)
    summed = Summed(sizes, heads)
    counted = math.ceil(heads.last * passes) if heads.last < 1 else None

    def reading(name: str, processor: Any) -> Any:
        return _Summing(
            processor,
            name=name,
            summed=summed,
            columns=columns,
            level_of=levels_by_cells(sizes),
            guided=guided,
            own_level=own_level,
            passes=passes,
            counted=counted,
        )

    with wrapped(unet, reading):
        yield summed


class _Summing(ObservingProcessor):
    """Adds the attention of its layer to `summed`."""

    def __init__(
        self,
        original: Any,
        *,
        name: str,
        summed: Summed,
        columns: torch.Tensor,
        level_of: dict[int, int],
        guided: bool,
        own_level: int | None,
        passes: int,
        counted: int | None,
    ) -> None:
        super().__init__(original)
        self._counted = counted
        self._name = name
        self._summed = summed
        self._columns = columns
        self._level_of = level_of
        self._guided = guided
        self._own_level = own_level
        self._left = passes

    def see(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None,
        temb: torch.Tensor | None,
    ) -> None:
        """Add the attention of this pass at this layer."""
        self._left -= 1
        level = self._level_of.get(cells_of(hidden_states), LEFT_OUT)
        if encoder_hidden_states is None:
            if level == self._own_level and self._left == 0:
                rows = self._conditional(hidden_states)
                self._summed.own[self._name] = queries_and_keys(attn, rows, None, self._maybe(temb))
        elif level != LEFT_OUT and not self._name.startswith(MIDDLE):
            if self._counted is not None and self._left >= self._counted:
                return  # not in the last share of the passes
            rows, texts = self._conditional(hidden_states), self._conditional(encoder_hidden_states)
            query, key = queries_and_keys(attn, rows, texts, self._maybe(temb))
            self._summed.add(self._name, level, attended_by_head(query, key, self._columns))

    def _conditional(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the rows of the prompts, which follow those of the negative texts."""
        expected = len(self._columns) * (2 if self._guided else 1)
        if len(rows) != expected:
            raise ValueError(f"the UNet was given {len(rows)} rows where {expected} were announced")
        return rows[-len(self._columns) :]

    def _maybe(self, temb: torch.Tensor | None) -> torch.Tensor | None:
        return None if temb is None else self._conditional(temb)
