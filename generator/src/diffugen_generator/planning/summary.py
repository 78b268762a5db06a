"""`plan.json`: the results of a plan. Later steps read it and so compute addresses without models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from diffugen_api import layout
from diffugen_generator.samples.documents import Schema, read_document
from diffugen_generator.samples.shards import DIGESTS_KEY
from diffugen_generator.store.protocol import Store


class _Word(Schema):
    token: str
    digest: str


class _Lora(Schema):
    digest: str
    weight: float


class _Stage(Schema):
    name: str
    model: str
    modelDigest: str  # noqa: N815 - as in the file
    embeddings: list[_Word] = Field(default=[], max_length=10_000)
    loras: list[_Lora] = Field(default=[], max_length=1000)
    calibration: str = ""
    judges: dict[str, str] = Field(default={})
    licenses: dict[str, str] = Field(default={})


class _Prompts(Schema):
    sha256: str
    digest: str


class _Summary(Schema):
    stages: list[_Stage] = Field(max_length=1000)
    prompts: _Prompts | None = None


def read_summary(store: Store, revision: str) -> dict[str, Any]:
    """Return the summary of a revision's plan; raise `Missing` or `Damaged`."""
    return read_document(store, layout.plan_summary(revision), _Summary)


def digests_of(summary: Mapping[str, Any]) -> dict[str, str]:
    """Return each stage's model digest."""
    return {stage["name"]: stage["modelDigest"] for stage in summary["stages"]}


def words_in(summary: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the digests of each stage's embeddings by token."""
    return {
        stage["name"]: {word["token"]: word["digest"] for word in stage.get("embeddings", ())}
        for stage in summary["stages"]
    }


def loras_in(summary: Mapping[str, Any]) -> dict[str, list[tuple[str, float]]]:
    """Return digest and weight of each stage's LoRAs."""
    return {
        stage["name"]: [(each["digest"], float(each["weight"])) for each in stage.get("loras", ())]
        for stage in summary["stages"]
    }


def side_models_in(summary: Mapping[str, Any]) -> dict[str, Mapping[str, str]]:
    """Return each stage's digests of the models that label in addition to the diffusion model, by kind."""
    return {stage["name"]: stage.get(DIGESTS_KEY, {}) for stage in summary["stages"]}


def licenses_in(summary: Mapping[str, Any]) -> dict[str, str]:
    """Return the licenses that the models' cards state, by the models' digests."""
    return {digest: stated for stage in summary["stages"] for digest, stated in stage.get("licenses", {}).items()}


def prompts_digest_in(summary: Mapping[str, Any]) -> str:
    """Return the digest of the rows of the prompts file; empty where there is no file."""
    return str(summary.get("prompts", {}).get("digest", ""))


def calibrations_in(summary: Mapping[str, Any]) -> dict[str, str]:
    """Return the address of each stage's calibration; empty where there is none."""
    return {stage["name"]: stage.get("calibration", "") for stage in summary["stages"]}
