"""The rows of `spec.prompts.file`: read once, checked, and kept in a local copy that every later pass reads.

So all steps see what the plan saw, even if the file changes. The plan puts the copy into the store, and its digests
into `plan.json`; publish and prune read that copy, and not the file.
"""

from __future__ import annotations

import gzip
import hashlib
import heapq
import io
import json
import os
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from diffugen_api import layout
from diffugen_api.addresses import canonical
from diffugen_api.errors import SpecError
from diffugen_api.plan import Expansion
from diffugen_api.prompt_rows import MOST_EXAMPLES, MOST_ROWS, PromptRow, PromptRows, fills
from diffugen_api.prompts import combined, templates_of
from diffugen_api.templates import Template
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_generator.failures import Damaged, Missing
from diffugen_generator.models.digests import hashed
from diffugen_generator.models.small_files import open_file
from diffugen_generator.models.uris import BUCKET, HUB
from diffugen_generator.planning.prompt_files import FIELD, FileRow, rows_of
from diffugen_generator.store.protocol import Store

_encoded: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_MOST_PROMPTS: Final = 5_000_000
"""The most prompts that the rows may make; a stage has no more images. It bounds the memory for finding duplicates."""
_MOST_KEPT: Final = 32 << 20
"""The most bytes of the rows that are kept as examples."""
_MOST_LINE: Final = 64 << 20
"""The most bytes of a row in the copy: a small file can be unpacked to a very long line."""
_SHOWN: Final = 5
"""The most duplicates that a warning names."""


def expansion_of(spec: LabeledDatasetSpec) -> Expansion:
    """Return the expansion of a spec, with the rows of its prompts file; raise `SpecError` or a `Failure`."""
    return Expansion(spec, read_rows(spec) if spec.prompts.file is not None else None)


def read_rows(spec: LabeledDatasetSpec) -> LocalRows:
    """Read and check `spec.prompts.file`; raise `SpecError` naming the line of a broken row, or a `Failure`."""
    asked = spec.prompts
    uri = asked.file or ""
    templates = templates_of(spec)
    found, path, sha256 = open_file(uri, field=FIELD, s3=spec.output.s3, reason="UnknownPrompts")
    if asked.file_sha256 not in {None, sha256}:
        raise SpecError(
            "PromptsChanged",
            f"spec.prompts.fileSHA256: {found} has the SHA-256 {sha256}, and not {asked.file_sha256}; look what "
            "changed, then write its SHA-256, or leave the field out.",
        )
    scan = _Scan(spec.seed, asked.sample)
    copy = _Copy()
    with copy.writing() as write:
        for row in rows_of(path, uri, spec, templates):
            if scan.takes(row):
                write(row.row)
    if not uri.startswith((HUB, BUCKET)) and hashed(path).sha256 != sha256:
        raise SpecError("PromptsChanged", f"{FIELD}: {uri} changed while it was read; try again when it is complete.")
    _check_all_filled(spec, templates, scan)
    if scan.chosen is not None:
        copy = _sampled(copy, scan.chosen)
    return _described(copy, templates, sha256, scan.warnings(uri))


def put(rows: PromptRows, uri: str, store: Store, revision: str) -> dict[str, Any]:
    """Write the copy of the rows to a store; return their entry in `plan.json`."""
    if not isinstance(rows, LocalRows):
        raise TypeError("only rows that were read from a file can be put into a store")
    store.upload(layout.planned_prompts(revision), rows.copy.path, "application/gzip")
    return {"uri": uri, "sha256": rows.sha256, "digest": rows.digest, "prompts": rows.count}


