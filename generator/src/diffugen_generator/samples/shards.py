"""Shards: the work of one pod of a stage, as one file.

A shard is gzipped JSON lines: a header with everything that its samples share, then one line for each sample. A
worker needs no other file of the plan and does not expand the spec. The same plan gives the same bytes.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from pydantic import BaseModel

from diffugen_api.plan import Sample, StageRecipe, canonical
from diffugen_api.recipes import CLIP, SAFETY, SCORES
from diffugen_api.v1alpha1 import AttentionLabeling, DetectorLabeling, ImageScore, ObjectClass, Quality
from diffugen_generator.failures import BadShard
from diffugen_generator.store.protocol import Store

M = TypeVar("M", bound=BaseModel)

CONTENT_TYPE = "application/gzip"

GIVEN = "given"
"""The kind of a shard of the user's own images; they are resized to fit the model."""

_NO_SCORES = {CLIP: None, SAFETY: None}
"""Kinds that a header always names, even if they are not requested. Kinds that were added later are left out then."""

EVIDENCE_IDS_KEY, DIGESTS_KEY = "witnesses", "judges"
"""Stored keys of the evidence ids and digests of the models beside the diffusion model, in shards and `plan.json`."""

_MOST_BYTES = 1 << 30
"""The largest content of a shard that is read: 1,000 samples with prompts of 1 MB each."""
_MOST_TEXT = 300
"""The most characters of a message about a damaged file: it can have the file's own text."""
_MOST_DIGITS = 20
"""The most characters of a whole number: those of 64 bits with a sign."""
_LEVEL = 3
"""Compression level: 3 is ten times faster than 9, and the files are a third larger; a shard is read once."""


class Need(StrEnum):
    """The first missing part of a sample; the parts after it are missing too."""

    DRAW = "draw"
    """The image is missing."""
    SEE = "see"
    """The image exists; evidence of its content is missing."""
    LABEL = "label"
    """The evidence exists; the label is missing. Needs no model and no GPU."""

    @property
    def gpu(self) -> bool:
        """Whether a model has to run."""
        return self is not Need.LABEL


@dataclass(frozen=True, slots=True)
class TaughtWord:
    """A word of textual inversion that a stage's model loads."""

    token: str
    uri: str
    """The URI of its file. In a repository it includes the commit."""
    digest: str
    """SHA-256 of the file, in hex; the content address of the training if a stage trains the word."""
    trained: bool = False
    """Whether a stage of the dataset trains it."""

    def row(self) -> dict[str, Any]:
        """Return the word as JSON data."""
        own = {"token": self.token, "uri": self.uri, "digest": self.digest}
        return own | ({"trained": True} if self.trained else {})

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> TaughtWord:
        """Read what `row` wrote."""
        return cls(row["token"], row["uri"], row["digest"], bool(row.get("trained")))


@dataclass(frozen=True, slots=True)
class LoraFile:
    """A LoRA that a stage's model is drawn with."""

    uri: str
    """The URI of its file. In a repository it includes the commit."""
    digest: str
    """SHA-256 of the file, in hex."""
    weight: float

    def row(self) -> dict[str, Any]:
        """Return the LoRA as JSON data."""
        return {"uri": self.uri, "digest": self.digest, "weight": self.weight}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> LoraFile:
        """Read what `row` wrote."""
        return cls(row["uri"], row["digest"], float(row["weight"]))


