"""`spec`: the wanted dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from diffugen_api.errors import listed
from diffugen_api.v1alpha1.base import Model, cel, unique_names, validations
from diffugen_api.v1alpha1.kinds.base import DrawingFromImages
from diffugen_api.v1alpha1.labeling import AttentionLabeling, Labeling
from diffugen_api.v1alpha1.output import MOST_CLASSES_OF_VOC, Output
from diffugen_api.v1alpha1.prompts import Image, ObjectClass, Prompts
from diffugen_api.v1alpha1.quality import Quality
from diffugen_api.v1alpha1.run import Run
from diffugen_api.v1alpha1.stages import KINDS, Stage, graph_faults

MOST_CLASSES = 2000
_MOST_STAGES = 16
_SOURCE = "({} '')".format(
    " ".join(
        f"has({{0}}.{kind.kind}) ? {{0}}.{kind.kind}.from :" for kind in KINDS if issubclass(kind, DrawingFromImages)
    )
)


def _no_circle() -> str:
    """Return the CEL rule that stages do not draw from one another in a circle.

    CEL knows neither recursion nor variables. `[x].all(n, …)` is as good as a variable, and the list `n<k>` has the
    stages that are fewer than k sources away from one that needs none.
    """
    source = _SOURCE.format("s")
    rule = f"self.all(s, {source} in n{_MOST_STAGES - 1})"
    for level in range(_MOST_STAGES - 1, 0, -1):
        rule = f"[self.filter(s, {source} in n{level - 1}).map(s, s.name) + ['']].all(n{level}, {rule})"
    return f"[['']].all(n0, {rule})"


_TOO_MANY_FOR_VOC = (
    f"the masks of voc have values for at most {MOST_CLASSES_OF_VOC} classes: remove voc from output.formats, or some "
    "classes"
)


class LabeledDatasetSpec(Model):
    """The wanted dataset."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            *(rule for kind in KINDS for rule in kind.spec_rules),
            cel(
                f"size(self.classes) <= {MOST_CLASSES_OF_VOC} || !has(self.output) || !has(self.output.formats) || "
                "self.output.formats.all(format, format != 'voc')",
                _TOO_MANY_FOR_VOC,
            ),
        )
    )

    classes: list[ObjectClass] = Field(
        min_length=1,
        max_length=MOST_CLASSES,
        description="The classes of objects to label. Their order gives the class ids in every export, from 0.",
        # A CEL rule compares each name with all others, which the API server takes for too costly. It compares the keys
        # of a list of type map by itself.
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    image: Image = Field(default_factory=Image)
    seed: int = Field(default=0, ge=0, le=2**53 - 1, description="The seed from which every image's seed derives.")
    prompts: Prompts
    stages: list[Stage] = Field(
        min_length=1,
        max_length=_MOST_STAGES,
        description="The stages that draw the images. A stage with `from` draws from the images of another stage.",
        json_schema_extra=validations(
            unique_names("stage"),
            cel(
                f"self.all(s, {_SOURCE.format('s')} == '' || "
                f"self.exists(t, t.name == {_SOURCE.format('s')} && t.name != s.name))",
                "from must name another stage: rename it",
            ),
            cel(
                _no_circle(),
                "stages draw from one another in a circle: let one of them draw from a stage outside the circle",
            ),
        ),
    )
    labeling: Labeling = Field(default_factory=lambda: Labeling(attention=AttentionLabeling()))
    quality: Quality = Field(default_factory=Quality)
    output: Output = Field(default_factory=Output)
    run: Run = Field(default_factory=Run)
    suspend: bool = Field(default=False, description="true stops the work and keeps its results; false continues it.")
    regenerate_token: str = Field(
        default="", max_length=253, description="Any change of this text draws every image again."
    )
    deletion_policy: Literal["Retain", "Delete"] = Field(
        default="Retain",
        description="What happens to the objects in the store when this resource is deleted. Retain keeps them and "
        "deletes the resource at once. Delete keeps the resource, with a finalizer, until a Job has deleted them.",
    )
    revision_history_limit: int = Field(
        default=3,
        ge=1,
        le=10,
        description="Number of earlier published revisions that stay in the store beside the current one.",
    )

    @field_validator("classes")
    @classmethod
    def _words_are_of_one_class(cls, classes: list[ObjectClass]) -> list[ObjectClass]:
        # as in prompts, case and the kind of white space do not matter; equal names are reported below
        owners: dict[str, ObjectClass] = {}
        for number, each in enumerate(classes):
            for place, word in enumerate(each.words, start=-1):
                owner = owners.setdefault(" ".join(word.lower().split()), each)
                if owner.name != each.name:
                    where = f"[{number}].name" if place < 0 else f"[{number}].synonyms[{place}]"
                    raise ValueError(
                        f"{where}: {word!r} already names class {owner.name!r} (case does not matter), so {word!r} in "
                        f"a prompt would never mean {each.name!r}: rename or remove one"
                    )
        return classes

    @model_validator(mode="after")
    def _names_are_unique(self) -> LabeledDatasetSpec:
        for what, names in (
            ("class", [c.name for c in self.classes]),
            ("stage", [s.name for s in self.stages]),
        ):
            if duplicates := sorted(name for name, count in Counter(names).items() if count > 1):
                raise ValueError(
                    f"{what} names must be unique: rename or remove the duplicates of {listed(duplicates)}"
                )
        return self

    @field_validator("stages")
    @classmethod
    def _sources_are_a_graph(cls, stages: list[Stage]) -> list[Stage]:
        for fault in graph_faults(stages):
            raise ValueError(fault)
        return stages

    @model_validator(mode="after")
    def _stages_fit_the_classes(self) -> LabeledDatasetSpec:
        names = [c.name for c in self.classes]
        for number, stage in enumerate(self.stages):
            for fault in stage.task.class_faults(names) if stage.draws else ():
                raise ValueError(f"stages[{number}].{stage.kind}.{fault}")
        return self

    @model_validator(mode="after")
    def _formats_fit_the_classes(self) -> LabeledDatasetSpec:
        if len(self.classes) > MOST_CLASSES_OF_VOC and "voc" in self.output.formats:
            raise ValueError(f"output.formats[{self.output.formats.index('voc')}]: {_TOO_MANY_FOR_VOC}")
        return self

    @model_validator(mode="after")
    def _some_stage_draws(self) -> LabeledDatasetSpec:
        if not self.drawing_stages:
            raise ValueError("stages: none of them draws images; add one of kind txt2img")
        return self

    @property
    def drawing_stages(self) -> list[Stage]:
        """The stages that draw the dataset's images."""
        return [stage for stage in self.stages if stage.draws]


def normalized(spec: LabeledDatasetSpec) -> Mapping[str, Any]:
    """Return the spec as JSON data with every default written out."""
    data: dict[str, Any] = spec.model_dump(mode="json", by_alias=True)
    return data
