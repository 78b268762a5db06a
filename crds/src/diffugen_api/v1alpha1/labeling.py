"""`labeling`: who says what is where in a picture."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from diffugen_api.v1alpha1.base import Model, Word


class AttentionLabeling(Model):
    """Labels from the diffusion model's own cross-attention, without any detector.

    `posthoc` noises the finished picture a little and reads the attention of one more UNet pass over it. `inline`
    sums attention over all sampling steps, as DAAM does.
    """

    capture: Literal["posthoc", "inline"] = Field(
        default="posthoc",
        description="When attention is read: posthoc is one extra pass over the finished picture; inline sums all "
        "sampling steps, and draws a picture that is there already once more to see it.",
    )
    refine: bool = Field(
        default=True,
        description="Spread the maps along the model's self-attention, so that they fill their objects.",
    )
    threshold: float = Field(
        default=0.4,
        ge=0.05,
        le=0.95,
        description="Part of a map's range above which a pixel is the object's.",
    )
    snap: bool = Field(default=True, description="Snap uncertain borders to the picture's colours.")
    background: list[Word] = Field(
        default_factory=list,
        max_length=32,
        description="Words for what is no object; they compete for pixels that are not certain.",
    )


class Labeling(Model):
    """How the pictures are labelled."""

    attention: AttentionLabeling = Field(default_factory=AttentionLabeling)
