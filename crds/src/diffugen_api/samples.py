"""Samples: one image each, and their form in shards and recipes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from diffugen_api.prompt_weights import Piece, Prompt


@dataclass(frozen=True, slots=True)
class Source:
    """The sample whose image another one is drawn from."""

    id: str
    replaced: str = ""
    """The class whose labeled objects are replaced in it; empty if the whole image is drawn again."""
    source: Source | None = None
    """The sample that this source was drawn from."""

    def line(self) -> Iterator[Source]:
        """Yield this source, its own source, and so on."""
        here: Source | None = self
        while here is not None:
            yield here
            here = here.source

    def row(self) -> dict[str, Any]:
        """Return the source as JSON data; empty fields are left out."""
        own = {"id": self.id, "replaced": self.replaced, "source": self.source and self.source.row()}
        return {name: value for name, value in own.items() if value}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Source:
        """Read the output of `row`."""
        source = row.get("source")
        return cls(row["id"], row.get("replaced", ""), None if source is None else cls.from_row(source))


@dataclass(frozen=True, slots=True)
class Sample:
    """One image to draw.

    `seed` is in 0..2**63-1. `variables` are those that its template names. `template` is the template's index in
    `spec.prompts`, or the number of templates if the prompt is of a file.
    """

    id: str
    prompt: str
    seed: int
    template: int
    variables: Mapping[str, str]
    pieces: tuple[Piece, ...] = ()
    """The pieces of the prompt, if it has weights or escapes."""
    source: Source | None = None
    """The sample that it is drawn from; None if it is drawn from text alone."""
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Further words for objects of a class in this prompt: the words of the objects that replaced them."""

    @property
    def text(self) -> Prompt:
        """The prompt as it is drawn."""
        return self.pieces or self.prompt

    @property
    def root(self) -> str:
        """The id of the first sample in the chain of sources; its own id if it is drawn from text alone."""
        return self.id if self.source is None else [source.id for source in self.source.line()][-1]

    def row(self) -> dict[str, Any]:
        """Return the sample as a line of a shard."""
        return {
            "id": self.id,
            "prompt": self.prompt,
            "seed": self.seed,
            "template": self.template,
            "variables": dict(self.variables),
            **weights_row(self.pieces),
            **({"source": self.source.row()} if self.source is not None else {}),
            **({"words": {name: list(words) for name, words in self.words.items()}} if self.words else {}),
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Sample:
        """Read a line of a shard."""
        return cls(
            row["id"],
            row["prompt"],
            row["seed"],
            row["template"],
            row["variables"],
            tuple(Piece(text, float(weight)) for text, weight in row.get("weights", ())),
            Source.from_row(row["source"]) if "source" in row else None,
            {name: tuple(words) for name, words in row.get("words", {}).items()},
        )


def weights_row(pieces: tuple[Piece, ...]) -> dict[str, Any]:
    """Return a recipe's entry for the pieces of its prompt; empty for a plain prompt, so that its address stays."""
    return {"weights": [list(piece) for piece in pieces]} if pieces else {}
