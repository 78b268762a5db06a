"""A spec's prompts: its templates, each filled with its variables, then the rows of its file. Lazy: a million prompts
need constant memory, except for their fingerprints."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from diffugen_api.addresses import canonical
from diffugen_api.combinations import UnequalLengthsError, check, combinations
from diffugen_api.errors import SpecError, listed
from diffugen_api.prompt_reading import check_length, read_prompt, read_weights
from diffugen_api.prompt_rows import PromptRow, PromptRows, fills
from diffugen_api.templates import Template, TemplateError
from diffugen_api.v1alpha1 import LabeledDatasetSpec

OBJECT_VARIABLE = "object"
MOST_ASKED_FOR = 1000
"""The most prompts of a template that are checked if the combinations are zipped or sampled."""


class Filled(NamedTuple):
    """A template with its values in it, or a prompt of a file as a template without fields."""

    number: int
    """The template's index in `spec.prompts.templates`; the number of templates for a prompt of a file."""
    template: Template
    variables: Mapping[str, str]
    prompt: str


def templates_of(spec: LabeledDatasetSpec) -> list[Template]:
    """Parse and check the templates and variables; raise `SpecError` naming an invalid field."""
    variables = spec.prompts.variables
    templates = []
    for number, text in enumerate(spec.prompts.templates):
        where = f"spec.prompts.templates[{number}]"
        template = parsed(text, where)
        missing = [field for field in template.fields if field not in variables]
        if missing and spec.prompts.file is None:
            raise SpecError(
                "UnknownVariable",
                f"{where}: no variable is named {missing[0]!r}; add it to spec.prompts.variables"
                + (f" (there are: {', '.join(sorted(variables))})." if variables else "."),
            )
        try:
            check(() if missing else names_of(template), variables, spec.prompts.combine)
        except UnequalLengthsError as unequal:
            lengths = [len(variables[name]) for name in (unequal.first, unequal.other)]
            raise SpecError(
                "UnequalVariables",
                f"spec.prompts.variables.{unequal.other}: combine: zip pairs it with {unequal.first} in "
                f"{where}, but it has {lengths[1]} values and {unequal.first} has {lengths[0]}; give both as many.",
            ) from None
        templates.append(template)
    check_objects(spec, variables, "spec.prompts.variables")
    return templates


def field_of(spec: LabeledDatasetSpec, number: int) -> str:
    """Return the field that the prompts with a `Filled.number` come from."""
    templates = spec.prompts.templates
    return f"spec.prompts.templates[{number}]" if number < len(templates) else "spec.prompts.file"


def combined(spec: LabeledDatasetSpec, templates: Sequence[Template]) -> list[tuple[int, Template]]:
    """Return the templates, with their index, that `spec.prompts.variables` fills; rows of the file fill the others."""
    known = spec.prompts.variables
    return [(number, each) for number, each in enumerate(templates) if all(name in known for name in each.fields)]


def row_prompts(row: PromptRow, templates: Sequence[Template]) -> Iterator[Filled]:
    """Yield the prompts of a row: its own one, or each template that its values fill."""
    if row.prompt:
        yield Filled(len(templates), Template(row.prompt, (row.prompt,), ()), row.values, row.prompt)
        return
    for number, template in enumerate(templates):
        if fills(row.values, template):
            variables = {name: row.values[name] for name in names_of(template)}
            yield Filled(number, template, variables, template.render(variables))


def parsed(text: str, field: str) -> Template:
    """Read a template of `field`; raise `SpecError`."""
    try:
        return Template.parse(text)
    except TemplateError as error:
        raise SpecError("InvalidTemplate", f"{field}: {error}.") from None


def check_objects(spec: LabeledDatasetSpec, variables: Mapping[str, list[str]], field: str) -> None:
    """Raise `SpecError` if a value of `object` among the variables of `field` is not a class."""
    known = {word.lower() for c in spec.classes for word in c.words}
    for number, value in enumerate(variables.get(OBJECT_VARIABLE, [])):
        if value.lower() not in known:
            raise SpecError(
                "UnknownClass",
                f"{field}.{OBJECT_VARIABLE}[{number}]: {value!r} is not a class; add it to "
                f"spec.classes, or to the synonyms of a class (classes: {listed([c.name for c in spec.classes])}).",
            )


