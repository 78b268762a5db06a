"""Expands a spec: its samples, and the content addresses of images, evidence and labels.

There are three addresses. Each is a hash over the canonical JSON of everything that decides the object, and of nothing
else:

- *sample id*, of the image: prompts, seed, size, format, steps, guidance, model (the digest of its weights), the sample
  that it is drawn from, and the label id that its mask is taken from.
- *evidence id*, of the model's output for the image: the model, its settings, the words of the classes.
- *label id*, of the decided labels: the evidence, and the thresholds applied to it.

The same recipe always has the same address. So resuming, partial regeneration and sharing work without any record of
progress: an object in the store under an id is right, no matter which run wrote it. A new threshold changes only label
ids. A new synonym changes only evidence ids and label ids. Neither draws an image.

All functions are lazy: a million samples need constant memory.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from diffugen_api.addresses import address, canonical
from diffugen_api.combinations import count
from diffugen_api.contract import MAX_SHARDS
from diffugen_api.derivations.base import Derivation, Draft, SampleFamily
from diffugen_api.derivations.registry import derivations_of
from diffugen_api.errors import SpecError
from diffugen_api.prompt_reading import read_prompt
from diffugen_api.prompt_rows import PromptRows
from diffugen_api.prompt_weights import Prompt
from diffugen_api.prompts import check_weights, combined, field_of, names_of, prompts_of, templates_of
from diffugen_api.recipes import StageRecipe, revision_of, stage_recipe, store_of
from diffugen_api.sample_families import sample_families_of
from diffugen_api.samples import Sample, Source, weights_row
from diffugen_api.spec_warnings import warnings_of
from diffugen_api.templates import Template
from diffugen_api.v1alpha1 import LabeledDatasetSpec

__all__ = [
    "Expansion", "Sample", "Source", "SpecError", "StageRecipe", "address", "canonical", "names_of", "revision_of",
    "samples_per_shard", "stage_recipe", "store_of",
]  # fmt: skip

MAX_COMPARED = 1_000_000
"""The most prompts that are expanded to count the equal ones: this takes some seconds."""


class Expansion:
    """A spec with its templates parsed and its sample families found, each once, when it is first used."""

    def __init__(self, spec: LabeledDatasetSpec, rows: PromptRows | None = None) -> None:
        """Expand `spec`, which has the prompts file of `rows`, if any.

        The attributes and methods raise `SpecError` naming an invalid field.
        """
        self.spec = spec
        self.rows = rows

    @cached_property
    def templates(self) -> list[Template]:
        """The parsed templates of the prompts."""
        return templates_of(self.spec)

    @cached_property
    def derivations(self) -> dict[str, Derivation]:
        """The derivation of each stage that has a source, by the stage's name."""
        return derivations_of(self.spec)

    @cached_property
    def families(self) -> dict[str, list[SampleFamily]]:
        """The sample families of each stage, by its name; `ValueError` where the spec has a file without rows."""
        if self.spec.prompts.file is not None and self.rows is None:
            raise ValueError("the spec has a prompts file, and the expansion was made without its rows")
        return sample_families_of(self.spec, self.templates, self.derivations, self.rows)

    @cached_property
    def most(self) -> dict[str, int]:
        """An upper bound of the samples of each stage, by its name; it expands no sample."""
        return {stage: sum(family.most for family in families) for stage, families in self.families.items()}

    def check_stages(self) -> None:
        """Raise `SpecError` naming the field of an invalid template or stage."""
        _ = self.families

    def check_weights(self) -> None:
        """Raise `SpecError` naming the field if weights of a prompt cannot be read."""
        check_weights(self.spec, self.templates)

    def warnings(self) -> list[str]:
        """Return a sentence for each valid part of the spec that has no effect, or another one than it seems."""
        return warnings_of(self.spec, self.templates, self.families, self.rows)

    def count_prompts_and_seeds(self) -> int:
        """Return the number of samples of each txt2img stage, with equal prompts counted several times."""
        asked = self.spec.prompts
        filled = combined(self.spec, self.templates)
        prompts = sum(count(names_of(each), asked.variables, asked.combine, asked.sample) for _, each in filled)
        prompts += self.rows.count if self.rows is not None else 0
        return prompts * asked.samples_per_prompt

    def count_distinct_samples(self, stage: str | None = None) -> int:
        """Return the number of samples of one stage or of all stages, with equal prompts counted once.

        This takes as long as expanding all prompts. For stages with more than `MAX_COMPARED` it is the upper bound.
        """
        wanted = [each for each in self.most if stage in {None, each}]
        each_prompt = self.spec.prompts.samples_per_prompt
        if any(self.most[name] > MAX_COMPARED * each_prompt for name in wanted):
            return sum(self.most[name] for name in wanted)
        return sum(sum(1 for _ in self._drafts(name)) for name in wanted) * each_prompt

    def has_samples(self, stage: str) -> bool:
        """Return whether a stage has any sample."""
        return next(self._drafts(stage), None) is not None

    def samples_of(self, recipe: StageRecipe) -> Iterator[Sample]:
        """Yield the stage's samples, in the order of its source's samples, or of the prompts if it has no source.

        Equal prompts (two templates can give the same text) yield their samples once. A sample's seed is derived from
        the spec's seed, the stage, the prompt and its number among the prompt's samples, or its source's seed. So more
        prompts, or more samples for each, do not change the other samples.
        """
        return (made.sample for made in self._made(recipe))

    def _made(self, recipe: StageRecipe) -> Iterator[_Made]:
        spec = self.spec
        made = _Maker(spec, recipe)
        if recipe.source is None:
            numbers = range(spec.prompts.samples_per_prompt)
            for filled in prompts_of(spec, self.templates, self.rows):
                yield from made(Draft(filled.template, filled.variables, {}), filled.number, numbers, None, {})
            return
        derivation = self.derivations[recipe.stage]
        alone = spec.prompts.samples_per_prompt == 1
        last: Draft | None = None
        drafts: Iterable[Draft] = ()
        for old, source in self._made(recipe.source):
            if source is not last:  # the samples of one prompt follow one another
                last, drafts = source, derivation.of(source, old.text)
                drafts = drafts if alone else list(drafts)
            for draft in drafts:
                mask: dict[str, str] = {"source": old.id}
                counted: list[Any] = [old.seed]
                if draft.replaced:
                    mask |= {"replaced": draft.replaced, "label": recipe.source.label_id}
                    counted.append(draft.replaced)
                yield from made(draft, old.template, [counted], Source(old.id, draft.replaced, old.source), mask)

    def _drafts(self, stage: str) -> Iterator[tuple[Draft, Prompt]]:
        """Yield a stage's prompts; each gives one sample for every sample number."""
        spec = self.spec
        source = next(each.source for each in spec.stages if each.name == stage)
        if source is None:
            for filled in prompts_of(spec, self.templates, self.rows):
                read = read_prompt(spec, filled.prompt, field_of(spec, filled.number))
                yield Draft(filled.template, filled.variables, {}), read
            return
        derivation = self.derivations[stage]
        for old, read in self._drafts(source):
            for draft in derivation.of(old, read):
                yield draft, read_prompt(spec, draft.prompt, f"stage {stage}")