def planned_expansion(spec: LabeledDatasetSpec, summary: Mapping[str, Any], store: Store, revision: str) -> Expansion:
    """Return the expansion of a planned spec, with the rows that the plan `summary` used.

    Raises `Damaged` if the store does not have these rows.
    """
    if spec.prompts.file is None:
        return Expansion(spec)
    key = layout.planned_prompts(revision)
    entry = summary.get("prompts")
    if entry is None:
        raise Damaged(layout.plan_summary(revision), "it does not name the rows of the prompts file")
    copy = _Copy()
    try:
        with copy.path.open("wb") as file:
            for chunk in store.stream(key):
                file.write(chunk)
        rows = _described(copy, templates_of(spec), entry["sha256"], ())
    except Missing:
        raise Damaged(key, "it is missing", keys=[layout.plan_summary(revision)]) from None
    except (
        AttributeError,
        EOFError,
        OSError,
        OverflowError,
        RecursionError,
        TypeError,
        ValueError,
        zlib.error,
    ) as error:
        raise Damaged(key, f"it is not a list of rows: {error}", keys=[key, layout.plan_summary(revision)]) from None
    if rows.digest != entry["digest"]:
        raise Damaged(key, "it has other rows than the plan", keys=[key, layout.plan_summary(revision)])
    return Expansion(spec, rows)


class _Scan:
    """What a pass over the file collects: duplicates, and the rows that a sample chooses."""

    def __init__(self, seed: int, sample: int | None) -> None:
        self._seen: set[int] = set()
        self._origin = canonical(["rows", seed])
        self._sample = sample
        self._least: list[int] = []
        self._doubled: list[int] = []
        self._duplicates = 0
        self.count = 0
        self.filled: set[int] = set()
        """The `Filled.number` of all prompts."""

    def takes(self, row: FileRow) -> bool:
        """Count a row; return whether any of its prompts is new."""
        keys = {_key(each.prompt.encode()) for each in row.prompts}
        if keys <= self._seen:
            self._duplicates += 1
            if len(self._doubled) < _SHOWN:
                self._doubled.append(row.line)
            return False
        self._seen |= keys
        self.filled.update(each.number for each in row.prompts)
        self.count += 1
        if self.count > MOST_ROWS:
            raise SpecError(
                "TooManyPrompts", f"{FIELD}: it has more than {MOST_ROWS:,} rows; split it into several datasets."
            )
        if len(self._seen) > _MOST_PROMPTS:
            raise SpecError(
                "TooManyPrompts",
                f"{FIELD}: its rows make more than {_MOST_PROMPTS:,} prompts with the templates; give fewer templates, "
                "or split it into several datasets.",
            )
        if self._sample is not None:
            self._choose(_rank(self._origin, row.row))
        return True

    def _choose(self, rank: int) -> None:
        if len(self._least) < (self._sample or 0):
            heapq.heappush(self._least, -rank)
        else:
            heapq.heappushpop(self._least, -rank)

    @property
    def chosen(self) -> Callable[[PromptRow], bool] | None:
        """Whether a row is in the sample; None if all are.

        The rows with the smallest hashes are chosen. So a larger sample has the smaller one, and another row in the
        file replaces at most one of the sample.
        """
        if self._sample is None or self.count <= self._sample:
            return None
        most = -self._least[0]
        return lambda row: _rank(self._origin, row) <= most

    def warnings(self, uri: str) -> list[str]:
        """Return a sentence about duplicates, if there are any."""
        if not self._duplicates:
            return []
        lines = ", ".join(f"{line:,}" for line in self._doubled)
        more = f" and {self._duplicates - len(self._doubled):,} more" if self._duplicates > len(self._doubled) else ""
        return [
            (
                f"{FIELD}: {self._duplicates:,} rows of {uri} repeat an earlier prompt (lines {lines}{more}) and are "
                "drawn once; remove them, or use samplesPerPrompt for more images of each prompt."
            )
        ]


