"""`stages`: how images are drawn, and which from which."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from diffugen_api.v1alpha1.base import Model, cel, validations
from diffugen_api.v1alpha1.models import MODEL, Drawing, Embedding
from diffugen_api.v1alpha1.prompts import ClassName, VariableName

StageName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=30, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
]
"""A stage's name: a DNS label, short enough to stand in the names of Jobs and pods."""

Scheduler = Literal[
    "ddim", "ddpm", "deis", "dpmsolver++", "dpmsolver++_karras", "dpmsolver++_sde", "euler", "euler_a", "heun", "lcm",
    "lms", "pndm", "unipc",
]  # fmt: skip

Replacement = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^\S(.*\S)?$")]

_SCHEDULER = "The sampler, over the model's own noise schedule and step spacing; the model's own where absent."
_GUIDANCE = "Classifier-free guidance; 1 switches it off."
_ONE_KIND = "a stage is exactly one of txt2img, img2img and inpaint: give it one"


class Txt2Img(Drawing):
    """Draw from text alone."""

    model: str = Field(min_length=1, max_length=512, description=f"{MODEL}.")
    steps: int = Field(default=25, ge=1, le=1000, description="Sampling steps.")
    scheduler: Scheduler | None = Field(default=None, description=_SCHEDULER)
    guidance_scale: float = Field(default=7.5, ge=1, le=50, description=_GUIDANCE)


class Img2Img(Drawing):
    """Draw every image of another stage again, with some of its variables changed."""

    source: StageName = Field(alias="from", description="The stage whose images are drawn from.")
    strength: float = Field(
        default=0.6,
        gt=0,
        le=1,
        description="How far an image may leave its source: the part of the steps that is drawn, at least one.",
    )
    variables: dict[
        VariableName,
        Annotated[
            list[Annotated[str, StringConstraints(min_length=1, max_length=500)]], Field(min_length=1, max_length=1000)
        ],
    ] = Field(
        min_length=1,
        max_length=32,
        json_schema_extra=validations(
            cel(
                "self.all(name, name.matches('^[A-Za-z_][A-Za-z0-9_]*$'))",
                "a variable's name is letters, digits and _, and does not begin with a digit: rename it",
            )
        ),
        description="What changes: every combination of these values fills the template of the source's image "
        "anew; the other variables keep their values, and the source's own combination is skipped.",
    )
    model: str | None = Field(
        default=None, min_length=1, max_length=512, description=f"{MODEL}; that of the source where absent."
    )
    steps: int = Field(default=25, ge=1, le=1000, description="Sampling steps at strength 1.")
    scheduler: Scheduler | None = Field(default=None, description=_SCHEDULER)
    guidance_scale: float = Field(default=7.5, ge=1, le=50, description=_GUIDANCE)


class Inpaint(Drawing):
    """Replace the labeled objects of a class in another stage's images; what is around them stays to the bit."""

    source: StageName = Field(alias="from", description="The stage in whose images objects are replaced.")
    replacements: dict[ClassName, Annotated[list[Replacement], Field(min_length=1, max_length=64)]] = Field(
        min_length=1,
        max_length=32,
        description="For a class, what to draw in place of its objects: one image for each text and each source "
        "whose prompt names the class. A text that names no other class is labeled as the class that it replaces.",
    )
    template: str | None = Field(
        default=None,
        min_length=1,
        max_length=2000,
        description="Prompt of the new image: {object} is the replacement, other fields are the source's "
        "variables; it names every other class that the source's prompt names. Where absent, the source's prompt with "
        "the class's words replaced.",
    )
    instances: Literal["all", "largest"] = Field(
        default="all", description="Which labeled objects of the class are replaced."
    )
    dilation: float = Field(
        default=0.05,
        ge=0,
        le=0.5,
        description="How far the mask reaches beyond the label, as a fraction of the image's shorter side.",
    )
    strength: float = Field(
        default=1,
        gt=0,
        le=1,
        description="How far the new object may leave the old one: the part of the steps that is drawn, at least one.",
    )
    model: str | None = Field(
        default=None,
        min_length=1,
        max_length=512,
        description=f"{MODEL}, made for inpainting or not; that of the source where absent.",
    )
    steps: int = Field(default=25, ge=1, le=1000, description="Sampling steps at strength 1.")
    scheduler: Scheduler | None = Field(default=None, description=_SCHEDULER)
    guidance_scale: float = Field(default=7.5, ge=1, le=50, description=_GUIDANCE)


Task = Txt2Img | Img2Img | Inpaint
"""What a stage does."""


