"""Reads prompts with weights into one form: pieces of text, each with its weight.

Two syntaxes are in use, and many prompts have neither. `auto` finds the syntax by marks that plain text does not have.

    compel    ball++   ball-   (a red ball)1.3   (a ball)++   "a ball"--      + is 1.1, - is 0.9, again and again
    A1111     (a ball:1.3)   (ball) is 1.1   ((ball)) is 1.21   [ball] is 1/1.1

compel's marks are + or - after a word, or + or - or a number after a closing parenthesis, before a space, a
punctuation mark or the end. A1111's mark is `:number)`; without any mark of compel, also `((` and `[…]`. Both syntaxes
in one prompt are an error. Without any mark a prompt is plain text, including its parentheses. A backslash before one
of \\ ( ) [ ] + - : " makes it a plain character in both syntaxes: `c\\+\\+` is the language. Nested weights multiply.
The time is linear in the length of a prompt: no pattern reads a run of characters once for each of its starts, and
groups are nested at most `MOST_NESTED` deep.

Sources: https://github.com/damian0815/compel (doc/syntax.md),
https://github.com/AUTOMATIC1111/stable-diffusion-webui (modules/prompt_parser.py, parse_prompt_attention).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, Literal, NamedTuple

Syntax = Literal["auto", "compel", "a1111", "none"]

MOST: Final = 4.0
"""The largest weight. Images degrade from about 2 on, and `(at 10:30)` is a time, not a weight."""
MOST_NESTED: Final = 64
"""The most parentheses and brackets within one another."""
PLUS, MINUS, ROUND, SQUARE = 1.1, 0.9, 1.1, 1 / 1.1


class Piece(NamedTuple):
    """A piece of a prompt, and its weight."""

    text: str
    weight: float
    """1 changes nothing; 0 has the effect that the piece is missing."""


Prompt = str | tuple[Piece, ...]
"""A plain text, or its pieces with weights."""


class WeightError(ValueError):
    """A prompt whose weights cannot be read; the message names the error and the fix."""


def pieces_of(prompt: Prompt) -> tuple[Piece, ...]:
    """Return a prompt's pieces: a plain text is one piece of weight 1."""
    return (Piece(prompt, 1.0),) if isinstance(prompt, str) else prompt


def plain(prompt: Prompt) -> str:
    """Return a prompt's text without the marks of weights."""
    return prompt if isinstance(prompt, str) else "".join(piece.text for piece in prompt)


def unweighted(prompt: Prompt) -> Prompt:
    """Return a prompt in the same pieces, so that it has the same tokens, all of weight 1."""
    return prompt if isinstance(prompt, str) else tuple(Piece(piece.text, 1.0) for piece in prompt)


def read(text: str, syntax: Syntax = "auto") -> Prompt:
    """Return `text` itself if it is plain, else its pieces with their weights; raise `WeightError`."""
    if syntax == "none" or not (_SIGN.search(text) and _SUSPECT.search(text)):
        return text
    pieces = tuple(_fused(_READERS[_syntax_of(text) if syntax == "auto" else syntax](text)))
    for piece in pieces:
        if not 0 <= piece.weight <= MOST:
            raise WeightError(
                f"the weight {piece.weight:g} of {piece.text.strip()!r} is not between 0 and {MOST:g}; change it, or "
                "put a backslash before the sign that is not a weight"
            )
    return text if pieces == (Piece(text, 1.0),) else pieces


_NUMBER = r"(?:\d+(?:\.\d+)?|\.\d+)"
_END = r"(?=[\s,.;:!?)\]\"']|$)"
_ESCAPE = r"\\[\\()\[\]+\-:\"]"
_SIGNS = rf"(?:\+++|-++){_END}"
_NEW_SIGNS = rf"(?:(?:(?<!\+)|(?<=\\\+))\+++|(?:(?<!-)|(?<=\\-))-++){_END}"
"""Signs that do not begin within other signs: those cannot match where these do not."""
_CHANGE = rf"(?:\+++|-++|{_NUMBER}){_END}"

_SIGN = re.compile(r"[()\[\]\\\"+\-]")
_SUSPECT = re.compile(rf"[()\[\]\\\"]|[^\s+\-]{_SIGNS}")
"""Matches in every text with a weight or an escape; most texts do not match and are not parsed further."""
_COMPEL_MARK = re.compile(rf"(?<!\\)\){_CHANGE}|\"{_CHANGE}|(?:{_ESCAPE}|[^\s\\()\[\]\"+\-]){_SIGNS}")
_A1111_MARK = re.compile(r"(?<!\\):\s*[+-]?[\d.,]+\s*\)")
_A1111_WEAK_MARK = re.compile(r"(?<!\\)(?:\(\(|\[[^\[\]]*\])")

_COMPEL = re.compile(
    rf"(?P<escape>{_ESCAPE})|(?P<open>\()|(?P<close>\))(?P<change>{_CHANGE})?"
    rf"|\"(?P<quoted>(?:\\.|[^\"\\])*)\"(?P<quoted_change>{_CHANGE})"
    rf"|(?P<word>(?![+\-])(?:{_ESCAPE}|[^\s()\\,\"])+?)(?P<word_change>{_NEW_SIGNS})"
    rf"|(?P<run>(?:{_ESCAPE}|[^\s()\\,\"])+)|(?P<other>[\s\S])"  # a word without a weight is read in one match
)
_COMPEL_FUNCTION = re.compile(r"\)\s*\.(blend|and|add|swap|attend)\(")
_A1111 = re.compile(
    rf"(?P<escape>{_ESCAPE})|(?P<open>[(\[])|:\s*+(?=[^\s()\[\]:\d]*+\d)(?P<number>[^\s()\[\]:]++)\s*+\)"
    r"|(?P<close>[)\]])"
    r"|(?P<other>[\s\S])"
)
_PLAIN = re.compile(rf"(?P<escape>{_ESCAPE})|(?P<other>[\s\S])")