class _Made(NamedTuple):
    sample: Sample
    draft: Draft


class _Maker:
    """Creates the samples of one stage with their ids and seeds."""

    def __init__(self, spec: LabeledDatasetSpec, recipe: StageRecipe) -> None:
        self._spec = spec
        self._prefix = hashlib.sha256(canonical(recipe.drawing))
        self._origin = canonical([spec.seed, spec.regenerate_token, recipe.stage])

    def __call__(
        self, draft: Draft, number: int, counted: Sequence[Any], source: Source | None, mask: dict[str, str]
    ) -> Iterator[_Made]:
        prompt = draft.prompt
        text = read_prompt(self._spec, prompt, field_of(self._spec, number))
        pieces = text if isinstance(text, tuple) else ()
        variables, words = dict(draft.variables), dict(draft.words)
        for each in counted:
            seed = _seed(self._origin, prompt, each)
            own = self._prefix.copy()
            own.update(canonical({"prompt": prompt, "seed": seed, **weights_row(pieces), **mask}))
            sample = Sample(own.hexdigest()[:32], prompt, seed, number, variables, pieces, source, words)
            yield _Made(sample, draft)


def _seed(origin: bytes, prompt: str, number: Any) -> int:
    digest = hashlib.sha256(origin + canonical([prompt, number])).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def samples_per_shard(spec: LabeledDatasetSpec, missing: int) -> int:
    """Return the shard size: the one in `run`, or a larger one if that needs more than 10,000 shards."""
    return max(spec.run.samples_per_shard, math.ceil(missing / MAX_SHARDS))
