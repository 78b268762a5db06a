"""Checks stages without expanding their samples: an upper bound of their images, and whether they are valid.

A spec has few sample families and up to millions of samples, so checking the families takes almost no time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from diffugen_api.combinations import count
from diffugen_api.derivations.base import Derivation, Draft, SampleFamily
from diffugen_api.prompt_reading import read_prompt
from diffugen_api.prompt_rows import PromptRows, fills
from diffugen_api.prompts import asked_for, combined, names_of
from diffugen_api.templates import Template
from diffugen_api.v1alpha1 import LabeledDatasetSpec, Stage, in_graph_order

MOST_TRIED = 10_000
"""The most prompts with which a stage's template is tried; this takes at most a second."""


def sample_families_of(
    spec: LabeledDatasetSpec,
    templates: Sequence[Template],
    derivations: Mapping[str, Derivation],
    rows: PromptRows | None,
) -> dict[str, list[SampleFamily]]:
    """Return each stage's sample families; raise `SpecError` naming the field of an invalid stage."""
    asked = spec.prompts
    roots = []
    for _, template in combined(spec, templates):
        names = names_of(template)
        number = count(names, asked.variables, asked.combine, asked.sample) * asked.samples_per_prompt
        roots.append(SampleFamily(template, {name: asked.variables[name] for name in names}, {}, number))
    if rows is not None:
        roots += _row_families(rows, templates, asked.samples_per_prompt)
    found: dict[str, list[SampleFamily]] = {}
    for stage in in_graph_order(spec.drawing_stages):
        if stage.source is None:
            found[stage.name] = roots
            continue
        derivation = derivations[stage.name]
        found[stage.name] = derivation.families(found[stage.source])
        if derivation.tries_prompts:
            deque(islice(_some(spec, templates, stage, derivations, rows), MOST_TRIED), maxlen=0)  # raises SpecError
    return found


def _row_families(rows: PromptRows, templates: Sequence[Template], each: int) -> list[SampleFamily]:
    """Return the families of the rows: one for each template that they fill, and one for their own prompts."""
    families = []
    for number, count_of in rows.fills.items():
        template = templates[number]
        filling = [row.values for row in rows.examples if not row.prompt and fills(row.values, template)]
        values = {name: list(dict.fromkeys(given[name] for given in filling)) for name in names_of(template)}
        families.append(SampleFamily(template, values, {}, count_of * each, complete=rows.complete))
    if rows.prompts:
        texts = tuple(row.prompt for row in rows.examples if row.prompt)
        plain = Template("", ("",), ())
        families.append(SampleFamily(plain, {}, {}, rows.prompts * each, texts=texts, complete=rows.complete))
    return families


def _some(
    spec: LabeledDatasetSpec,
    templates: Sequence[Template],
    stage: Stage,
    derivations: Mapping[str, Derivation],
    rows: PromptRows | None,
) -> Iterator[Draft]:
    """Yield some prompts that a stage certainly has; raise `SpecError` as its derivation does."""
    if stage.source is None:
        for asked in asked_for(spec, templates, rows):
            yield Draft(asked.template, asked.variables, {})
        return
    source = next(each for each in spec.stages if each.name == stage.source)
    for draft in islice(_some(spec, templates, source, derivations, rows), MOST_TRIED):
        yield from derivations[stage.name].of(draft, read_prompt(spec, draft.prompt, f"stage {source.name}"))
