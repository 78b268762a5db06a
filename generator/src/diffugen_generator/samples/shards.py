"""Shards: what one pod of a stage has to do, as one file.

A shard is gzipped JSON lines: a header with all that its samples share, then a line for each sample. It is
complete in itself, so a worker needs no plan and no expansion of the spec: it opens its shard and works. The
same plan gives the same bytes.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from pydantic import BaseModel

from diffugen_api.plan import Sample, StageRecipe, canonical
from diffugen_api.v1alpha1 import AttentionLabeling, ClipScore, DetectorLabeling, ObjectClass, Quality, Safety
from diffugen_generator.failures import BadShard
from diffugen_generator.store.protocol import Store

M = TypeVar("M", bound=BaseModel)

CONTENT_TYPE = "application/gzip"

GIVEN = "given"
"""The kind of a shard whose pictures come from elsewhere; they are seen at a size that suits the model."""

_LEVEL = 3
"""Shards are read once; 3 is a third larger than 9 and ten times faster to write."""


class Need(StrEnum):
    """The first of the three things that a sample lacks; what follows it is lacking too."""

    DRAW = "draw"
    """There is no picture."""
    SEE = "see"
    """There is a picture, but no evidence of what is in it."""
    LABEL = "label"
    """There is evidence, but nothing decided from it: no model and no GPU needed."""

    @property
    def gpu(self) -> bool:
        """Whether a model has to run."""
        return self is not Need.LABEL


@dataclass(frozen=True, slots=True)
class TaughtWord:
    """A word of textual inversion that a stage's model is to know."""

    token: str
    uri: str
    """Its file; of a repository, with the commit."""
    digest: str
    """SHA-256 of the file, in hex."""

    def row(self) -> dict[str, str]:
        """Return the word as JSON data."""
        return {"token": self.token, "uri": self.uri, "digest": self.digest}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> TaughtWord:
        """Read what `row` wrote."""
        return cls(row["token"], row["uri"], row["digest"])


@dataclass(frozen=True, slots=True)
class Origin:
    """A stage that another one draws from, as far as its samples' fate is asked."""

    stage: str
    kind: str
    label_id: str

    def row(self) -> dict[str, str]:
        """Return the origin as JSON data."""
        return {"stage": self.stage, "kind": self.kind, "labelId": self.label_id}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Origin:
        """Read what `row` wrote."""
        return cls(row["stage"], row["kind"], row["labelId"])


def origins_of(recipe: StageRecipe) -> tuple[Origin, ...]:
    """Return the stages that a stage's samples come from, the nearest first."""
    origins = []
    source = recipe.source
    while source is not None:
        origins.append(Origin(source.stage, source.kind, source.label_id))
        source = source.source
    return tuple(origins)


