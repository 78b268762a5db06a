"""The studio that is open: shards one after the other share it, as long as they ask for the same.

Loading a model takes longer than drawing many a shard, so a process that works off several keeps it. There is one at
a time: the next is loaded when the last has gone, since two may not fit into a GPU's memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from diffugen_api.plan import SpecError
from diffugen_generator.models import resolve
from diffugen_generator.shards import ShardHeader

if TYPE_CHECKING:
    from diffugen_generator.stages.studio import Studio


class Studios:
    """Opens studios, and keeps the last one open."""

    def __init__(self, *, device: str | None = None, batch_size: int | None = None) -> None:
        """Open them on `device` (the GPU where there is one), for batches of `batch_size` (by the device)."""
        self._device = device
        self._batch_size = batch_size
        self._open: tuple[ShardHeader, Studio] | None = None

    def open(self, header: ShardHeader, on_loading: Callable[[], None] = lambda: None) -> Studio:
        """Return a studio for the samples of `header`'s shard; `on_loading` is told before a model is loaded.

        Raises `SpecError` where the model is not the one that was planned with, or cannot be drawn with.
        """
        alike = replace(header, index=0)
        if self._open is not None and self._open[0] == alike:
            return self._open[1]
        self._open = None
        on_loading()
        model = resolve(header.model)
        if model.digest != header.model_digest:
            raise SpecError(
                "ModelChanged",
                f"the model {header.model} of stage {header.stage} has the digest {model.digest[:12]} here, and "
                f"had {header.model_digest[:12]} in the plan; give plan and stages the same model, or plan again.",
            )
        from diffugen_generator.stages.studio import Studio  # noqa: PLC0415 - torch, only where a model has to run

        studio = Studio(model, header, device=self._device, batch=self._batch_size)
        self._open = (alike, studio)
        return studio
