"""How readers find a published dataset: through `current.json` only."""

from __future__ import annotations

import json
from typing import Any

from diffugen_api import layout
from diffugen_generator.store.protocol import Store


def current_of(store: Store) -> dict[str, Any]:
    """Return the pointer; raise `Missing` where nothing is published."""
    pointer: dict[str, Any] = json.loads(store.read(layout.CURRENT))
    return pointer


def dataset_of(store: Store) -> dict[str, Any]:
    """Return the `dataset.json` that the pointer names; raise `Missing`."""
    dataset: dict[str, Any] = json.loads(store.read(current_of(store)["dataset"]))
    return dataset
