"""The result of a calibration, as the store keeps it. No torch."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from diffugen_api import layout
from diffugen_api.addresses import canonical
from diffugen_generator.failures import Damaged, Missing
from diffugen_generator.samples.documents import Schema, discard, read_document, sealed
from diffugen_generator.store.protocol import JSON, Store

_Weight = Annotated[float, Field(ge=0, le=1)]


class _Document(Schema):
    address: str
    heads: dict[str, list[_Weight]]
    last: float = Field(gt=0, le=1)
    border: float = Field(gt=0, lt=1)
    before: _Weight
    after: _Weight
    token: str = Field(default="", pattern=r"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$")


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was chosen."""

    heads: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """The weight of each head, by the layer's name, 1 in sum; empty if all count the same."""
    last: float = 1.0
    """The last share of the sampling steps that is read; 1 with `capture: posthoc`."""
    border: float = 0.4
    """The fraction of a map's range above which a pixel belongs to the object."""
    before: float = 0.0
    """Mean intersection over union on the annotated images with the default settings, in 0..1."""
    after: float = 0.0
    """The same with the chosen settings."""
    token: tuple[float, ...] = ()
    """A state of the text encoder that stands for what is no object, in fp32; empty if none is used."""

    def row(self, address: str) -> dict[str, Any]:
        """Return the calibration as JSON data with its content address."""
        return {
            "address": address,
            "heads": {name: list(weights) for name, weights in self.heads.items()},
            "last": self.last,
            "border": self.border,
            "before": self.before,
            "after": self.after,
            **({"token": _packed(self.token)} if self.token else {}),
        }

    def write(self, store: Store, address: str) -> None:
        """Store the calibration under its content address."""
        store.write(layout.calibration(address), canonical(sealed(self.row(address))) + b"\n", JSON)

    @classmethod
    def read(cls, store: Store, address: str) -> Calibration | None:
        """Return the stored calibration; None if there is none, or if it is damaged: then it is deleted."""
        key = layout.calibration(address)
        try:
            row = read_document(store, key, _Document)
        except Missing:
            return None
        except Damaged as damaged:
            discard(store, damaged)
            return None
        if row["address"] != address:
            discard(store, Damaged(key, f"it belongs to the calibration {row['address']}"))
            return None
        heads = {name: tuple(float(weight) for weight in weights) for name, weights in row["heads"].items()}
        before, after = float(row["before"]), float(row["after"])
        token = _unpacked(row.get("token", ""))
        return cls(heads, float(row["last"]), float(row["border"]), before, after, token)


def _packed(token: tuple[float, ...]) -> str:
    """Return numbers as little-endian fp32 in base64."""
    return base64.b64encode(np.asarray(token, "<f4").tobytes()).decode()


def _unpacked(text: str) -> tuple[float, ...]:
    data = base64.b64decode(text)
    return tuple(np.frombuffer(data[: len(data) // 4 * 4], "<f4").tolist())
