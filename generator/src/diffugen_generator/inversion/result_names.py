"""The names of a training's files. No torch."""

from __future__ import annotations

from typing import Final

FIRST: Final = "learned_embeds.safetensors"
SECOND: Final = "learned_embeds_2.safetensors"
BOTH: Final = "learned_embeds_xl.safetensors"
CARD: Final = "card.json"
"""Written last: if it exists, the training is complete."""
FILES: Final = "files"
"""The field of the card with the SHA-256 of each other file, in hex."""
SAMPLES: Final = "samples.png"
LOSS: Final = "loss.png"
CHECKPOINT: Final = "checkpoint.safetensors"
PREVIEW: Final = "preview.png"
CONTENT_TYPES: Final = {".json": "application/json", ".png": "image/png", ".safetensors": "application/octet-stream"}


def whole_file(encoders: int) -> str:
    """Return the name of the file that has the vectors of all text encoders."""
    return FIRST if encoders == 1 else BOTH
