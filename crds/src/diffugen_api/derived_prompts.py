"""What img2img and inpaint make of a picture's prompt: pure, one source at a time.

img2img fills the source's template anew with the changed variables. inpaint writes the replacement where the prompt
names the class, in the values of the variables or in the template's own text, or fills a template of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from diffugen_api.combinations import combinations
from diffugen_api.errors import SpecError
from diffugen_api.prompt_reading import read_prompt
from diffugen_api.prompt_weights import Prompt, plain
from diffugen_api.prompts import OBJECT_VARIABLE, names_of, parsed
from diffugen_api.templates import Template
from diffugen_api.v1alpha1 import Img2Img, Inpaint, LabeledDatasetSpec
from diffugen_api.words import Vocabulary, mentions


@dataclass(frozen=True, slots=True)
class Draft:
    """A prompt, and what further ones are made from."""

    template: Template
    variables: Mapping[str, str]
    words: Mapping[str, tuple[str, ...]]
    """What objects of a class are called besides the class's own words."""
    replaced: str = ""
    """The class whose objects this prompt replaces."""

    @property
    def prompt(self) -> str:
        """The prompt as it is written, weights and all."""
        return self.template.render(self.variables)


class Redrawing:
    """img2img: the prompts that changed variables make of a source's."""

    def __init__(self, task: Img2Img) -> None:
        """Change the variables of `task`."""
        self._task = task

    def of(self, source: Draft, read: Prompt) -> Iterator[Draft]:
        """Yield what becomes of `source`, whose prompt is `read`; its own combination is skipped."""
        names = [name for name in names_of(source.template) if name in self._task.variables]
        seen = {source.prompt}
        for values in combinations(names, self._task.variables, "product") if names else ():
            draft = replace(source, variables={**source.variables, **values}, replaced="")
            if (prompt := draft.prompt) not in seen:
                seen.add(prompt)
                yield draft


class Replacing:
    """inpaint: the prompts that name replacements where a source's names a class."""

    def __init__(self, spec: LabeledDatasetSpec, task: Inpaint, field: str) -> None:
        """Replace what `task`, which stands at `field` of the spec, says; raise `SpecError` for its template."""
        self._spec = spec
        self._task = task
        self._field = f"{field}.template"
        self._template = parsed(task.template, self._field) if task.template is not None else None

    def of(self, source: Draft, read: Prompt) -> Iterator[Draft]:
        """Yield what becomes of `source`, whose prompt is `read`; classes that it does not name are skipped.

        Raises `SpecError` where the template does not name what else the picture shows.
        """
        vocabulary = vocabulary_of(self._spec, source.words)
        named = {mention.name for mention in mentions(plain(read), vocabulary)}
        for name, texts in self._task.replacements.items():
            for text in texts if name in named else ():
                draft = self._replaced(source, read, name, text, vocabulary)
                if self._template is not None:
                    self._check_complete(draft, named, read)
                yield draft

    def words(self, source: Mapping[str, tuple[str, ...]], name: str, text: str) -> Mapping[str, tuple[str, ...]]:
        """Return what objects are called once `text` stands for class `name`: a text of another class is that one's."""
        word = plain(read_prompt(self._spec, text, "replacement")).strip()
        if {mention.name for mention in mentions(word, vocabulary_of(self._spec, {}))} - {name}:
            return source
        return {**source, name: tuple(dict.fromkeys((*source.get(name, ()), word)))}

    def _replaced(self, source: Draft, read: Prompt, name: str, text: str, vocabulary: Vocabulary) -> Draft:
        def put(into: str) -> str:
            return _replaced(into, vocabulary, name, text)

        words = self.words(source.words, name, text)
        variables = {field: put(value) for field, value in source.variables.items()}
        if self._template is not None:
            given = {**variables, OBJECT_VARIABLE: text}
            return Draft(self._template, {field: given[field] for field in names_of(self._template)}, words, name)
        template = replace(source.template, literals=tuple(put(literal) for literal in source.template.literals))
        draft = Draft(template, variables, words, name)
        if draft.prompt != source.prompt:
            return draft
        # the class's words stand partly in a value and partly around it
        whole = put(source.prompt)
        literal = whole if whole != source.prompt else put(plain(read))
        return Draft(Template(literal, (literal,), ()), {}, words, name)

    def _check_complete(self, draft: Draft, shown: set[str], source: Prompt) -> None:
        """Raise `SpecError` where the template leaves out a class that stays in the picture beside the mask.

        `shown` are the classes that the source's prompt, `source`, names.
        """
        text = draft.prompt
        now = vocabulary_of(self._spec, draft.words)
        kept = {mention.name for mention in mentions(plain(read_prompt(self._spec, text, self._field)), now)}
        if lost := sorted(shown - kept - {draft.replaced}):
            raise SpecError(
                "ObjectLeftOut",
                f"{self._field}: {text!r} does not name {', '.join(lost)}, and the picture of {plain(source)!r} keeps "
                f"what it shows beside the {draft.replaced}, without a label then; name it in the template, or remove "
                "the template: the source's prompt is taken then.",
            )


def vocabulary_of(spec: LabeledDatasetSpec, words: Mapping[str, tuple[str, ...]]) -> Vocabulary:
    """Return the words that name classes in a prompt in which they are called `words` besides."""
    return Vocabulary({c.name: c.words for c in spec.classes}).called(words)


def _replaced(text: str, vocabulary: Vocabulary, name: str, by: str) -> str:
    """Return `text` with `by` wherever it names the class `name`."""
    out, at = "", 0
    for mention in mentions(text, vocabulary):
        if mention.name == name:
            out += text[at : mention.begin] + by
            at = mention.end
    return out + text[at:]