@dataclass(frozen=True, slots=True)
class Origin:
    """A stage from which another one draws: the data needed to find out whether its samples are rejected."""

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
    """Everything that the samples of a shard share: the first line of the file."""

    stage: str
    kind: str
    revision: str
    index: int
    model: str
    """The model's URI as in the spec. For a repository it includes the commit of its branch."""
    model_digest: str
    """SHA-256 of the model's files; the worker's model must have the same."""
    drawing: Mapping[str, Any]
    """Everything that decides an image besides prompt and seed (`StageRecipe.drawing`)."""
    evidence_id: str
    label_id: str
    attention: AttentionLabeling | None
    classes: tuple[ObjectClass, ...]
    """The classes in the order of the spec, which defines the class ids."""
    origins: tuple[Origin, ...] = ()
    """The stages that the samples come from, the nearest first; empty for samples drawn only from text."""
    quality: Quality = field(default_factory=Quality)
    """The rules by which source images are rejected; nothing is drawn from a rejected one."""
    embeddings: tuple[TaughtWord, ...] = ()
    loras: tuple[LoraFile, ...] = ()
    tokens: tuple[str, ...] = ()
    """The tokens of textual inversion of all stages; in a prompt each is one word."""
    detector: DetectorLabeling | None = None
    agreement: float = 0.5
    scores: Mapping[str, ImageScore] = field(default_factory=dict)
    """Settings of the scores of whole images, by kind (`diffugen_api.recipes.SCORES`)."""
    side_evidence_ids: Mapping[str, str] = field(default_factory=dict)
    """Evidence ids of the models beside the diffusion model, by kind (`StageRecipe.side_evidence_ids`)."""
    side_models: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of those models' files, by kind; the worker's models must have the same."""
    calibration: str = ""
    """The content address of the attention's calibration; empty if there is none."""

    @property
    def recipe(self) -> StageRecipe:
        """The stage's recipe, as in the plan."""
        return StageRecipe(self.stage, self.kind, self.drawing, self.evidence_id, self.label_id, self.side_evidence_ids)

    @property
    def extension(self) -> str:
        """The file name extension of the images."""
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
            **_NO_SCORES,
            **{kind: _json(settings) for kind, settings in self.scores.items()},
            EVIDENCE_IDS_KEY: dict(self.side_evidence_ids),
            DIGESTS_KEY: dict(self.side_models),
            **self._sources_json(),
            **({"embeddings": [word.row() for word in self.embeddings]} if self.embeddings else {}),
            **({"loras": [each.row() for each in self.loras]} if self.loras else {}),
            **({"calibration": self.calibration} if self.calibration else {}),
            **({"tokens": list(self.tokens)} if self.tokens else {}),
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
            loras=tuple(LoraFile.from_row(each) for each in line.get("loras", ())),
            tokens=tuple(str(token) for token in line.get("tokens", ())),
            detector=_read(DetectorLabeling, line["detector"]),
            agreement=float(line["agreement"]),
            scores=_read_scores(line),
            side_evidence_ids=line[EVIDENCE_IDS_KEY],
            side_models=line[DIGESTS_KEY],
            calibration=str(line.get("calibration", "")),
        )


def _json(model: BaseModel | None) -> dict[str, Any] | None:
    return None if model is None else model.model_dump(mode="json", by_alias=True)


def _read_scores(line: Mapping[str, Any]) -> dict[str, ImageScore]:
    found = {kind: _read(score.settings, line.get(kind)) for kind, score in SCORES.items()}
    return {kind: settings for kind, settings in found.items() if settings is not None}


def _read(model: type[M], data: object) -> M | None:
    return None if data is None else model.model_validate(data)


@dataclass(frozen=True, slots=True)
class ShardRow:
    """One sample, and its need at the time of the plan.

    A worker checks again: an earlier try, or another dataset in the same folder, may have written it since.
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
    """Return a shard's file; `lines` are rows as `ShardRow.to_line` returns them."""
    # zlib writes the gzip header with time 0 and no file name: equal shards give equal bytes.
    squeeze = zlib.compressobj(_LEVEL, zlib.DEFLATED, wbits=31)
    return squeeze.compress(b"\n".join((canonical(header.to_json()), *lines, b""))) + squeeze.flush()


def decode_shard(data: bytes) -> tuple[ShardHeader, list[ShardRow]]:
    """Return a shard's header and rows; raise `BadShard` if the file is not a shard."""
    try:
        header, *rows = (json.loads(line, parse_int=_whole) for line in _unpacked(data).splitlines())
        return ShardHeader.from_json(header), [ShardRow.from_json(row) for row in rows]
    except RecursionError as error:
        raise BadShard("the shard cannot be read (it is nested too deeply); plan again") from error
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError, zlib.error) as error:
        why = f"{type(error).__name__}: {str(error)[:_MOST_TEXT]}"
        raise BadShard(f"the shard cannot be read ({why}); plan again") from error


def _whole(digits: str) -> int:
    """Return a whole number; raise `ValueError` if it has more than 64 bits, as no number of a shard has."""
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _unpacked(data: bytes) -> bytes:
    """Return a gzip file's content; the checksum at its end is compared."""
    unpack = zlib.decompressobj(wbits=31)
    content = unpack.decompress(data, _MOST_BYTES)
    if not unpack.eof:
        raise ValueError("cut off, or too large")
    return content


def read_shard(store: Store, key: str) -> tuple[ShardHeader, list[ShardRow]]:
    """Read a shard from the store; raise `Missing`, or `BadShard` naming the key."""
    try:
        return decode_shard(store.read(key))
    except BadShard as error:
        raise BadShard(f"{key}: {error}") from error
