"""`txt2img`: draw from text alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from diffugen_api.v1alpha1.base import ModelUri
from diffugen_api.v1alpha1.kinds.base import Drawing
from diffugen_api.v1alpha1.models import MODEL


class Txt2Img(Drawing):
    """Draw from text alone."""

    kind: ClassVar[str] = "txt2img"
    summary: ClassVar[str] = "Draw from text alone."
    added_later: ClassVar[Mapping[str, Any]] = {
        **Drawing.added_later,
        "scheduler": None,
        "modelSHA256": None,
        "embeddings": [],
    }

    model: ModelUri = Field(description=f"{MODEL}.")
