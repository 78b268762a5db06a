"""Stages before any sample is written out: how many pictures they ask for at most, and whether they can work.

A sample family is the images that one template makes in one stage. A spec has few families and up to millions of
samples, so checking the families takes no time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

from diffugen_api.combinations import count
from diffugen_api.derived_prompts import Draft, Redrawing, Replacing, vocabulary_of
from diffugen_api.errors import SpecError
from diffugen_api.prompt_reading import read_prompt
from diffugen_api.prompt_weights import plain
from diffugen_api.prompts import OBJECT_VARIABLE, asked_for, check_objects, names_of, parsed, templates_of, tried
from diffugen_api.templates import Template
from diffugen_api.v1alpha1 import Img2Img, Inpaint, LabeledDatasetSpec, Stage, in_graph_order
from diffugen_api.words import Vocabulary, mentions

MOST_TRIED = 10_000
"""Prompts of a stage that its template is tried with: a second's work at most."""


@dataclass(frozen=True, slots=True)
class SampleFamily:
    """The images that one template makes in one stage."""

    template: Template
    values: Mapping[str, list[str]]
    """All that each field may be."""
    words: Mapping[str, tuple[str, ...]]
    """All that objects of a class may be called besides the class's own words."""
    most: int
    """How many pictures there are at most."""


def sample_families_of(spec: LabeledDatasetSpec) -> dict[str, list[SampleFamily]]:
    """Return each stage's sample families; raise `SpecError` naming the field of a stage that cannot work."""
    asked = spec.prompts
    roots = []
    for template in templates_of(spec):
        names = names_of(template)
        number = count(names, asked.variables, asked.combine, asked.sample) * asked.samples_per_prompt
        roots.append(SampleFamily(template, {name: asked.variables[name] for name in names}, {}, number))
    found: dict[str, list[SampleFamily]] = {}
    fields = {stage.name: f"spec.stages[{number}].{stage.kind}" for number, stage in enumerate(spec.stages)}
    for stage in in_graph_order(spec.stages):
        match stage.task:
            case Img2Img() as task:
                made = _redrawn(spec, stage, task, found[task.source], fields[stage.name])
            case Inpaint() as task:
                made = _repainted(spec, task, found[task.source], fields[stage.name])
                if task.template is not None:
                    deque(islice(_some(spec, stage, fields), MOST_TRIED), maxlen=0)  # it raises
            case _:
                made = roots
        found[stage.name] = made
    return found


def unnamed_background(spec: LabeledDatasetSpec) -> list[str]:
    """Return the background words that no prompt names: they have no map, and so compete for nothing."""
    attention = spec.labeling.attention
    words = list(attention.background) if attention is not None else []
    if not words:
        return []
    classes = Vocabulary({each.name: each.words for each in spec.classes}, words)
    families = [family for families in sample_families_of(spec).values() for family in families]
    found = {
        mention.name
        for family in families
        for text in _texts(spec, family)
        for mention in mentions(text, classes.called(family.words))
        if mention.background
    }
    return [word for word in words if word not in found]


def _some(spec: LabeledDatasetSpec, stage: Stage, fields: Mapping[str, str]) -> Iterator[Draft]:
    """Yield some of the prompts that a stage has for sure; raise `SpecError` as `Replacing` does."""
    change: Redrawing | Replacing
    match stage.task:
        case Img2Img() as task:
            change = Redrawing(task)
        case Inpaint() as task:
            change = Replacing(spec, task, fields[stage.name])
        case _:
            for asked in asked_for(spec):
                yield Draft(asked.template, asked.variables, {})
            return
    source = next(each for each in spec.stages if each.name == stage.source)
    for draft in islice(_some(spec, source, fields), MOST_TRIED):
        yield from change.of(draft, read_prompt(spec, draft.prompt, fields[source.name]))


def _redrawn(
    spec: LabeledDatasetSpec, stage: Stage, task: Img2Img, sources: list[SampleFamily], field: str
) -> list[SampleFamily]:
    known = sorted({name for family in sources for name in names_of(family.template)})
    for name in task.variables:
        if name not in known:
            raise SpecError(
                "UnknownVariable",
                f"{field}.variables.{name}: no prompt of stage {stage.source!r} has a field of that name, so nothing "
                f"would change; name one of theirs ({', '.join(known) or 'there is none'}).",
            )
    check_objects(spec, task.variables, f"{field}.variables")
    made = []
    for family in sources:
        changed = [name for name in names_of(family.template) if name in task.variables]
        if not changed:
            continue
        number = family.most * math.prod(len(task.variables[name]) for name in changed)
        values = {**family.values, **{name: task.variables[name] for name in changed}}
        for prompt in tried(family.template, values):
            read_prompt(spec, prompt, f"{field}.variables")
        kept = {name: list(dict.fromkeys((*family.values[name], *given))) for name, given in values.items()}
        made.append(replace(family, values=kept, most=number))
    return made


def _repainted(spec: LabeledDatasetSpec, task: Inpaint, sources: list[SampleFamily], field: str) -> list[SampleFamily]:
    replacing = Replacing(spec, task, field)
    template = parsed(task.template, f"{field}.template") if task.template is not None else None
    named = [_named(spec, family) for family in sources]
    for name in task.replacements:
        if not any(name in classes for classes in named):
            raise SpecError(
                "NothingToReplace",
                f"{field}.replacements.{name}: no prompt of stage {task.source!r} names the class {name!r}, so it has "
                "no label there to make a mask of; name it in a prompt, or remove it here.",
            )
    made = []
    for family, classes in zip(sources, named, strict=True):
        if template is not None and (missing := _missing(template, family)):
            raise SpecError(
                "UnknownVariable",
                f"{field}.template: it has the field {{{missing}}}, and the prompt {family.template.text!r} of stage "
                f"{task.source!r} has not; use {{{OBJECT_VARIABLE}}} and fields that all of its prompts have.",
            )
        words, texts = family.words, []
        for name, given in task.replacements.items():
            for text in given if name in classes else ():
                read_prompt(spec, text, f"{field}.replacements.{name}")
                texts.append(text)
                words = replacing.words(words, name, text)
        if not texts:
            continue
        own = template or family.template
        values = {name: [*family.values.get(name, []), *texts] for name in names_of(own)}
        if template is not None:
            values = {name: texts if name == OBJECT_VARIABLE else family.values[name] for name in names_of(own)}
        for prompt in tried(own, values):
            read_prompt(spec, prompt, f"{field}.template" if template is not None else f"{field}.replacements")
        made.append(SampleFamily(own, values, words, family.most * len(texts)))
    return made


def _missing(template: Template, family: SampleFamily) -> str:
    """Return a field of `template` that a family's pictures do not have; empty where they have all."""
    known = {OBJECT_VARIABLE, *names_of(family.template)}
    return next((name for name in names_of(template) if name not in known), "")


def _named(spec: LabeledDatasetSpec, family: SampleFamily) -> set[str]:
    """Return the classes that a family's prompts may name."""
    vocabulary = vocabulary_of(spec, family.words)
    return {mention.name for text in _texts(spec, family) for mention in mentions(text, vocabulary)}


def _texts(spec: LabeledDatasetSpec, family: SampleFamily) -> Iterator[str]:
    for prompt in tried(family.template, family.values):
        yield plain(read_prompt(spec, prompt, "spec.prompts"))
    yield from family.template.literals
