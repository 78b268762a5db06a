"""Reads prompts files, line by line: text, JSON lines or CSV, plain or gzip, in UTF-8.

- `.txt`: a line is a prompt. Blank lines are skipped, and lines that are `#` alone or begin with `# `; `#sunset` is a
  prompt.
- `.jsonl`: a line is a JSON object: `prompt`, values of variables by their names, or both. null is no value.
- `.csv`: the first row names the columns, in the same way. An empty cell is no value.

A fault is a `SpecError` that names the field, the file, the line, and the fix.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import json
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

from diffugen_api.errors import SpecError, listed
from diffugen_api.prompt_reading import read_prompt
from diffugen_api.prompt_rows import PromptRow
from diffugen_api.prompts import OBJECT_VARIABLE, Filled, row_prompts
from diffugen_api.templates import Template
from diffugen_api.v1alpha1 import LabeledDatasetSpec

FIELD: Final = "spec.prompts.file"
PROMPT: Final = "prompt"
"""The column of prompts."""
_MOST_LINE: Final = 2 << 20
"""The most bytes of a line."""
_BOM: Final = b"\xef\xbb\xbf"
_OTHER_BOMS: Final = (b"\xff\xfe", b"\xfe\xff")
_SHOWN: Final = 80


@dataclass(frozen=True, slots=True)
class FileRow:
    """A checked row."""

    line: int
    """The number of the line that it ends in, from 1."""
    row: PromptRow
    prompts: tuple[Filled, ...]
    """The prompts that it makes; at least one."""


def rows_of(path: Path, uri: str, spec: LabeledDatasetSpec, templates: list[Template]) -> Iterator[FileRow]:
    """Yield the rows of a file in order; raise `SpecError` at the first broken one.

    Args:
        path: the file on this machine.
        uri: its name in messages; the ending decides its format.
        spec: the spec that names it.
        templates: the spec's parsed templates.
    """
    check = _Checker(uri, spec, templates)
    name = uri.lower()
    zipped = name.endswith(".gz")
    kind = name.removesuffix(".gz").rpartition(".")[2]
    reader = {"txt": _text_rows, "jsonl": _json_rows, "csv": _csv_rows}[kind]
    with path.open("rb") as raw:
        stream = cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if zipped else raw
        try:
            for line, values in reader(_lines(stream, check), check):
                yield check.checked(line, values)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise SpecError(
                "InvalidPrompts", f"{FIELD}: {uri} is no whole gzip file ({error}); copy it again."
            ) from None


class _Checker:
    """Checks the rows of one file."""

    def __init__(self, uri: str, spec: LabeledDatasetSpec, templates: list[Template]) -> None:
        """Check rows of the file `uri`; raise `SpecError` where a template cannot be filled from a file."""
        self.uri, self.spec, self.templates = uri, spec, templates
        fields = dict.fromkeys(name for each in templates for name in each.fields)
        if PROMPT in fields:
            raise SpecError(
                "InvalidTemplate",
                f"spec.prompts.templates: with a file, {{{PROMPT}}} cannot be a variable, as a row's {PROMPT} is its "
                "whole prompt; rename it.",
            )
        self._known = list(dict.fromkeys([PROMPT, *fields, *spec.prompts.variables]))
        self._words = {word.lower(): word for each in spec.classes for word in each.words}

    def fault(self, line: int, what: str, reason: str = "InvalidPrompts") -> SpecError:
        """Return the error of a line; `what` says what is wrong and how to fix it."""
        return SpecError(reason, f"{self.where(line)}: {what}")

    def where(self, line: int) -> str:
        """Return the place of a line, for messages."""
        return f"{FIELD}: {self.uri}, line {line:,}"

    def columns(self, line: int, names: Collection[str]) -> None:
        """Raise `SpecError` where a name is no column."""
        known = self._known
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
                fix = f"did you mean {near[0]!r}?" if near else f"a row may have: {listed(known)}."
                raise self.fault(line, f"there is no variable {_short(name)}: {fix}", "UnknownVariable")

    def checked(self, line: int, values: dict[str, str]) -> FileRow:
        """Return a row; raise `SpecError` where it makes no valid prompt."""
        prompt = values.pop(PROMPT, "")
        if not prompt and not values:
            raise self.fault(line, f"the row is empty; give it a {PROMPT} or values of variables, or remove it.")
        word = values.get(OBJECT_VARIABLE)
        if word is not None and word.lower() not in self._words:
            near = difflib.get_close_matches(word.lower(), self._words, n=1, cutoff=0.6)
            fix = f"did you mean {self._words[near[0]]!r}?" if near else "add it to spec.classes or to synonyms."
            raise self.fault(line, f"the {OBJECT_VARIABLE} {_short(word)} is not a class: {fix}", "UnknownClass")
        row = PromptRow(prompt, values)
        prompts = tuple(row_prompts(row, self.templates))
        if not prompts:
            raise self.fault(line, self._fills_nothing(values))
        try:
            "".join((prompt, *values.values())).encode()
        except UnicodeEncodeError:
            raise self.fault(line, "the text has half of a surrogate pair; write the whole character.") from None
        for each in prompts:
            try:
                read_prompt(self.spec, each.prompt, FIELD)
            except SpecError as error:
                raise SpecError(error.reason, str(error).replace(FIELD, self.where(line), 1)) from None
        return FileRow(line, row, prompts)

    def _fills_nothing(self, values: Mapping[str, str]) -> str:
        given = ", ".join(values)
        lacking = [[name for name in each.fields if name not in values] for each in self.templates if each.fields]
        if not lacking:
            return (
                f"it has values ({given}) and no {PROMPT}, and no template has a field; add the {PROMPT}, or a "
                "template with these fields."
            )
        fewest = min(lacking, key=len)
        return (
            f"it has values of {given}, and every template needs more; add {', '.join(dict.fromkeys(fewest))}, or a "
            f"{PROMPT}."
        )


_Values = dict[str, str]
_Lines = Iterator[tuple[int, str]]


def _lines(stream: IO[bytes], check: _Checker) -> _Lines:
    """Yield the lines with their numbers, from 1, and with their ends."""
    number = 0
    while data := stream.readline(_MOST_LINE + 1):
        number += 1
        if len(data) > _MOST_LINE:
            raise check.fault(number, f"the line has more than {_MOST_LINE:,} bytes; break the file into lines.")
        if number == 1:
            if data.startswith(_OTHER_BOMS):
                raise check.fault(number, "the file is UTF-16; save it as UTF-8.")
            data = data.removeprefix(_BOM)
        try:
            yield number, data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise check.fault(number, f"byte {error.start + 1} is not UTF-8; save the file as UTF-8.") from None


def _text_rows(lines: _Lines, check: _Checker) -> Iterator[tuple[int, _Values]]:
    for number, line in lines:
        text = line.strip()
        if text and text != "#" and not text.startswith("# "):
            yield number, {PROMPT: text}


def _json_rows(lines: _Lines, check: _Checker) -> Iterator[tuple[int, _Values]]:
    known: set[str] = set()
    for number, line in lines:
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except RecursionError:
            raise check.fault(number, "it is nested too deeply; write one JSON object with texts.") from None
        except ValueError as error:
            raise check.fault(number, f'it is not JSON ({error}); write {{"{PROMPT}": "…"}}.') from None
        if not isinstance(found, dict):
            raise check.fault(number, f'{_short(found)} is not a JSON object; write {{"{PROMPT}": "…"}}.')
        if not known.issuperset(found):
            check.columns(number, found)
            known.update(found)
        for name, value in found.items():
            if value is not None and not isinstance(value, str):
                text = json.dumps(json.dumps(value))
                raise check.fault(number, f"{name} is {_short(value)} and must be text; write {text}.")
        yield number, {name: value.strip() for name, value in found.items() if value is not None and value.strip()}


def _csv_rows(lines: _Lines, check: _Checker) -> Iterator[tuple[int, _Values]]:
    csv.field_size_limit(_MOST_LINE)
    reader = csv.reader((line for _, line in lines), strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            if not any(cells):
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                check.columns(reader.line_num, header)
                if twice := next((name for name in header if header.count(name) > 1), ""):
                    raise check.fault(reader.line_num, f"two columns are named {twice!r}; rename or remove one.")
                continue
            if len(cells) != len(header):
                raise check.fault(
                    reader.line_num,
                    f"the row has {len(cells)} cells, and the header {len(header)}; quote cells with commas in them.",
                )
            yield (
                reader.line_num,
                {name: text for name, cell in zip(header, cells, strict=True) if (text := cell.strip())},
            )
    except csv.Error as error:
        raise check.fault(
            reader.line_num, f"it is not CSV ({error}); quote cells that have commas or quotes."
        ) from None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
