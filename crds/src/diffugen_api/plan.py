"""What a spec means: which pictures it asks for, and under which content addresses things are kept.

Three addresses, each a hash over the canonical JSON of all that decides the thing, and of nothing else:

- *sample id*: the picture. Prompts, seed, size, format, steps, guidance, model (the digest of its weights); the sample
  that it is drawn from, and the label id that its mask is taken from.
- *evidence id*: what a model saw in it. The model, how it looked, the words of the classes.
- *label id*: what was decided. The evidence, and the thresholds applied to it.

The same recipe has the same address for ever. That is what makes resuming, partial regeneration and sharing
work without any bookkeeping: whatever the store holds under an id is right, whoever put it there. A new
threshold changes only label ids, a new synonym only evidence and label ids; neither draws a picture.

Everything here is lazy: a million samples pass through in constant memory.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from diffugen_api.addresses import address, canonical
from diffugen_api.combinations import count
from diffugen_api.contract import MAX_SHARDS
from diffugen_api.derivations.base import Draft
from diffugen_api.derivations.registry import derivations_of
from diffugen_api.errors import SpecError
from diffugen_api.prompt_reading import read_prompt
from diffugen_api.prompt_weights import Prompt
from diffugen_api.prompts import check_weights, names_of, prompts_of, templates_of
from diffugen_api.recipes import StageRecipe, revision_of, stage_recipe, store_of
from diffugen_api.sample_families import sample_families_of
from diffugen_api.samples import Sample, Source, weights_row
from diffugen_api.v1alpha1 import LabeledDatasetSpec

__all__ = [
    "Sample", "Source", "SpecError", "StageRecipe", "address", "canonical", "check_weights", "count_distinct_samples",
    "count_samples", "has_samples", "most_samples", "names_of", "revision_of", "samples_of", "samples_per_shard",
    "split_of", "stage_recipe", "store_of", "templates_of",
]  # fmt: skip

MAX_COMPARED = 1_000_000
"""Prompts that are written out to count the equal ones: some seconds' work."""


def count_samples(spec: LabeledDatasetSpec) -> int:
    """Return how many samples each txt2img stage asks for, before equal prompts are drawn only once."""
    asked = spec.prompts
    prompts = sum(count(names_of(t), asked.variables, asked.combine, asked.sample) for t in templates_of(spec))
    return prompts * asked.samples_per_prompt


def most_samples(spec: LabeledDatasetSpec) -> dict[str, int]:
    """Return how many samples each stage has at most, at once.

    Raises `SpecError` naming the field of a stage that cannot work.
    """
    return {stage: sum(family.most for family in families) for stage, families in sample_families_of(spec).items()}


def count_distinct_samples(spec: LabeledDatasetSpec, stage: str | None = None) -> int:
    """Return how many samples a stage has, or all of them together, equal prompts drawn once.

    It takes as long as writing all prompts; for stages of more than `MAX_COMPARED` it is `most_samples`.
    """
    most = most_samples(spec)
    wanted = [each for each in most if stage in {None, each}]
    each_prompt = spec.prompts.samples_per_prompt
    if any(most[name] > MAX_COMPARED * each_prompt for name in wanted):
        return sum(most[name] for name in wanted)
    return sum(sum(1 for _ in _drafts(spec, name)) for name in wanted) * each_prompt


def has_samples(spec: LabeledDatasetSpec, stage: str) -> bool:
    """Return whether a stage has any sample."""
    return next(_drafts(spec, stage), None) is not None


def samples_of(spec: LabeledDatasetSpec, recipe: StageRecipe) -> Iterator[Sample]:
    """Yield the stage's samples in the order of its source's, and those of text alone as the prompts are written.

    Equal prompts (two templates may render alike) yield their samples once. A sample's seed derives from the
    spec's seed, the stage, the prompt and its number among the prompt's samples, or its source's seed, so adding
    prompts, or more samples for each, leaves the others as they are.
    """
    yield from (made.sample for made in _made(spec, recipe))


class _Made(NamedTuple):
    sample: Sample
    draft: Draft


def _made(spec: LabeledDatasetSpec, recipe: StageRecipe) -> Iterator[_Made]:
    prefix = hashlib.sha256(canonical(recipe.drawing))
    origin = canonical([spec.seed, spec.regenerate_token, recipe.stage])

    def made(
        draft: Draft, number: int, counted: Sequence[Any], source: Source | None, mask: dict[str, str]
    ) -> Iterator[_Made]:
        prompt = draft.prompt
        text = read_prompt(spec, prompt, f"spec.prompts.templates[{number}]")
        pieces = text if isinstance(text, tuple) else ()
        variables, words = dict(draft.variables), dict(draft.words)
        for each in counted:
            seed = _seed(origin, prompt, each)
            own = prefix.copy()
            own.update(canonical({"prompt": prompt, "seed": seed, **weights_row(pieces), **mask}))
            sample = Sample(own.hexdigest()[:32], prompt, seed, number, variables, pieces, source, words)
            yield _Made(sample, draft)

    if recipe.source is None:
        numbers = range(spec.prompts.samples_per_prompt)
        for filled in prompts_of(spec):
            yield from made(Draft(filled.template, filled.variables, {}), filled.number, numbers, None, {})
        return
    derivation = derivations_of(spec)[recipe.stage]
    alone = spec.prompts.samples_per_prompt == 1
    last: Draft | None = None
    drafts: Iterable[Draft] = ()
    for old, source in _made(spec, recipe.source):
        if source is not last:  # sources of one prompt come one after the other
            last, drafts = source, derivation.of(source, old.text)
            drafts = drafts if alone else list(drafts)
        for draft in drafts:
            mask: dict[str, str] = {"source": old.id}
            counted: list[Any] = [old.seed]
            if draft.replaced:
                mask |= {"replaced": draft.replaced, "label": recipe.source.label_id}
                counted.append(draft.replaced)
            yield from made(draft, old.template, [counted], Source(old.id, draft.replaced, old.source), mask)


def _drafts(spec: LabeledDatasetSpec, stage: str) -> Iterator[tuple[Draft, Prompt]]:
    """Yield a stage's prompts, each for one of the samples that it has for each number."""
    source = next(each.source for each in spec.stages if each.name == stage)
    if source is None:
        for filled in prompts_of(spec):
            field = f"spec.prompts.templates[{filled.number}]"
            yield Draft(filled.template, filled.variables, {}), read_prompt(spec, filled.prompt, field)
        return
    derivation = derivations_of(spec)[stage]
    for old, read in _drafts(spec, source):
        for draft in derivation.of(old, read):
            yield draft, read_prompt(spec, draft.prompt, f"stage {stage}")


def _seed(origin: bytes, prompt: str, number: Any) -> int:
    digest = hashlib.sha256(origin + canonical([prompt, number])).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def samples_per_shard(spec: LabeledDatasetSpec, missing: int) -> int:
    """Return the shard size: what `run` asks for, or more where that would need over 10,000 shards."""
    return max(spec.run.samples_per_shard, math.ceil(missing / MAX_SHARDS))


def split_of(spec: LabeledDatasetSpec, sample_id: str) -> str:
    """Return the split of a sample: train, val or test, by its id alone.

    Pictures that are drawn from one another belong into one split, so ask for a sample's root.
    Uses the digest of the id, not the id, as ids are also what the store's folders are spread by.
    """
    splits = spec.output.splits
    place = int.from_bytes(hashlib.sha256(b"split:" + sample_id.encode()).digest()[:8], "big") / 2**64
    if place < splits.train:
        return "train"
    return "val" if place < splits.train + splits.val or splits.test == 0 else "test"
