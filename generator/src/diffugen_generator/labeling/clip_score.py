"""What a CLIP model says of a picture and its prompt, as it is kept in the store. Without torch."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Score:
    """How well a picture fits its prompt."""

    cosine: float
    """Of the two embeddings, in -1..1."""

    def dumps(self) -> bytes:
        """Return an npz file: the same bytes for the same score."""
        stream = io.BytesIO()
        np.savez(stream, cosine=np.float64(round(self.cosine, 6)))
        return stream.getvalue()

    @classmethod
    def loads(cls, data: bytes) -> Score:
        """Read an npz file; raise `ValueError` where it is none of ours."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                return cls(float(arrays["cosine"]))
        except (KeyError, OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile) as error:
            raise ValueError(f"not a CLIP score: {error}") from error
