"""`spec`: the dataset that is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator, model_validator

from diffugen_api.v1alpha1.base import Model, cel, unique_names, validations
from diffugen_api.v1alpha1.labeling import AttentionLabeling, Labeling
from diffugen_api.v1alpha1.output import Output
from diffugen_api.v1alpha1.prompts import Image, ObjectClass, Prompts
from diffugen_api.v1alpha1.quality import Quality
from diffugen_api.v1alpha1.running import Run
from diffugen_api.v1alpha1.stages import Stage


class LabeledDatasetSpec(Model):
    """The dataset that is wanted."""

    classes: list[ObjectClass] = Field(
        min_length=1,
        max_length=200,
        json_schema_extra=validations(
            unique_names("class"),
            cel(
                "self.all(x, self.exists_one(y, y.name.lowerAscii() == x.name.lowerAscii()))",
                "class names must differ by more than upper and lower case: rename or remove one",
            ),
        ),
    )
    image: Image = Field(default_factory=Image)
    seed: int = Field(default=0, ge=0, le=2**53 - 1, description="Every picture's seed derives from it.")
    prompts: Prompts
    stages: list[Stage] = Field(min_length=1, max_length=16, json_schema_extra=validations(unique_names("stage")))
    labeling: Labeling = Field(default_factory=lambda: Labeling(attention=AttentionLabeling()))
    quality: Quality = Field(default_factory=Quality)
    output: Output = Field(default_factory=Output)
    run: Run = Field(default_factory=Run)
    suspend: bool = Field(default=False, description="Stop the work and keep what is done; false goes on.")
    regenerate_token: str = Field(
        default="", max_length=253, description="Change it, to anything, to draw every picture anew."
    )

    @field_validator("classes")
    @classmethod
    def _words_are_of_one_class(cls, classes: list[ObjectClass]) -> list[ObjectClass]:
        # as prompts are read: any case, any white space between; names that are quite equal are told below
        owners: dict[str, ObjectClass] = {}
        for number, each in enumerate(classes):
            for place, word in enumerate(each.words, start=-1):
                owner = owners.setdefault(" ".join(word.lower().split()), each)
                if owner.name != each.name:
                    where = f"[{number}].name" if place < 0 else f"[{number}].synonyms[{place}]"
                    raise ValueError(
                        f"{where}: {word!r} names class {owner.name!r} already (case does not matter), so a prompt's "
                        f"{word!r} would never be {each.name!r}: rename or remove one"
                    )
        return classes

    @model_validator(mode="after")
    def _names_are_unique(self) -> LabeledDatasetSpec:
        for what, names in (
            ("class", [c.name for c in self.classes]),
            ("stage", [s.name for s in self.stages]),
        ):
            if duplicates := sorted({n for n in names if names.count(n) > 1}):
                raise ValueError(
                    f"{what} names must be unique: rename or remove the duplicates of {', '.join(duplicates)}"
                )
        return self


def normalised(spec: LabeledDatasetSpec) -> Mapping[str, Any]:
    """Return the spec as JSON data with every default written out."""
    data: dict[str, Any] = spec.model_dump(mode="json", by_alias=True)
    return data