def check_weights(spec: LabeledDatasetSpec, templates: Sequence[Template]) -> None:
    """Raise `SpecError` naming the field if weights cannot be read; tries each of `templates` with every value."""
    for number, template in combined(spec, templates):
        field = field_of(spec, number)
        check_length(spec, _longest(spec, template), field)
        for prompt in tried(template, spec.prompts.variables):
            read_weights(spec, prompt, field)  # with `zip`, its values may not be used together
    read_prompt(spec, spec.prompts.negative, "spec.prompts.negative")


def _longest(spec: LabeledDatasetSpec, template: Template) -> str:
    """Return the longest prompt of a template, in bytes; with `sample`, it may be one that is not chosen."""

    def size(text: str) -> int:
        return len(text.encode(errors="replace"))

    variables = spec.prompts.variables
    names = names_of(template)
    if spec.prompts.combine == "zip" and names:
        rows = zip(*(variables[name] for name in names), strict=True)
        return max((template.render(dict(zip(names, row, strict=True))) for row in rows), key=size)
    return template.render({name: max(variables[name], key=size) for name in names})


def tried(template: Template, values: Mapping[str, list[str]]) -> Iterator[str]:
    """Yield prompts that together have every value of every field."""
    return (template.render(variables) for variables in _tried(template, values))


def asked_for(spec: LabeledDatasetSpec, templates: Sequence[Template], rows: PromptRows | None) -> Iterator[Filled]:
    """Yield some of the prompts that the spec asks for, template by template, then those of the file's first rows.

    If it asks for all combinations, the prompts have every value; otherwise there are at most `MOST_ASKED_FOR`.
    """
    asked = spec.prompts
    for number, template in combined(spec, templates):
        if asked.combine == "product" and asked.sample is None:
            some = _tried(template, asked.variables)
        else:
            some = islice(_combinations(spec, template), MOST_ASKED_FOR)
        for variables in some:
            yield Filled(number, template, variables, template.render(variables))
    for row in islice(rows.examples if rows is not None else (), MOST_ASKED_FOR):
        yield from row_prompts(row, templates)


def _tried(template: Template, values: Mapping[str, list[str]]) -> Iterator[dict[str, str]]:
    names = names_of(template)
    first = {name: values[name][0] for name in names if values[name]}
    changes = [{name: value} for name in names for value in values[name]]
    return ({**first, **change} for change in changes or [{}])


def names_of(template: Template) -> tuple[str, ...]:
    """Return the variables that a template names, each once."""
    return tuple(dict.fromkeys(template.fields))


def prompts_of(spec: LabeledDatasetSpec, templates: Sequence[Template], rows: PromptRows | None) -> Iterator[Filled]:
    """Yield each prompt once, template by template, in the order in which the variables are written, then by row."""
    seen: set[bytes] = set()
    for filled in _all_prompts(spec, templates, rows):
        fingerprint = hashlib.sha256(filled.prompt.encode()).digest()[:16]
        if fingerprint not in seen:
            seen.add(fingerprint)
            yield filled


def _all_prompts(spec: LabeledDatasetSpec, templates: Sequence[Template], rows: PromptRows | None) -> Iterator[Filled]:
    for number, template in combined(spec, templates):
        for variables in _combinations(spec, template):
            yield Filled(number, template, variables, template.render(variables))
    for row in rows.read() if rows is not None else ():
        yield from row_prompts(row, templates)


def _combinations(spec: LabeledDatasetSpec, template: Template) -> Iterator[dict[str, str]]:
    """Yield the values that fill a template; with `sample`, the template's text decides which ones are chosen."""
    asked = spec.prompts
    origin = canonical(["combinations", spec.seed, template.text])
    return combinations(names_of(template), asked.variables, asked.combine, sample=asked.sample, origin=origin)
