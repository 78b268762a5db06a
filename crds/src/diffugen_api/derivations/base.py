"""What a derivation works on, and what it must offer: prompts one by one, and sample families as a whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from diffugen_api.prompt_weights import Prompt
from diffugen_api.templates import Template
from diffugen_api.v1alpha1 import LabeledDatasetSpec, tokens_of
from diffugen_api.words import Vocabulary


@dataclass(frozen=True, slots=True)
class Draft:
    """A prompt, with what further prompts are derived from."""

    template: Template
    variables: Mapping[str, str]
    words: Mapping[str, tuple[str, ...]]
    """The words that mean a class in this prompt, besides the class's own words."""
    replaced: str = ""
    """The class whose objects this prompt replaces."""

    @property
    def prompt(self) -> str:
        """The prompt as written, with its weights."""
        return self.template.render(self.variables)


@dataclass(frozen=True, slots=True)
class SampleFamily:
    """The images that one template, or the prompts of one file, make in one stage."""

    template: Template
    values: Mapping[str, list[str]]
    """All values of each field."""
    words: Mapping[str, tuple[str, ...]]
    """All words that mean a class, besides the class's own words."""
    most: int
    """An upper bound of the number of images."""
    texts: tuple[str, ...] = ()
    """Prompts of a file, as the file has them; `template` is empty then."""
    complete: bool = True
    """Whether `values` and `texts` have everything that the file has."""


class Derivation(ABC):
    """How the prompts of one stage follow from those of its source."""

    tries_prompts: ClassVar[bool] = False
    """Whether `of` can raise where `families` does not, so that the plan tries it with some prompts first."""

    @abstractmethod
    def of(self, source: Draft, read: Prompt) -> Iterator[Draft]:
        """Yield the prompts that follow from `source`; `read` is its prompt, with the weights read.

        Raises `SpecError` naming the field where a prompt cannot be derived.
        """

    @abstractmethod
    def families(self, sources: Sequence[SampleFamily]) -> list[SampleFamily]:
        """Return the stage's sample families; `sources` are those of its source.

        Raises `SpecError` naming the field where the stage cannot work.
        """


def vocabulary_of(spec: LabeledDatasetSpec, words: Mapping[str, Sequence[str]]) -> Vocabulary:
    """Return the words that name classes in a prompt, in which `words` name them, too."""
    return vocabulary(spec).called(words)


def vocabulary(spec: LabeledDatasetSpec, background: Sequence[str] = ()) -> Vocabulary:
    """Return the words of a spec's classes, and its tokens of textual inversion."""
    return Vocabulary({c.name: c.words for c in spec.classes}, background, tokens_of(spec.stages))
