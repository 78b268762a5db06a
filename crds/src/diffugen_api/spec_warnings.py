"""Warnings: valid parts of a spec that have no effect, or another one than their author thinks. They are never faults.

A warning is one sentence, `FIELD: what, and the fix`. There is one for each kind of mistake and field, which names a
few places and counts the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from diffugen_api.derivations.base import SampleFamily, vocabulary
from diffugen_api.derivations.inpaint import texts_of
from diffugen_api.prompt_reading import read_prompt
from diffugen_api.prompt_rows import PromptRows
from diffugen_api.prompt_weights import plain
from diffugen_api.prompts import combined, field_of, tried
from diffugen_api.templates import Template
from diffugen_api.v1alpha1 import LabeledDatasetSpec, ObjectClass, embeddings_of
from diffugen_api.words import Vocabulary, mentions

MOST_TEXTS: Final = 20_000
"""The most prompts that are searched for words; if there are more, what they do not name is not reported."""
_SHOWN: Final = 8
"""The most names in one warning."""
_WIDE: Final = 60
"""The most characters of a quotation."""

_SYNTAX: Final[Sequence[tuple[re.Pattern[str], str]]] = (
    (re.compile(r"<hypernet(?:work)?:[^<>\s]*>", re.IGNORECASE), "A1111's <hypernet:…> loads nothing here"),
    (re.compile(r"(?<!\w)BREAK(?!\w)"), "A1111's BREAK divides nothing here; a long prompt is divided by itself"),
    (re.compile(r"(?<!\w)AND(?!\w)"), "A1111's AND combines no prompts here; write a template for each"),
    (
        re.compile(r"\)\s*\.(?:blend|and|add|swap|attend)\("),
        "compel's functions are not supported; write a template for each",
    ),
    (
        re.compile(r"(?<!\w)__[A-Za-z0-9][\w/.*-]*?__(?!\w)"),
        "wildcards are not read; write a variable with the words as its values",
    ),
    (
        re.compile(r"(?<!\\)\{[^{}]*\|[^{}]*\}"),
        "dynamic prompts are not read; write a variable with the words as its values",
    ),
)
_PARENTHESES: Final = re.compile(r"\\.|[()\[\]]", re.DOTALL)

_IRREGULAR: Final[Mapping[str, str]] = {
    "child": "children", "foot": "feet", "goose": "geese", "knife": "knives", "leaf": "leaves", "life": "lives",
    "loaf": "loaves", "man": "men", "mouse": "mice", "person": "people", "scarf": "scarves", "shelf": "shelves",
    "tooth": "teeth", "wife": "wives", "wolf": "wolves", "woman": "women",
}  # fmt: skip

_ENDINGS: Final = frozenset({"child", "man", "person", "woman"})
"""Irregular words that also end others, such as fireman."""
_REGULAR: Final = frozenset({"caiman", "human", "german", "roman", "shaman", "talisman"})


def warnings_of(
    spec: LabeledDatasetSpec,
    templates: Sequence[Template],
    families: Mapping[str, Sequence[SampleFamily]],
    rows: PromptRows | None = None,
) -> list[str]:
    """Return a sentence for each part of a spec that has no effect, or another one than it seems.

    Args:
        spec: the spec.
        templates: its parsed templates.
        families: the sample families of each stage.
        rows: the rows of its prompts file.
    """
    found = [*_unused_variables(spec, templates), *_read_as_text(spec, templates, rows), *_words_in_tokens(spec)]
    found += rows.warnings if rows is not None else ()
    return [*found, *_unnamed(spec, [family for some in families.values() for family in some])]


def plurals_of(word: str) -> list[str]:
    """Return the English plurals that a word may have; none if it seems to be one, or is not of ASCII letters."""
    head, space, last = word.rpartition(" ")
    lower = last.lower()
    if not (last.isascii() and last.isalpha()) or len(last) < 2:
        return []
    for singular, plural in _IRREGULAR.items():
        if lower == singular or (singular in _ENDINGS and lower.endswith(singular) and lower not in _REGULAR):
            return [f"{head}{space}{last[: len(last) - len(singular)]}{plural}"]
    if lower.endswith(("s", "x", "z", "ch", "sh")):
        endings = [f"{last}es"]
    elif lower.endswith("y") and lower[-2] not in "aeiou":
        endings = [f"{last[:-1]}ies"]
    elif lower.endswith("o"):
        endings = [f"{last}s", f"{last}es"]
    else:
        endings = [f"{last}s"]
    return [f"{head}{space}{each}" for each in endings]


def _unused_variables(spec: LabeledDatasetSpec, templates: Sequence[Template]) -> Iterator[str]:
    used = {name for template in templates for name in template.fields}
    for name in spec.prompts.variables:
        if name not in used:
            yield (
                f"spec.prompts.variables.{name}: no template has the field {{{name}}}, so its values are not used; "
                f"write {{{name}}} into a template, or remove the variable."
            )


def _read_as_text(spec: LabeledDatasetSpec, templates: Sequence[Template], rows: PromptRows | None) -> Iterator[str]:
    """Yield a warning for each kind of syntax that the prompts have, and that is drawn as text."""
    unclosed = spec.prompts.syntax == "auto"
    seen: set[str] = set()
    for field, text in islice(_texts(spec, templates, rows), MOST_TEXTS):
        for pattern, why in _SYNTAX:
            if why not in seen and (match := pattern.search(text)):
                seen.add(why)
                yield f"{field}: {_quoted(match.group())} is drawn as text: {why}; remove it."
        if unclosed and "unclosed" not in seen and (sign := _unclosed(text)):
            seen.add("unclosed")
            yield (
                f"{field}: the {sign!r} in {_quoted(text)} is not closed, so it is drawn as text and changes no "
                f"weight; close it, or write \\{sign} for the sign itself."
            )


def _texts(
    spec: LabeledDatasetSpec, templates: Sequence[Template], rows: PromptRows | None
) -> Iterator[tuple[str, str]]:
    """Yield texts that are drawn, each with its field."""
    yield "spec.prompts.negative", spec.prompts.negative
    for number, template in combined(spec, templates):
        for prompt in tried(template, spec.prompts.variables):
            yield field_of(spec, number), prompt
    for number, stage in enumerate(spec.stages):
        field = f"spec.stages[{number}].{stage.kind}"
        if stage.img2img is not None:
            for name, values in stage.img2img.variables.items():
                yield from ((f"{field}.variables.{name}[{place}]", value) for place, value in enumerate(values))
        if stage.inpaint is not None:
            if stage.inpaint.template is not None:
                yield f"{field}.template", stage.inpaint.template
            for name, texts in stage.inpaint.replacements.items():
                yield from ((f"{field}.replacements.{name}[{place}]", text) for place, text in enumerate(texts))
    for row in rows.examples if rows is not None else ():
        yield from (("spec.prompts.file", text) for text in (row.prompt, *row.values.values()) if text)


def _unclosed(text: str) -> str:
    """Return the last sign that a text opens and does not close; empty if there is none, or if it closes too many."""
    opened: list[str] = []
    for match in _PARENTHESES.finditer(text):
        sign = match.group()
        if sign in {"(", "["}:
            opened.append(sign)
        elif sign in {")", "]"}:
            if not opened:
                return ""
            opened.pop()
    return opened[-1] if opened else ""


def _words_in_tokens(spec: LabeledDatasetSpec) -> Iterator[str]:
    words = Vocabulary({each.name: each.words for each in spec.classes})
    warned: set[str] = set()
    for stage in spec.stages:
        for field, each in embeddings_of(spec.stages, stage).items() if stage.draws else ():
            token = each.token
            if token.lower() not in warned and (inside := words.words_inside(token)):
                warned.add(token.lower())
                name = inside[0].name
                word = token[inside[0].begin : inside[0].end]
                yield (
                    f"{field}.token: {token!r} contains {word!r}, a word of class {name!r}; the token is one word and "
                    f"names no class. If it shows a {name}, add it to that class's synonyms."
                )


def _unnamed(spec: LabeledDatasetSpec, families: Sequence[SampleFamily]) -> Iterator[str]:
    """Yield a warning each for plurals, for classes and for background words that no prompt names."""
    attention = spec.labeling.attention
    if attention is None:  # a detector labels what no prompt names
        return
    words = vocabulary(spec, attention.background)
    plurals = _plurals(spec.classes, words)
    search = Vocabulary(
        {**words.classes, **{f"{_PLURAL}{plural}": [plural] for plural in plurals}}, words.background, words.tokens
    )
    missing = {each.name for each in spec.classes}
    unseen = set(attention.background)
    found: dict[str, None] = {}
    complete = all(family.complete for family in families)
    seen: set[str] = set()
    for count, (text, known) in enumerate(_family_texts(spec, families, search)):
        if count >= MOST_TEXTS:
            complete = False
            break
        if text in seen:
            continue
        seen.add(text)
        for mention in mentions(text, known):
            if mention.background:
                unseen.discard(mention.name)
            elif mention.name.startswith(_PLURAL):
                found[mention.name.removeprefix(_PLURAL)] = None
            else:
                missing.discard(mention.name)
    for name, some in _by_class(found, plurals).items():
        yield (
            f"spec.prompts: {_listed(some)} {'names' if len(some) == 1 else 'name'} no class, so {name!r} is not "
            f"labeled there; add {_listed(some)} to the synonyms of class {name!r}, or write the singular."
        )
    if complete and missing:
        named = [each.name for each in spec.classes if each.name in missing]
        yield (
            f"spec.classes: no prompt names {_listed(named)}, so {'it has' if len(named) == 1 else 'they have'} no "
            "objects in the dataset; name them in a template or by a synonym, or remove them."
        )
    if complete and unseen:
        unnamed = [word for word in attention.background if word in unseen]
        yield (
            f"spec.labeling.attention.background: no prompt names {_listed(unnamed, quote=False)}; a background word "
            "competes for pixels only in images whose prompt names it."
        )


_PLURAL: Final = "\0"
"""The begin of the name under which a plural is searched for; class names have no such character."""


def _plurals(classes: Iterable[ObjectClass], words: Vocabulary) -> dict[str, str]:
    """Return the class of each plural that is not itself a word of the dataset."""
    taken = {" ".join(word.lower().split()) for some in words.classes.values() for word in some}
    taken |= {word.lower() for word in words.background}
    return {
        plural: each.name
        for each in classes
        for word in each.words
        for plural in plurals_of(word)
        if plural.lower() not in taken
    }


def _by_class(found: Iterable[str], plurals: Mapping[str, str]) -> dict[str, list[str]]:
    by_class: dict[str, list[str]] = {}
    for plural in found:
        by_class.setdefault(plurals[plural], []).append(plural)
    return by_class


def _family_texts(
    spec: LabeledDatasetSpec, families: Iterable[SampleFamily], search: Vocabulary
) -> Iterator[tuple[str, Vocabulary]]:
    """Yield the prompts of families, and the texts that replace objects, with the words that name classes in them."""
    for family in families:
        known = search.called(family.words)
        yield from ((text, known) for text in texts_of(spec, family))
    classes = vocabulary(spec)
    for stage in spec.stages:
        for name, texts in stage.inpaint.replacements.items() if stage.inpaint is not None else ():
            for text in texts:
                word = plain(read_prompt(spec, text, "replacements")).strip()
                others = {each.name for each in mentions(word, classes)} - {name}
                yield word, search if others else search.called({name: (word,)})  # as the derivation of inpaint does


def _listed(names: Sequence[str], *, quote: bool = True) -> str:
    shown = ", ".join(_quoted(name) if quote else name for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN:,} more"


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _WIDE else f"{text[:_WIDE]}…")
