"""The attention of a UNet: which levels are read, and how their layers are joined to a word's map.

A level is a resolution of the UNet's feature maps: 0 is that of the latents, and each further level halves it.

Shapes: see the legend in `labeling.attention`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional

from diffugen_api.plan import SpecError
from diffugen_generator.families.fused_attention import attended
from diffugen_generator.families.model import EQUAL_HEADS, HeadWeights, SelfAttention
from diffugen_generator.families.unet.attention_capture import Captured, capturing, keys_of, sizes_of
from diffugen_generator.families.unet.attention_sums import Summed, summing

LARGE = 32
"""From this side in latent cells, a UNet counts as large: its first layers react to texture and are left out."""
LARGE_WEIGHTS = {2: 0.7, 1: 0.3}
"""Weights by level for large UNets: 16 and 32 cells of 64, as in iSeg (Sun et al. 2024)."""
SMALL_WEIGHTS = {0: 0.7, 1: 0.3}
"""Weights by level for small UNets, whose first level is 16 cells or so."""


def level_weights(unet: Any) -> dict[int, float]:
    """Return the weights of the levels at which a UNet's attention is read."""
    side = unet.config.sample_size
    side = side if isinstance(side, int) else min(side)
    return LARGE_WEIGHTS if side >= LARGE else SMALL_WEIGHTS


class UNetAttention:
    """Reads the attention of one UNet."""

    def __init__(self, unet: Any, uri: str) -> None:
        """Read `unet` of the model `uri`."""
        self._unet = unet
        self._uri = uri
        self._weights = level_weights(unet)

    @contextmanager
    def one_pass(
        self,
        columns: torch.Tensor,
        size: tuple[int, int],
        *,
        self_attention: bool,
        heads: HeadWeights = EQUAL_HEADS,
    ) -> Iterator[MergedLevels]:
        """Read the levels of one pass; see `AttentionReader`."""
        with self._captured(columns, size, self_attention=self_attention, heads=heads) as merged:
            yield merged

    @contextmanager
    def queried_pass(self, size: tuple[int, int], *, self_attention: bool) -> Iterator[MergedLevels]:
        """Keep the queries of one pass; see `AttentionReader`."""
        with self._captured(None, size, self_attention=self_attention) as merged:
            yield merged

    @contextmanager
    def _captured(
        self,
        columns: torch.Tensor | None,
        size: tuple[int, int],
        *,
        self_attention: bool,
        heads: HeadWeights = EQUAL_HEADS,
    ) -> Iterator[MergedLevels]:
        sizes = sizes_of(*size)
        levels = list(self._weights)
        with capturing(
            self._unet,
            columns=columns,
            sizes=sizes,
            cross_levels=levels,
            own_levels=levels if self_attention else (),
            heads=heads,
        ) as captured:
            yield MergedLevels(captured, sizes, self._weights, self._uri)

    @contextmanager
    def all_passes(
        self,
        columns: torch.Tensor,
        size: tuple[int, int],
        *,
        guided: bool,
        passes: int,
        self_attention: bool,
        heads: HeadWeights = EQUAL_HEADS,
    ) -> Iterator[SummedPasses]:
        """Sum over all passes, as DAAM does; see `AttentionReader`."""
        level = min(self._weights)
        with summing(
            self._unet,
            columns=columns,
            size=size,
            guided=guided,
            own_level=level if self_attention else None,
            passes=passes,
            heads=heads,
        ) as summed:
            yield SummedPasses(summed, sizes_of(*size)[level], self._uri)


class MergedLevels:
    """The attention of one pass, its levels merged to maps of the finest one."""

    def __init__(
        self, captured: Captured, sizes: Sequence[tuple[int, int]], weights: Mapping[int, float], uri: str
    ) -> None:
        """Merge the attention `captured` at the levels of `weights`; `sizes` are the (h, w) by level."""
        self._captured = captured
        self._sizes = sizes
        self._weights = weights
        self._uri = uri

    def maps(self) -> torch.Tensor:
        """Return the maps [b, columns, h, w] at the finest captured level."""
        return self._merged(self._captured.cross)

    def attributed(self, texts: torch.Tensor, columns: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Return the maps [b, columns, h, w] of other texts; see `AttentionReading`."""
        queries = self._captured.queries.items()
        return self._merged(
            {
                level: [attended(query, keys_of(attn, texts), columns, known) for attn, query in layers]
                for level, layers in queries
            }
        )

    def _merged(self, cross: Mapping[int, Sequence[torch.Tensor]]) -> torch.Tensor:
        """Merge the attention [b, cells, columns] of each level's layers to maps of the finest level."""
        if not cross:
            raise SpecError(
                "UnsupportedModel",
                f"the model {self._uri} has no cross-attention at levels {list(self._weights)} of its UNet to label "
                "by.",
            )
        finest = min(cross)
        merged = torch.zeros(())
        for level, layers in sorted(cross.items()):
            mean = torch.stack(list(layers)).mean(dim=0).transpose(1, 2)  # [b, columns, cells]
            mean = mean.reshape(*mean.shape[:2], *self._sizes[level])  # [b, columns, h, w]
            share = mean / mean.mean(dim=(2, 3), keepdim=True).clamp_min(1e-12)
            grown = functional.interpolate(share, size=self._sizes[finest], mode="bilinear", align_corners=False)
            merged = grown * self._weights[level] + merged.to(grown.device)
        return merged

    def by_head(self) -> dict[str, torch.Tensor]:
        """Raise `NotImplementedError`: heads are joined while the pass runs."""
        raise NotImplementedError("the maps of single heads are read with all_passes")

    def self_attention(self) -> tuple[tuple[int, int], SelfAttention]:
        """Return the (h, w) of the finest level, and its self-attention layers."""
        finest = min(self._captured.cross or self._captured.queries)
        return self._sizes[finest], self._captured.own.get(finest, [])


class SummedPasses:
    """The attention of all passes, summed to maps of the latents' size."""

    def __init__(self, summed: Summed, own_size: tuple[int, int], uri: str) -> None:
        """Use the sums `summed`; self-attention is from the level with feature maps of `own_size` (h, w)."""
        self._summed = summed
        self._own_size = own_size
        self._uri = uri

    def maps(self) -> torch.Tensor:
        """Return the heat maps [b, columns, h, w] at the latents' size."""
        if not self._summed.by_layer:
            raise SpecError("UnsupportedModel", f"the UNet of {self._uri} has no cross-attention to label by.")
        return self._summed.maps()

    def attributed(self, texts: torch.Tensor, columns: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Raise `NotImplementedError`: no queries are kept."""
        raise NotImplementedError("other texts are read with queried_pass")

    def by_head(self) -> dict[str, torch.Tensor]:
        """Return the map of each head, by the layer's name: [b, heads, columns, h, w] at the latents' size."""
        return dict(self._summed.by_head())

    def self_attention(self) -> tuple[tuple[int, int], SelfAttention]:
        """Return the (h, w) of the self-attention layers of the last pass, and the layers."""
        return self._own_size, list(self._summed.own.values())
