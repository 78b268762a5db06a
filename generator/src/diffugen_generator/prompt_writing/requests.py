"""What a chat model is asked for: a caption that names some classes, in a scene that varies."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

PLACES: Final = (
    "in a city street", "in a village", "in a park", "on a beach", "in a forest", "in a field", "in a garden",
    "in a parking lot", "at a harbor", "in a living room", "in a kitchen", "in an office", "in a workshop",
    "in a warehouse", "in a shop", "on a country road", "beside a river", "in the mountains", "in a desert",
    "at a railway station", "on a playground", "in a yard", "on a bridge", "near a building site",
)  # fmt: skip
LIGHTS: Final = (
    "at sunrise", "at noon", "in the evening", "at night under street lamps", "under a gray sky", "in bright sunlight",
    "in soft light", "against the light", "in fog", "in rain", "in snow", "after rain",
)  # fmt: skip
VIEWS: Final = (
    "from far away", "as a close-up", "from above", "from a low angle", "from the side", "from the front",
    "partly hidden", "among other things", "on a plain background", "with a shallow depth of field",
)  # fmt: skip


def request_for(classes: Sequence[str], about: str, rng: random.Random) -> str:
    """Return the request for one caption that names `classes`; `about` describes the wanted photos and may be empty."""
    words = " and ".join(f'"{name}"' for name in classes)
    scene = f"{rng.choice(PLACES)}, {rng.choice(LIGHTS)}, {rng.choice(VIEWS)}"
    domain = f" The photos are about: {about}." if about else ""
    return (
        f"Write one caption of a realistic photo. It must contain the exact {'words' if len(classes) > 1 else 'word'} "
        f"{words}.{domain} A possible scene: {scene}; choose another one if that does not fit. Describe what can be "
        "seen, in one plain sentence of at most 30 words. Answer with the caption alone."
    )
