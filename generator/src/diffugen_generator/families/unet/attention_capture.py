"""Reads attention from a UNet while it runs, without changing its results.

Each attention layer's processor is wrapped. The wrapper calls the original for the output. Only in layers of a wanted
resolution, it computes queries and keys again. Cross-attention is never kept for each token: softmax(q kᵀ) times a
matrix of the tokens that matter is attention with that matrix as values (Pnvr et al. 2023 and others call it fused). So
a layer returns [b, cells, columns] for a text of any length.

Shapes: see the legend in `labeling.attention`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch.nn import functional

from diffugen_generator.families.fused_attention import attended, attended_by_head
from diffugen_generator.families.model import EQUAL_HEADS, HeadWeights


@dataclass
class Captured:
    """The attention of one UNet pass."""

    cross: dict[int, list[torch.Tensor]] = field(default_factory=dict)
    """For each level, one tensor [b, cells, columns] per layer: the mean over heads of attention to each column."""
    queries: dict[int, list[tuple[Any, torch.Tensor]]] = field(default_factory=dict)
    """For each level, each layer of cross-attention with its queries [b, heads, cells, d], if no columns are read."""
    own: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = field(default_factory=dict)
    """For each level, queries and keys [b, heads, cells, d] of each self-attention layer."""


def sizes_of(height: int, width: int, levels: int = 6) -> list[tuple[int, int]]:
    """Return the feature maps' (h, w) by level for latents of `height` x `width`: each level halves, rounding up."""
    sizes = [(height, width)]
    for _ in range(levels - 1):
        h, w = sizes[-1]
        sizes.append(((h + 1) // 2, (w + 1) // 2))
    return sizes


@contextmanager
def capturing(
    unet: Any,
    *,
    columns: torch.Tensor | None,
    sizes: Sequence[tuple[int, int]],
    cross_levels: Sequence[int],
    own_levels: Sequence[int] = (),
    heads: HeadWeights = EQUAL_HEADS,
) -> Iterator[Captured]:
    """Capture the attention of the UNet passes inside the `with`; afterwards every processor is restored.

    Args:
        unet: any diffusers UNet, or another module with `Attention` layers.
        columns: [b, tokens, columns]; the weight of each token of the text in each column. None keeps the queries.
        sizes: feature map sizes by level, as `sizes_of` returns them.
        cross_levels: levels at which cross-attention is captured.
        own_levels: levels at which queries and keys of self-attention are kept.
        heads: how the heads of a layer are joined.
    """
    captured = Captured()
    level_of = levels_by_cells(sizes)

    def reading(_: str, processor: Any) -> Any:
        return _Reading(
            processor,
            captured=captured,
            columns=columns,
            level_of=level_of,
            cross_levels=frozenset(cross_levels),
            own_levels=frozenset(own_levels),
            heads=heads,
        )

    with wrapped(unet, reading):
        yield captured


@contextmanager
def wrapped(unet: Any, wrapper: Callable[[str, Any], Any]) -> Iterator[None]:
    """Replace every attention layer's processor by `wrapper(name, processor)`, and restore all of them afterwards.

    Processors of all kinds (sliced, fused, from other libraries) are wrapped, so they still run. A compiled UNet runs
    uncompiled inside the `with`, because its graph was made without the wrappers; afterwards it is used again.
    """
    originals = [
        (name.removeprefix("_orig_mod."), layer, layer.processor)
        for name, layer in unet.named_modules()
        if isinstance(layer, Attention)
    ]
    with ExitStack() as undo:
        if any(_compiled(module) for module in unet.modules()):
            undo.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            for name, layer, processor in originals:
                layer.set_processor(wrapper(name, processor))
            yield
        finally:
            for _, layer, processor in originals:
                layer.set_processor(processor)


def _compiled(module: Any) -> bool:
    # `torch.compile(module)` wraps the module, `module.compile()` sets an attribute
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None


def levels_by_cells(sizes: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Return the level of a feature map by its number of cells; if two levels have the same number, the finer one."""
    return {h * w: level for level, (h, w) in reversed(list(enumerate(sizes)))}


def cells_of(hidden_states: torch.Tensor) -> int:
    """Return the number of cells of a layer's input [b, cells, channels] or [b, channels, h, w]."""
    return int(hidden_states.shape[1] if hidden_states.ndim == 3 else hidden_states.shape[2:].numel())


class ObservingProcessor(ABC):
    """A processor that observes the inputs of a layer; the `original` processor computes the attention."""

    def __init__(self, original: Any) -> None:
        """Delegate calls to `original`."""
        self._original = original

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Return the original's output, [b, cells, channels] or [b, channels, h, w]."""
        self.see(attn, hidden_states, encoder_hidden_states, temb)
        output: torch.Tensor = self._original(
            attn, hidden_states, encoder_hidden_states, attention_mask, *times_of(temb, args), **kwargs
        )
        return output

    @abstractmethod
    def see(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None,
        temb: torch.Tensor | None,
    ) -> None:
        """Read the layer's inputs: cells, texts (None for self-attention), and the embedding of the time."""


class _Reading(ObservingProcessor):
    """Stores the attention of its layer in `captured`."""

    def __init__(
        self,
        original: Any,
        *,
        captured: Captured,
        columns: torch.Tensor | None,
        level_of: dict[int, int],
        cross_levels: frozenset[int],
        own_levels: frozenset[int],
        heads: HeadWeights,
    ) -> None:
        super().__init__(original)
        self._heads = heads
        self._captured = captured
        self._columns = columns
        self._level_of = level_of
        self._cross_levels = cross_levels
        self._own_levels = own_levels

    def see(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None,
        temb: torch.Tensor | None,
    ) -> None:
        """Keep the attention that is requested at this layer's level."""
        level = self._level_of.get(cells_of(hidden_states), -1)
        if encoder_hidden_states is not None and level in self._cross_levels:
            query, key = queries_and_keys(attn, hidden_states, encoder_hidden_states, temb)
            if self._columns is None:
                self._captured.queries.setdefault(level, []).append((attn, query))
                return
            seen = self._captured.cross.setdefault(level, [])
            if self._heads.by_agreement:
                weights = agreement(attn, query, key, encoder_hidden_states)  # [b, heads, cells]
                by_head = attended_by_head(query, key, self._columns)
                seen.append((by_head * weights[..., None]).sum(dim=1))
            else:
                seen.append(attended(query, key, self._columns))
        elif encoder_hidden_states is None and level in self._own_levels:
            kept = self._captured.own.setdefault(level, [])
            kept.append(queries_and_keys(attn, hidden_states, None, temb))


def times_of(temb: torch.Tensor | None, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments that follow the mask: the embedding of the time only if there is one, because sliced
    attention does not accept it.
    """
    return args if temb is None and not args else (temb, *args)


def queries_and_keys(
    attn: Attention,
    hidden_states: torch.Tensor,
    encoder_hidden_states: torch.Tensor | None,
    temb: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a layer's queries [b, heads, cells, d] and keys [b, heads, cells or tokens, d]."""
    if attn.spatial_norm is not None:
        hidden_states = attn.spatial_norm(hidden_states, temb)
    if hidden_states.ndim == 4:
        hidden_states = hidden_states.flatten(2).transpose(1, 2)  # [b, cells, channels]
    if attn.group_norm is not None:
        hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
    if encoder_hidden_states is None:
        encoder_hidden_states = hidden_states
    elif attn.norm_cross:
        encoder_hidden_states = attn.norm_encoder_hidden_states(encoder_hidden_states)
    query = attn.to_q(hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
    if attn.norm_q is not None:
        query = attn.norm_q(query)
    return query, _keys(attn, encoder_hidden_states)


def keys_of(attn: Any, texts: torch.Tensor) -> torch.Tensor:
    """Return the keys [b, heads, tokens, d] of a cross-attention layer for texts [b, tokens, width]."""
    return _keys(attn, attn.norm_encoder_hidden_states(texts) if attn.norm_cross else texts)


def _keys(attn: Any, states: torch.Tensor) -> torch.Tensor:
    key: torch.Tensor = attn.to_k(states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
    return key if attn.norm_k is None else attn.norm_k(key)


def agreement(attn: Any, query: torch.Tensor, key: torch.Tensor, encoder_hidden_states: torch.Tensor) -> torch.Tensor:
    """Return the weight of each head of a cross-attention layer at each cell: [b, heads, cells], 1 in sum.

    A head's output is A V W, with W its part of the layer's output projection. Its weight is the product of this output
    with the sum over all heads, and 0 if the product is negative (GoCA, Meng et al. 2026, arXiv 2603.06178).
    """
    if attn.norm_cross:
        encoder_hidden_states = attn.norm_encoder_hidden_states(encoder_hidden_states)
    value = attn.to_v(encoder_hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # [b, heads, tokens, d]
    seen = functional.scaled_dot_product_attention(query, key, value).float()  # [b, heads, cells, d]
    projection = attn.to_out[0].weight.float().unflatten(1, (attn.heads, -1))  # [channels, heads, d]
    outputs = torch.einsum("bncd,ond->bnco", seen, projection)
    product = (outputs * outputs.sum(dim=1, keepdim=True)).sum(dim=-1).clamp_min(0)
    return product / product.sum(dim=1, keepdim=True).clamp_min(1e-12)
