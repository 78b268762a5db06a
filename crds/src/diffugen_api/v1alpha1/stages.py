"""`stages`: how images are drawn, and which from which."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ConfigDict, Field, model_validator

from diffugen_api.v1alpha1.base import Model, cel, validations
from diffugen_api.v1alpha1.kinds.base import Drawing, StageName
from diffugen_api.v1alpha1.kinds.img2img import Img2Img
from diffugen_api.v1alpha1.kinds.inpaint import Inpaint
from diffugen_api.v1alpha1.kinds.textual_inversion import TextualInversion
from diffugen_api.v1alpha1.kinds.txt2img import Txt2Img
from diffugen_api.v1alpha1.models import Embedding, Lora

KINDS: tuple[type[Drawing], ...] = (Txt2Img, Img2Img, Inpaint)
"""The kinds of stages that draw. A new kind is a class in `kinds/`, an entry here, and a field of `Stage`."""

_NAMES = [*(kind.kind for kind in KINDS), TextualInversion.kind]
_ONE_KIND = f"a stage is exactly one of {', '.join(_NAMES[:-1])} and {_NAMES[-1]}: give it one"


class Stage(Model):
    """One stage of the dataset: a name, and how its images are drawn."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            cel(f"[{', '.join(f'has(self.{name})' for name in _NAMES)}].filter(x, x).size() == 1", _ONE_KIND)
        )
    )

    name: StageName = Field(description="The stage's name; part of its Jobs' names and of its folder in the store.")
    txt2img: Txt2Img | None = Field(default=None, alias=Txt2Img.kind, description=Txt2Img.summary)
    img2img: Img2Img | None = Field(default=None, alias=Img2Img.kind, description=Img2Img.summary)
    inpaint: Inpaint | None = Field(default=None, alias=Inpaint.kind, description=Inpaint.summary)

    textual_inversion: TextualInversion | None = Field(
        default=None, alias=TextualInversion.kind, description=TextualInversion.summary
    )

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Stage:
        if len(self._tasks()) != 1:
            raise ValueError(_ONE_KIND)
        return self

    def _tasks(self) -> list[Drawing | TextualInversion]:
        return [value for _, value in self if isinstance(value, Drawing | TextualInversion)]

    @property
    def task(self) -> Drawing:
        """How the stage draws: the one of its kinds that is set. Only for a stage that draws."""
        [task] = self._tasks()
        if not isinstance(task, Drawing):
            raise TypeError(f"stage {self.name!r} draws no images")
        return task

    @property
    def draws(self) -> bool:
        """Whether the stage draws images of the dataset; else it trains what other stages draw with."""
        return self.textual_inversion is None

    @property
    def kind(self) -> str:
        """The name of the stage's kind."""
        return self._tasks()[0].kind

    @property
    def content(self) -> dict[str, Any]:
        """The part of the revision that this stage decides."""
        return self._tasks()[0].content()

    @property
    def source(self) -> str | None:
        """The name of the stage whose images this one draws from; None for a stage that needs none."""
        return self.task.source_stage if self.draws else None

    @property
    def depends_on(self) -> tuple[str, ...]:
        """The names of the stages that must be done before this one can begin."""
        if not self.draws:
            return ()
        trained = (each.source for each in self.task.embeddings if each.source is not None)
        return tuple(dict.fromkeys((*((self.source,) if self.source is not None else ()), *trained)))


def graph_faults(stages: Sequence[Stage]) -> Iterator[str]:
    """Yield what is wrong with the stages' sources, each fault beginning with its field below `stages`."""
    sources = {stage.name: stage.source for stage in stages if stage.draws}
    trained = [stage.name for stage in stages if not stage.draws]
    for number, stage in enumerate(stages):
        yield from _embedding_faults(number, stage, trained)
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
                "circle: let one of them draw from a stage outside the circle"
            )


def _embedding_faults(number: int, stage: Stage, trained: Sequence[str]) -> Iterator[str]:
    for place, each in enumerate(stage.task.embeddings if stage.draws else ()):
        if each.source is not None and each.source not in trained:
            there = f"there are: {', '.join(trained)}" if trained else "there is none"
            yield (
                f"[{number}].{stage.kind}.embeddings[{place}].from: no stage of kind textualInversion is called "
                f"{each.source!r}: name one ({there})"
            )


def _circle(name: str, sources: dict[str, str | None]) -> list[str]:
    """Return the circle of sources that leads from a stage back to it; empty where there is none."""
    path, here = [name], sources[name]
    while here is not None and here in sources and here not in path:
        path.append(here)
        here = sources[here]
    return [*path, name] if here == name else []


def in_graph_order(stages: Sequence[Stage]) -> list[Stage]:
    """Return the stages, each after those that it depends on, and otherwise in the order of the spec."""
    by_name = {stage.name: stage for stage in stages}
    ordered: dict[str, Stage] = {}

    def place(stage: Stage) -> None:
        for name in stage.depends_on:
            if name in by_name and name not in ordered:
                place(by_name[name])
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


def tokens_of(stages: Sequence[Stage]) -> tuple[str, ...]:
    """Return the tokens of textual inversion that any stage draws with, in lower case, sorted."""
    drawing = [each for each in stages if each.draws]
    return tuple(
        sorted(
            {each.token.lower() for stage in drawing for each in embeddings_of(stages, stage).values() if each.token}
        )
    )


def embeddings_of(stages: Sequence[Stage], stage: Stage) -> dict[str, Embedding]:
    """Return a stage's embeddings, each by the field of the spec that names it.

    A stage that draws with its source's model also has the source's embeddings; its own replace those with the same
    token. An embedding from a stage has that stage's token, if none of its own.
    """
    tokens = {each.name: each.textual_inversion.token for each in stages if each.textual_inversion is not None}
    by_name = {each.name: (number, each) for number, each in enumerate(stages)}
    found: dict[str, Embedding] = {}
    here = stage
    while True:
        number = by_name[here.name][0]
        known = {each.token.lower() for each in found.values()}
        for place, each in enumerate(here.task.embeddings):
            token = each.token or tokens.get(each.source or "", "")
            if token.lower() not in known:
                field = f"spec.stages[{number}].{here.kind}.embeddings[{place}]"
                found[field] = each.model_copy(update={"token": token})
        if here.task.model is not None or here.source is None:
            return found
        here = by_name[here.source][1]


def loras_of(stages: Sequence[Stage], stage: Stage) -> dict[str, Lora]:
    """Return a stage's LoRAs, each by the field of the spec that names it.

    A stage that draws with its source's model also has the source's LoRAs.
    """
    by_name = {each.name: (number, each) for number, each in enumerate(stages)}
    found: dict[str, Lora] = {}
    here = stage
    while True:
        number = by_name[here.name][0]
        for place, each in enumerate(here.task.loras):
            found[f"spec.stages[{number}].{here.kind}.loras[{place}]"] = each
        if here.task.model is not None or here.source is None:
            return found
        here = by_name[here.source][1]