@dataclass(frozen=True, slots=True)
class ShardHeader:
    """What all samples of a shard share: the file's first line."""

    stage: str
    kind: str
    revision: str
    index: int
    model: str
    """The model's URI, as the spec has it; of a repository, with the commit that its branch was at."""
    model_digest: str
    """SHA-256 of the model's files: the worker's model must have it, too."""
    drawing: Mapping[str, Any]
    """All that decides a picture besides prompt and seed (`StageRecipe.drawing`)."""
    evidence_id: str
    label_id: str
    attention: AttentionLabeling | None
    classes: tuple[ObjectClass, ...]
    """In the order of the spec, which gives the class ids."""
    origins: tuple[Origin, ...] = ()
    """The stages that the samples come from, the nearest first; none for text alone."""
    quality: Quality = field(default_factory=Quality)
    """What the samples' sources have to be for anything to be drawn from them."""
    embeddings: tuple[TaughtWord, ...] = ()
    detector: DetectorLabeling | None = None
    agreement: float = 0.5
    clip: ClipScore | None = None
    safety: Safety | None = None
    witnesses: Mapping[str, str] = field(default_factory=dict)
    """Evidence ids of what other models say of the pictures, by kind (`StageRecipe.witnesses`)."""
    judges: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of those models' files, by kind: the worker's must have them, too."""

    @property
    def recipe(self) -> StageRecipe:
        """The stage's recipe, as the plan had it."""
        return StageRecipe(self.stage, self.kind, self.drawing, self.evidence_id, self.label_id, self.witnesses)

    @property
    def extension(self) -> str:
        """The pictures' file name extension."""
        return self.recipe.extension

    def to_json(self) -> dict[str, Any]:
        """Return the header as its line."""
        return {
            "stage": self.stage,
            "kind": self.kind,
            "revision": self.revision,
            "index": self.index,
            "model": self.model,
            "modelDigest": self.model_digest,
            "drawing": dict(self.drawing),
            "evidenceId": self.evidence_id,
            "labelId": self.label_id,
            "attention": _json(self.attention),
            "classes": [_json(c) for c in self.classes],
            "detector": _json(self.detector),
            "agreement": self.agreement,
            "clip": _json(self.clip),
            "safety": _json(self.safety),
            "witnesses": dict(self.witnesses),
            "judges": dict(self.judges),
            **self._sources_json(),
            **({"embeddings": [word.row() for word in self.embeddings]} if self.embeddings else {}),
        }

    def _sources_json(self) -> dict[str, Any]:
        if not self.origins:
            return {}
        return {"origins": [origin.row() for origin in self.origins], "quality": _json(self.quality)}

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> ShardHeader:
        """Read a header's line."""
        return cls(
            stage=line["stage"],
            kind=line["kind"],
            revision=line["revision"],
            index=line["index"],
            model=line["model"],
            model_digest=line["modelDigest"],
            drawing=line["drawing"],
            evidence_id=line["evidenceId"],
            label_id=line["labelId"],
            attention=_read(AttentionLabeling, line["attention"]),
            classes=tuple(ObjectClass.model_validate(c) for c in line["classes"]),
            origins=tuple(Origin.from_row(origin) for origin in line.get("origins", ())),
            quality=Quality.model_validate(line.get("quality", {})),
            embeddings=tuple(TaughtWord.from_row(word) for word in line.get("embeddings", ())),
            detector=_read(DetectorLabeling, line["detector"]),
            agreement=float(line["agreement"]),
            clip=_read(ClipScore, line["clip"]),
            safety=_read(Safety, line.get("safety")),
            witnesses=line["witnesses"],
            judges=line["judges"],
        )


def _json(model: BaseModel | None) -> dict[str, Any] | None:
    return None if model is None else model.model_dump(mode="json", by_alias=True)


def _read(model: type[M], data: object) -> M | None:
    return None if data is None else model.model_validate(data)


@dataclass(frozen=True, slots=True)
class ShardRow:
    """One sample, and what it needed when the plan was made.

    A worker looks again: another try, or another dataset in the same folder, may have done it since.
    """

    sample: Sample
    do: Need

    def to_line(self) -> bytes:
        """Return the row as its line, without the line's end."""
        return json.dumps(self.sample.row() | {"do": self.do}, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> ShardRow:
        """Read a row's line."""
        return cls(Sample.from_row(line), Need(line["do"]))


def encode_shard(header: ShardHeader, lines: Iterable[bytes]) -> bytes:
    """Return a shard's file; `lines` are rows as `ShardRow.to_line` gives them."""
    # zlib's own gzip framing, with time 0 and no file name: equal shards are equal bytes
    squeeze = zlib.compressobj(_LEVEL, zlib.DEFLATED, wbits=31)
    return squeeze.compress(b"\n".join((canonical(header.to_json()), *lines, b""))) + squeeze.flush()


def decode_shard(data: bytes) -> tuple[ShardHeader, list[ShardRow]]:
    """Return a shard's header and rows; raise `BadShard` where the file is not one."""
    try:
        header, *rows = (json.loads(line) for line in gzip.decompress(data).splitlines())
        return ShardHeader.from_json(header), [ShardRow.from_json(row) for row in rows]
    except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error) as error:
        raise BadShard(f"the shard is not readable ({type(error).__name__}: {error}); plan again") from error


def read_shard(store: Store, key: str) -> tuple[ShardHeader, list[ShardRow]]:
    """Read a shard's file; raise `Missing`, or `BadShard` naming the key."""
    try:
        return decode_shard(store.read(key))
    except BadShard as error:
        raise BadShard(f"{key}: {error}") from error
