"""A drawer for tests that returns images at once; the product's drawer also keeps the latents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from diffugen_generator.diffusion.drawing import Drawer, DrawingSettings, DrawRequest


class ImageDrawer(Drawer):
    """Draws images of requests."""

    def draw(
        self, requests: Sequence[DrawRequest], settings: DrawingSettings, *, batch: int | None = None
    ) -> list[NDArray[np.uint8]]:
        """Return the images [height, width, 3] of `requests`, with the kept pixels of their sources put back."""
        drawn = self.decode(self.sample(requests, settings, batch=batch))
        return [
            image if request.source is None else request.source.put_back(image)
            for request, image in zip(requests, drawn, strict=True)
        ]
