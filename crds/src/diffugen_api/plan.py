"""What a spec means: which pictures it asks for, and under which content addresses things are kept.

Three addresses, each a hash over the canonical JSON of all that decides the thing, and of nothing else:

- *sample id*: the picture. Prompts, seed, size, format, steps, guidance, model (the digest of its weights).
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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from diffugen_api.addressing import address, canonical
from diffugen_api.combining import UnequalLengthsError, check, combinations, count
from diffugen_api.contract import MAX_SHARDS
from diffugen_api.errors import SpecError
from diffugen_api.reading import read_prompt
from diffugen_api.recipes import StageRecipe, revision_of, stage_recipe, store_of
from diffugen_api.templates import Template, TemplateError
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_api.weights import Piece, Prompt

__all__ = [
    "Sample", "SpecError", "StageRecipe", "address", "canonical", "check_weights", "count_distinct_samples",
    "count_samples", "names_of", "revision_of", "samples_of", "samples_per_shard", "split_of", "stage_recipe",
    "store_of", "templates_of",
]  # fmt: skip

OBJECT_VARIABLE = "object"

MAX_COMPARED = 1_000_000
"""Prompts that are written out to count the equal ones: some seconds' work."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture to draw.

    `seed` is in 0..2**63-1. `variables` are those that its template names.
    """

    id: str
    prompt: str
    seed: int
    template: int
    variables: Mapping[str, str]
    pieces: tuple[Piece, ...] = ()
    """What the prompt was read into, where it has weights or escapes."""

    @property
    def text(self) -> Prompt:
        """The prompt as it is drawn."""
        return self.pieces or self.prompt

    def row(self) -> dict[str, Any]:
        """Return the sample as a line of a shard."""
        return {
            "id": self.id,
            "prompt": self.prompt,
            "seed": self.seed,
            "template": self.template,
            "variables": dict(self.variables),
            **_weights(self.pieces),
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Sample:
        """Read a line of a shard."""
        pieces = tuple(Piece(text, float(weight)) for text, weight in row.get("weights", ()))
        return cls(row["id"], row["prompt"], row["seed"], row["template"], row["variables"], pieces)


def _weights(pieces: tuple[Piece, ...]) -> dict[str, Any]:
    """Return a recipe's entry for the pieces of its prompt; nothing for a plain one, whose address is older."""
    return {"weights": [list(piece) for piece in pieces]} if pieces else {}


def templates_of(spec: LabeledDatasetSpec) -> list[Template]:
    """Parse and check the templates and variables; raise `SpecError` naming the field at fault."""
    variables = spec.prompts.variables
    templates = []
    for number, text in enumerate(spec.prompts.templates):
        where = f"spec.prompts.templates[{number}]"
        try:
            template = Template.parse(text)
        except TemplateError as error:
            raise SpecError("InvalidTemplate", f"{where}: {error}.") from None
        if missing := [field for field in template.fields if field not in variables]:
            raise SpecError(
                "UnknownVariable",
                f"{where}: no variable is called {missing[0]!r}; add it to spec.prompts.variables"
                + (f" (there are: {', '.join(sorted(variables))})." if variables else "."),
            )
        try:
            check(names_of(template), variables, spec.prompts.combine)
        except UnequalLengthsError as unequal:
            lengths = [len(variables[name]) for name in (unequal.first, unequal.other)]
            raise SpecError(
                "UnequalVariables",
                f"spec.prompts.variables.{unequal.other}: combine: zip takes it in step with {unequal.first} in "
                f"{where}, and it has {lengths[1]} values where {unequal.first} has {lengths[0]}; give both as many.",
            ) from None
        templates.append(template)
    known = {word.lower() for c in spec.classes for word in c.words}
    for number, value in enumerate(variables.get(OBJECT_VARIABLE, [])):
        if value.lower() not in known:
            raise SpecError(
                "UnknownClass",
                f"spec.prompts.variables.{OBJECT_VARIABLE}[{number}]: {value!r} is no class; add it to "
                f"spec.classes, or as a synonym of one (classes: {', '.join(c.name for c in spec.classes)}).",
            )
    return templates