class _Copy:
    """Rows in a temporary gzip file, one JSON array a line; the file is deleted with this object."""

    def __init__(self) -> None:
        handle, name = tempfile.mkstemp(prefix="diffugen-prompts-", suffix=".jsonl.gz")
        os.close(handle)
        self.path = Path(name)
        weakref.finalize(self, self.path.unlink, missing_ok=True)

    def writing(self) -> _Writer:
        """Return a context whose value writes a row."""
        file = gzip.GzipFile(self.path, "wb", compresslevel=1, mtime=0)
        return _Writer(io.BufferedWriter(file, 1 << 16))

    def lines(self) -> Iterator[bytes]:
        """Yield the lines; raise `OSError`, `EOFError`, `ValueError` or `zlib.error` if the file is damaged."""
        with gzip.open(self.path, "rb") as lines:
            while line := lines.readline(_MOST_LINE + 1):
                if len(line) > _MOST_LINE:
                    raise ValueError(f"a row has more than {_MOST_LINE:,} bytes")
                yield line

    def rows(self) -> Iterator[PromptRow]:
        """Yield the rows; raise `ValueError`, `OSError` or `EOFError` if the file is damaged."""
        return map(_row, self.lines())


@dataclass(slots=True)
class _Writer:
    stream: io.BufferedWriter

    def __enter__(self) -> Callable[[PromptRow], None]:
        return self._write

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def _write(self, row: PromptRow) -> None:
        self.stream.write(_line(row))


def _line(row: PromptRow) -> bytes:
    return _encoded([row.prompt, row.values]).encode() + b"\n"


def _row(line: bytes) -> PromptRow:
    prompt, values = json.loads(line)
    return PromptRow(prompt, values)


def _key(data: bytes) -> int:
    """Return a number of 64 bits: among a million rows, two have the same one with a probability of 3e-8."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def _rank(origin: bytes, row: PromptRow) -> int:
    return _key(origin + _line(row))


def _sampled(copy: _Copy, chosen: Callable[[PromptRow], bool]) -> _Copy:
    sample = _Copy()
    with sample.writing() as write:
        for row in copy.rows():
            if chosen(row):
                write(row)
    return sample


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRows(PromptRows):
    """Rows with their local copy."""

    copy: _Copy


def _described(copy: _Copy, templates: list[Template], sha256: str, warnings: Sequence[str]) -> LocalRows:
    """Return the rows of a copy, counted in one pass."""
    digest = hashlib.sha256()
    examples: list[PromptRow] = []
    first: dict[int, PromptRow] = {}
    filled: dict[int, int] = {}
    prompts = total = size = 0
    for line in copy.lines():
        row = _row(line)
        total += 1
        size += len(line)
        digest.update(line)
        if row.prompt:
            prompts += 1
            numbers = [len(templates)]
        else:
            numbers = [number for number, each in enumerate(templates) if fills(row.values, each)]
            for number in numbers:
                filled[number] = filled.get(number, 0) + 1
        if (total <= MOST_EXAMPLES and size <= _MOST_KEPT) or not first.keys() >= set(numbers):
            examples.append(row)
        for number in numbers:
            first.setdefault(number, row)
    return LocalRows(
        read=copy.rows,
        sha256=sha256,
        digest=digest.hexdigest(),
        prompts=prompts,
        fills=filled,
        examples=tuple(examples),
        complete=total == len(examples),
        warnings=tuple(warnings),
        copy=copy,
    )


def _check_all_filled(spec: LabeledDatasetSpec, templates: list[Template], scan: _Scan) -> None:
    """Raise `SpecError` if the file has no row, or if neither variables nor rows fill a template."""
    if not scan.count:
        raise SpecError("NoPrompts", f"{FIELD}: {spec.prompts.file} has no row; write one prompt a line.")
    filled = scan.filled | {number for number, _ in combined(spec, templates)}
    for number, template in enumerate(templates):
        if number not in filled:
            missing = next(name for name in template.fields if name not in spec.prompts.variables)
            raise SpecError(
                "UnknownVariable",
                f"spec.prompts.templates[{number}]: no variable is named {missing!r}, and no row of the file has "
                "values for all fields of the template; add it to spec.prompts.variables or to the rows.",
            )
