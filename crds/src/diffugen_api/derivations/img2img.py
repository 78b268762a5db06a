"""img2img: the changed variables fill the template of the source's image again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from diffugen_api.combinations import combinations
from diffugen_api.derivations.base import Derivation, Draft, SampleFamily
from diffugen_api.errors import SpecError
from diffugen_api.prompt_reading import read_prompt
from diffugen_api.prompt_weights import Prompt
from diffugen_api.prompts import check_objects, names_of, tried
from diffugen_api.v1alpha1 import Img2Img, LabeledDatasetSpec


class ChangedVariables(Derivation):
    """The prompts that an img2img stage derives."""

    def __init__(self, spec: LabeledDatasetSpec, task: Img2Img, field: str) -> None:
        """Derive the prompts of `task`, the value of `field` in the spec."""
        self._spec = spec
        self._task = task
        self._field = f"{field}.variables"

    def of(self, source: Draft, read: Prompt) -> Iterator[Draft]:
        """Yield a prompt for each combination of the changed variables, without the source's own prompt."""
        names = [name for name in names_of(source.template) if name in self._task.variables]
        seen = {source.prompt}
        for values in combinations(names, self._task.variables, "product") if names else ():
            draft = replace(source, variables={**source.variables, **values}, replaced="")
            if (prompt := draft.prompt) not in seen:
                seen.add(prompt)
                yield draft

    def families(self, sources: Sequence[SampleFamily]) -> list[SampleFamily]:
        """Return the families of the source's templates that use a changed variable."""
        self._check(sources)
        changed = self._task.variables
        return [self._changed(family) for family in sources if any(name in changed for name in family.template.fields)]

    def _check(self, sources: Sequence[SampleFamily]) -> None:
        known = sorted({name for family in sources for name in names_of(family.template)})
        for name in self._task.variables:
            if name not in known:
                raise SpecError(
                    "UnknownVariable",
                    f"{self._field}.{name}: no prompt of stage {self._task.source!r} has a field of that name, so "
                    f"nothing would change; use one of its fields ({', '.join(known) or 'it has none'}).",
                )
        check_objects(self._spec, self._task.variables, self._field)

    def _changed(self, family: SampleFamily) -> SampleFamily:
        changed = {
            name: self._task.variables[name] for name in names_of(family.template) if name in self._task.variables
        }
        values = {**family.values, **changed}
        for prompt in tried(family.template, values):
            read_prompt(self._spec, prompt, self._field)
        kept = {name: list(dict.fromkeys((*family.values[name], *given))) for name, given in values.items()}
        return replace(family, values=kept, most=family.most * math.prod(len(given) for given in changed.values()))