def check_weights(spec: LabeledDatasetSpec) -> None:
    """Raise `SpecError` naming the field where weights cannot be read; every template is tried with every value."""
    first = {name: values[0] for name, values in spec.prompts.variables.items()}
    for number, template in enumerate(templates_of(spec)):
        changes = [{name: value} for name in names_of(template) for value in spec.prompts.variables[name]]
        for change in changes or [{}]:
            read_prompt(spec, template.render({**first, **change}), f"spec.prompts.templates[{number}]")
    read_prompt(spec, spec.prompts.negative, "spec.prompts.negative")


def names_of(template: Template) -> tuple[str, ...]:
    """Return the variables that a template names, each once."""
    return tuple(dict.fromkeys(template.fields))


def count_samples(spec: LabeledDatasetSpec) -> int:
    """Return how many samples each stage asks for, before equal prompts are drawn only once."""
    asked = spec.prompts
    prompts = sum(count(names_of(t), asked.variables, asked.combine, asked.sample) for t in templates_of(spec))
    return prompts * asked.samples_per_prompt


def count_distinct_samples(spec: LabeledDatasetSpec) -> int:
    """Return how many samples each stage has, equal prompts drawn once.

    It takes as long as writing all prompts; of more than `MAX_COMPARED` it is what the spec asks for.
    """
    if (asked := count_samples(spec)) > MAX_COMPARED * spec.prompts.samples_per_prompt:
        return asked
    return sum(1 for _ in _prompts(spec)) * spec.prompts.samples_per_prompt


def samples_of(spec: LabeledDatasetSpec, recipe: StageRecipe) -> Iterator[Sample]:
    """Yield the stage's samples, template by template, in the order in which the variables are written.

    Equal prompts (two templates may render alike) yield their samples once. A sample's seed derives from the
    spec's seed, the stage, the prompt and its number among the prompt's samples, so adding prompts, or more
    samples for each, leaves the others as they are.
    """
    prefix = hashlib.sha256(canonical(recipe.drawing))
    origin = canonical([spec.seed, spec.regenerate_token, recipe.stage])
    for number, variables, prompt in _prompts(spec):
        text = read_prompt(spec, prompt, f"spec.prompts.templates[{number}]")
        pieces = text if isinstance(text, tuple) else ()
        for index in range(spec.prompts.samples_per_prompt):
            seed = _seed(origin, prompt, index)
            own = prefix.copy()
            own.update(canonical({"prompt": prompt, "seed": seed, **_weights(pieces)}))
            yield Sample(own.hexdigest()[:32], prompt, seed, number, variables, pieces)


def _prompts(spec: LabeledDatasetSpec) -> Iterator[tuple[int, Mapping[str, str], str]]:
    """Yield each prompt once: its template's number, the values that fill it, and its text."""
    seen: set[bytes] = set()
    for number, template in enumerate(templates_of(spec)):
        for variables in _combinations(spec, template):
            prompt = template.render(variables)
            fingerprint = hashlib.sha256(prompt.encode()).digest()[:16]
            if fingerprint not in seen:
                seen.add(fingerprint)
                yield number, variables, prompt


def _combinations(spec: LabeledDatasetSpec, template: Template) -> Iterator[dict[str, str]]:
    """Yield the values with which a template is filled; which ones a sample has depends on the template's own text."""
    asked = spec.prompts
    origin = canonical(["combinations", spec.seed, template.text])
    return combinations(names_of(template), asked.variables, asked.combine, sample=asked.sample, origin=origin)


def _seed(origin: bytes, prompt: str, index: int) -> int:
    digest = hashlib.sha256(origin + canonical([prompt, index])).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def samples_per_shard(spec: LabeledDatasetSpec, missing: int) -> int:
    """Return the shard size: what `run` asks for, or more where that would need over 10,000 shards."""
    return max(spec.run.samples_per_shard, math.ceil(missing / MAX_SHARDS))


def split_of(spec: LabeledDatasetSpec, sample_id: str) -> str:
    """Return the split of a sample: train, val or test, by its id alone.

    Uses the digest of the id, not the id, as ids are also what the store's folders are spread by.
    """
    splits = spec.output.splits
    place = int.from_bytes(hashlib.sha256(b"split:" + sample_id.encode()).digest()[:8], "big") / 2**64
    if place < splits.train:
        return "train"
    return "val" if place < splits.train + splits.val or splits.test == 0 else "test"
