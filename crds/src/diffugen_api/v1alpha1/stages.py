"""`stages`: how pictures are drawn, and which from which."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from diffugen_api.v1alpha1.base import Model
from diffugen_api.v1alpha1.models import MODEL, Drawing

StageName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=30, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
]
"""A stage's name: a DNS label, short enough to stand in the names of Jobs and pods."""

Scheduler = Literal[
    "ddim", "ddpm", "deis", "dpmsolver++", "dpmsolver++_karras", "dpmsolver++_sde", "euler", "euler_a", "heun", "lcm",
    "lms", "pndm", "unipc",
]  # fmt: skip


class Txt2Img(Drawing):
    """Draw from text alone."""

    model: str = Field(min_length=1, max_length=512, description=f"{MODEL}.")
    steps: int = Field(default=25, ge=1, le=1000, description="Sampling steps.")
    scheduler: Scheduler | None = Field(
        default=None,
        description="The sampler, over the model's own noise schedule and step spacing; the model's own where absent.",
    )
    guidance_scale: float = Field(default=7.5, ge=1, le=50, description="Classifier-free guidance; 1 switches it off.")


class Stage(Model):
    """One stage of the dataset: a name, and how its pictures are drawn."""

    name: StageName = Field(description="The stage's name; part of its Jobs' names and of its folder in the store.")
    txt2img: Txt2Img = Field(alias="txt2img", description="Draw from text alone.")

    @property
    def kind(self) -> str:
        """Which of the kinds this stage is."""
        return "txt2img"
