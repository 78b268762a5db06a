"""inpaint: a replacement's text takes the place of the words for its class.

The words are replaced in the values of the variables and in the template's own text. A stage with a template of its own
fills that one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from diffugen_api.derivations.base import Derivation, Draft, SampleFamily, vocabulary_of
from diffugen_api.errors import SpecError
from diffugen_api.prompt_reading import read_prompt
from diffugen_api.prompt_weights import Prompt, plain
from diffugen_api.prompts import OBJECT_VARIABLE, names_of, parsed, tried
from diffugen_api.templates import Template
from diffugen_api.v1alpha1 import Inpaint, LabeledDatasetSpec
from diffugen_api.words import Vocabulary, mentions

Words = tuple[tuple[str, tuple[str, ...]], ...]
"""Words that mean classes in a prompt, by class: the items of `Draft.words`."""

_MOST_VOCABULARIES = 1000
"""Vocabularies that are kept: bounds the memory of stages with many replacements."""


class Replacements(Derivation):
    """The prompts that an inpaint stage derives."""

    tries_prompts: ClassVar[bool] = True

    def __init__(self, spec: LabeledDatasetSpec, task: Inpaint, field: str) -> None:
        """Derive the prompts of `task`, the value of `field` in the spec; raise `SpecError` for its template."""
        self._spec = spec
        self._task = task
        self._field = field
        self._classes = vocabulary_of(spec, {})
        self._vocabularies: dict[Words, Vocabulary] = {}
        self._template = parsed(task.template, f"{field}.template") if task.template is not None else None

    def of(self, source: Draft, read: Prompt) -> Iterator[Draft]:
        """Yield a prompt for each replacement of a class that the source's prompt names.

        Raises `SpecError` where the template leaves out something else that the image shows.
        """
        vocabulary = self._vocabulary(source.words)
        named = {mention.name for mention in mentions(plain(read), vocabulary)}
        for name, texts in self._task.replacements.items():
            for text in texts if name in named else ():
                draft = self._replaced(source, read, name, text, vocabulary)
                if self._template is not None:
                    self._check_complete(draft, named, read)
                yield draft

    def families(self, sources: Sequence[SampleFamily]) -> list[SampleFamily]:
        """Return the families of the source's templates that can name a class with replacements."""
        named = [self._named_classes(family) for family in sources]
        for name in self._task.replacements:
            if all(family.complete for family in sources) and not any(name in classes for classes in named):
                raise SpecError(
                    "NothingToReplace",
                    f"{self._field}.replacements.{name}: no prompt of stage {self._task.source!r} names the class "
                    f"{name!r}, so no label of it can become a mask; name it in a prompt, or remove it here.",
                )
        made = (self._family(family, classes) for family, classes in zip(sources, named, strict=True))
        return [family for family in made if family is not None]

    def _named_classes(self, family: SampleFamily) -> set[str]:
        """Return the classes that a family's prompts can name."""
        words = self._classes.called(family.words)
        return {mention.name for text in texts_of(self._spec, family) for mention in mentions(text, words)}

    def _family(self, source: SampleFamily, classes: set[str]) -> SampleFamily | None:
        """Return the family that a source's makes, which can name `classes`; None where nothing is replaced in it."""
        template = self._template
        if template is not None:
            self._check_fields(template, source)
        words, texts = source.words, []
        for name, given in self._task.replacements.items():
            for text in given if name in classes or not source.complete else ():
                read_prompt(self._spec, text, f"{self._field}.replacements.{name}")
                texts.append(text)
                words = self._words(words, name, text)
        if not texts:
            return None
        own = template or source.template
        values = {name: [*source.values.get(name, []), *texts] for name in names_of(own)}
        if template is not None:
            values = {name: texts if name == OBJECT_VARIABLE else source.values[name] for name in names_of(own)}
        for prompt in tried(own, values):
            read_prompt(self._spec, prompt, f"{self._field}.{'replacements' if template is None else 'template'}")
        most = source.most * len(texts)
        if template is None:
            return replace(source, values=values, words=words, most=most)
        return SampleFamily(own, values, words, most, complete=source.complete)

    def _check_fields(self, template: Template, source: SampleFamily) -> None:
        """Raise `SpecError` where the stage's template has a field that the source's images lack."""
        known = {OBJECT_VARIABLE, *names_of(source.template)}
        if missing := next((name for name in names_of(template) if name not in known), ""):
            prompt = source.texts[0] if source.texts else source.template.text
            raise SpecError(
                "UnknownVariable",
                f"{self._field}.template: it has the field {{{missing}}}, but the prompt {prompt!r} of "
                f"stage {self._task.source!r} does not; use {{{OBJECT_VARIABLE}}} and fields that all of its prompts "
                "have.",
            )

    def _vocabulary(self, words: Mapping[str, tuple[str, ...]]) -> Vocabulary:
        """Return the words that name classes, `words` among them; the vocabularies of few `words` serve all prompts."""
        if not words:
            return self._classes
        key = tuple(words.items())
        if (found := self._vocabularies.get(key)) is None:
            if len(self._vocabularies) >= _MOST_VOCABULARIES:
                self._vocabularies.clear()
            found = self._vocabularies[key] = self._classes.called(words)
        return found

    def _words(self, source: Mapping[str, tuple[str, ...]], name: str, text: str) -> Mapping[str, tuple[str, ...]]:
        """Return the words of the classes once `text` replaces class `name`; a text that names another class is its."""
        word = plain(read_prompt(self._spec, text, "replacement")).strip()
        if {mention.name for mention in mentions(word, self._classes)} - {name}:
            return source
        return {**source, name: tuple(dict.fromkeys((*source.get(name, ()), word)))}

    def _replaced(self, source: Draft, read: Prompt, name: str, text: str, vocabulary: Vocabulary) -> Draft:
        def put(into: str) -> str:
            return _replaced(into, vocabulary, name, text)

        words = self._words(source.words, name, text)
        variables = {field: put(value) for field, value in source.variables.items()}
        if self._template is not None:
            given = {**variables, OBJECT_VARIABLE: text}
            return Draft(self._template, {field: given[field] for field in names_of(self._template)}, words, name)
        template = replace(source.template, literals=tuple(put(literal) for literal in source.template.literals))
        draft = Draft(template, variables, words, name)
        whole = put(source.prompt)
        # A value can be a part of a token: in `<{object}-accident>` it names no class.
        if draft.prompt != source.prompt and (not vocabulary.tokens or draft.prompt == whole):
            return draft
        # the words for the class are partly in a value and partly around it
        literal = whole if whole != source.prompt else put(plain(read))
        return Draft(Template(literal, (literal,), ()), {}, words, name)

    def _check_complete(self, draft: Draft, shown: set[str], source: Prompt) -> None:
        """Raise `SpecError` where the template leaves out a class that stays in the image outside the mask.

        `shown` are the classes that the source's prompt, `source`, names.
        """
        field, text = f"{self._field}.template", draft.prompt
        now = self._vocabulary(draft.words)
        kept = {mention.name for mention in mentions(plain(read_prompt(self._spec, text, field)), now)}
        if lost := sorted(shown - kept - {draft.replaced}):
            raise SpecError(
                "ObjectLeftOut",
                f"{field}: {text!r} does not name {', '.join(lost)}, and the image of {plain(source)!r} shows that "
                "outside the mask, where it would have no label; name it in the template, or remove the template to "
                "use the source's prompt.",
            )


def texts_of(spec: LabeledDatasetSpec, family: SampleFamily) -> Iterator[str]:
    """Yield prompts of a family that have every value once, then the text of its template between the fields."""
    for text in family.texts:
        yield plain(read_prompt(spec, text, "spec.prompts"))
    for prompt in tried(family.template, family.values):
        yield plain(read_prompt(spec, prompt, "spec.prompts"))
    yield from family.template.literals


def _replaced(text: str, vocabulary: Vocabulary, name: str, by: str) -> str:
    """Return `text` with `by` wherever it names the class `name`."""
    out, at = "", 0
    for mention in mentions(text, vocabulary):
        if mention.name == name:
            out += text[at : mention.begin] + by
            at = mention.end
    return out + text[at:]