def _syntax_of(text: str) -> Literal["compel", "a1111", "plain"]:
    compel, a1111 = _COMPEL_MARK.search(text), _A1111_MARK.search(text)
    if compel and a1111:
        raise WeightError(
            f"it has weights of compel ({compel.group()!r}) and of A1111 ({a1111.group()!r}); use one of them, set "
            "it in spec.prompts.syntax, or put a backslash before the sign that is not a weight"
        )
    if compel:
        return "compel"
    return "a1111" if a1111 or _A1111_WEAK_MARK.search(text) else "plain"


def _read_plain(text: str) -> Iterator[Piece]:
    yield Piece("".join(match.group()[-1] for match in _PLAIN.finditer(text)), 1.0)


def _read_compel(text: str) -> Iterator[Piece]:
    if function := _COMPEL_FUNCTION.search(text):
        raise WeightError(
            f"compel's .{function.group(1)}() is not supported; write a template for each, or \\( for the parenthesis"
        )
    groups = _Groups()
    for match in _COMPEL.finditer(text):
        if match["open"]:
            groups.open("(", match.start())
        elif match["close"]:
            groups.close("(", match.start(), _factor(match["change"]))
        elif match["quoted"] is not None:
            groups.add(_read_compel(match["quoted"]), _factor(match["quoted_change"]))
        elif match["word"]:
            groups.add(_read_plain(match["word"]), _factor(match["word_change"]))
        elif match["run"]:
            groups.add_text(plain(tuple(_read_plain(match["run"]))))
        else:
            groups.add_text(match.group()[-1])
    return groups.finish()


def _factor(change: str | None) -> float:
    """Return the factor of compel's `++`, `-` or `1.3`."""
    if not change:
        return 1.0
    if change[0] in "+-":
        return (PLUS if change[0] == "+" else MINUS) ** len(change)
    return float(change)


def _read_a1111(text: str) -> Iterator[Piece]:
    groups = _Groups()
    for match in _A1111.finditer(text):
        if match["open"]:
            groups.open(match["open"], match.start())
        elif match["number"]:
            groups.close("(", match.end() - 1, _number(match["number"]))
        elif match["close"]:
            groups.close(
                "(" if match["close"] == ")" else "[", match.start(), ROUND if match["close"] == ")" else SQUARE
            )
        elif match.group() in (":", "|") and groups.within == "[":
            raise WeightError(
                "A1111's [from:to:when] and [one|other] change a prompt while it is drawn, which is not supported; "
                "write a template for each, or \\[ for the bracket itself"
            )
        else:
            groups.add_text(match.group()[-1])
    return groups.finish()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise WeightError(
            f"{text!r} is not a weight; write a number such as 1.3, or \\: for the colon itself"
        ) from None


_READERS = {"compel": _read_compel, "a1111": _read_a1111, "plain": _read_plain}


class _Groups:
    """Open parentheses and brackets, with the pieces that were read in each."""

    def __init__(self) -> None:
        self._open: list[tuple[str, int, list[Piece]]] = [("", 0, [])]
        self._said: list[str] = []

    @property
    def within(self) -> str:
        """The innermost open sign; empty at the top."""
        return self._open[-1][0]

    def add_text(self, text: str) -> None:
        self._said.append(text)

    def add(self, pieces: Iterable[Piece], factor: float) -> None:
        self._settle()
        self._open[-1][2].extend(Piece(piece.text, piece.weight * factor) for piece in pieces)

    def open(self, sign: str, at: int) -> None:
        self._settle()
        if len(self._open) > MOST_NESTED:
            raise WeightError(
                f"the {sign!r} at character {at + 1} is within {MOST_NESTED} others; nest fewer, or write \\{sign} for "
                "the sign itself"
            )
        self._open.append((sign, at, []))

    def close(self, sign: str, at: int, factor: float) -> None:
        if self.within != sign:
            other = ")" if sign == "(" else "]"
            raise WeightError(
                f"the {other!r} at character {at + 1} closes nothing; open it, or write \\{other} for the sign itself"
            )
        self._settle()
        _, _, pieces = self._open.pop()
        self.add(pieces, factor)

    def finish(self) -> Iterator[Piece]:
        if self.within:
            sign, at, _ = self._open[-1]
            raise WeightError(
                f"the {sign!r} at character {at + 1} is not closed; close it, or write \\{sign} for the sign itself"
            )
        self._settle()
        return iter(self._open[0][2])

    def _settle(self) -> None:
        if self._said:
            self._open[-1][2].append(Piece("".join(self._said), 1.0))
            self._said.clear()


def _fused(pieces: Iterable[Piece]) -> list[Piece]:
    """Join adjacent pieces of the same weight; a space is inserted where two words would be joined to one."""
    fused: list[tuple[list[str], float]] = []
    last = ""
    for text, exact in pieces:
        if not text:
            continue
        weight = round(exact, 6)
        if not fused or fused[-1][1] != weight:
            fused.append(([], weight))
        if last.isalnum() and text[0].isalnum():
            fused[-1][0].append(" ")
        fused[-1][0].append(text)
        last = text[-1]
    return [Piece("".join(texts), weight) for texts, weight in fused] or [Piece("", 1.0)]