class Stage(Model):
    """One stage of the dataset: a name, and how its images are drawn."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            cel("[has(self.txt2img), has(self.img2img), has(self.inpaint)].filter(x, x).size() == 1", _ONE_KIND)
        )
    )

    name: StageName = Field(description="The stage's name; part of its Jobs' names and of its folder in the store.")
    txt2img: Txt2Img | None = Field(default=None, alias="txt2img", description="Draw from text alone.")
    img2img: Img2Img | None = Field(
        default=None, alias="img2img", description="Draw another stage's images again, with variables changed."
    )
    inpaint: Inpaint | None = Field(default=None, description="Replace labeled objects in another stage's images.")

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Stage:
        if len([task for task in (self.txt2img, self.img2img, self.inpaint) if task is not None]) != 1:
            raise ValueError(_ONE_KIND)
        return self

    @property
    def task(self) -> Task:
        """What the stage does: the one of its kinds that is set."""
        task = self.txt2img or self.img2img or self.inpaint
        if task is None:
            raise AssertionError("a stage is of one kind")
        return task

    @property
    def kind(self) -> Literal["txt2img", "img2img", "inpaint"]:
        """Which of the kinds this stage is."""
        if self.txt2img is not None:
            return "txt2img"
        return "img2img" if self.img2img is not None else "inpaint"

    @property
    def source(self) -> str | None:
        """The name of the stage whose images this one draws from; None for a stage that needs none."""
        return None if isinstance(self.task, Txt2Img) else self.task.source


def graph_faults(stages: Sequence[Stage]) -> Iterator[str]:
    """Yield what is wrong with the stages' sources, each fault beginning with its field below `stages`."""
    sources = {stage.name: stage.source for stage in stages}
    for number, stage in enumerate(stages):
        if stage.source is None:
            continue
        where = f"[{number}].{stage.kind}.from"
        others = ", ".join(name for name in sources if name != stage.name) or "none"
        if stage.source == stage.name:
            yield f"{where}: stage {stage.name!r} cannot draw from itself: name another stage (there are: {others})"
        elif stage.source not in sources:
            yield f"{where}: there is no stage {stage.source!r} to draw from: name another stage (there are: {others})"
        elif circle := _circle(stage.name, sources):
            yield (
                f"{where}: the stages {' from '.join(repr(name) for name in circle)} draw from one another in a "
                "circle: let one of them draw from a stage outside of it"
            )


def _circle(name: str, sources: dict[str, str | None]) -> list[str]:
    """Return the circle of sources that leads from a stage back to it; empty where there is none."""
    path, here = [name], sources[name]
    while here is not None and here in sources and here not in path:
        path.append(here)
        here = sources[here]
    return [*path, name] if here == name else []


def in_graph_order(stages: Sequence[Stage]) -> list[Stage]:
    """Return the stages, each after the one that it draws from, and otherwise as they stand."""
    by_name = {stage.name: stage for stage in stages}
    ordered: dict[str, Stage] = {}

    def place(stage: Stage) -> None:
        if stage.source is not None and stage.source not in ordered:
            place(by_name[stage.source])
        ordered.setdefault(stage.name, stage)

    for stage in stages:
        place(stage)
    return list(ordered.values())


def model_stage(stages: Sequence[Stage], stage: Stage) -> Stage:
    """Return the stage whose model a stage draws with: itself, or the nearest source that names one."""
    by_name = {each.name: each for each in stages}
    while stage.task.model is None and stage.source is not None:
        stage = by_name[stage.source]
    return stage


def model_of(stages: Sequence[Stage], stage: Stage) -> tuple[str, str]:
    """Return the model that a stage draws with, and the field of the spec that names it."""
    own = model_stage(stages, stage)
    number = next(number for number, each in enumerate(stages) if each.name == own.name)
    return str(own.task.model), f"spec.stages[{number}].{own.kind}.model"


def embeddings_of(stages: Sequence[Stage], stage: Stage) -> dict[str, Embedding]:
    """Return the words that a stage's model was taught, each by the field of the spec that names it.

    A stage that draws with its source's model has that one's words too; a word of its own takes their place.
    """
    by_name = {each.name: (number, each) for number, each in enumerate(stages)}
    found: dict[str, Embedding] = {}
    here = stage
    while True:
        number = by_name[here.name][0]
        known = {each.token.lower() for each in found.values()}
        for place, each in enumerate(here.task.embeddings):
            if each.token.lower() not in known:
                found[f"spec.stages[{number}].{here.kind}.embeddings[{place}]"] = each
        if here.task.model is not None or here.source is None:
            return found
        here = by_name[here.source][1]
