"""Stages that train a word: finds and checks them and computes their addresses, without torch.

A training has one sample, the word, and one shard. Its result is kept in the store under its content address. So a
word that any revision of the dataset has trained is not trained again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from diffugen_api import layout
from diffugen_api.contract import StagePlan
from diffugen_api.errors import SpecError
from diffugen_api.v1alpha1 import LabeledDatasetSpec, Stage, TextualInversion
from diffugen_generator.failures import Damaged, Missing
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.registry import family_of, token_limit
from diffugen_generator.inversion.images import digests_of
from diffugen_generator.inversion.request import address_of, read_images, settings_of
from diffugen_generator.inversion.result_names import CARD, FILES, whole_file
from diffugen_generator.inversion.settings import TrainingSettings
from diffugen_generator.models.checks import made_for_inpainting
from diffugen_generator.models.files import SAFE
from diffugen_generator.models.resolve import resolve
from diffugen_generator.samples.documents import Schema, read_document
from diffugen_generator.samples.shards import TaughtWord
from diffugen_generator.store.protocol import Store

LOG = logging.getLogger("diffugen")


class _Card(Schema):
    address: str
    files: dict[str, str] = Field(default={}, max_length=100)


@dataclass(frozen=True, slots=True)
class Training:
    """A stage that trains a word, its model, and the address that follows from both and the images."""

    stage: Stage
    field: str
    model: ModelFolder
    settings: TrainingSettings
    address: str
    images: Mapping[str, bytes]
    """The files to learn from, by name."""
    masks: Mapping[str, bytes]

    @property
    def task(self) -> TextualInversion:
        """The stage's settings."""
        if self.stage.textual_inversion is None:
            raise AssertionError("a training is of a stage that trains")
        return self.stage.textual_inversion

    def word(self, store: Store | None) -> TaughtWord:
        """Return the word for stages that draw with it; without a store it has no address yet."""
        name = whole_file(len(family_of(self.model.pipeline).embedding_sets(self.model)))
        uri = f"{store.uri}/{layout.trained(self.address, name)}" if store is not None else ""
        return TaughtWord(self.task.token, uri, self.address, trained=True)

    def is_done(self, store: Store | None) -> bool:
        """Return whether the store has the result; a damaged one counts as missing, is logged, and is made again."""
        if store is None:
            return False
        try:
            card = read_document(store, layout.trained(self.address, CARD), _Card)
            self._check_files(store, card)
        except Missing:
            return False
        except Damaged as damaged:
            LOG.warning("%s is damaged (%s); it counts as missing and is made again", damaged.key, damaged.why)
            return False
        return True

    def _check_files(self, store: Store, card: Mapping[str, Any]) -> None:
        """Raise `Damaged` or `Missing` if the vectors are not those that the card states; earlier cards state none."""
        if card["address"] != self.address:
            raise Damaged(layout.trained(self.address, CARD), f"it is the card of the training {card['address'][:40]}")
        for name, digest in card.get(FILES, {}).items():
            key = layout.trained(self.address, name)
            if name.endswith(SAFE) and hashlib.sha256(store.read(key)).hexdigest() != digest:
                raise Damaged(key, "its SHA-256 is not the one in the card")

    def plan(self, store: Store | None) -> StagePlan:
        """Return the stage's plan: one sample, the word."""
        missing = int(not self.is_done(store))
        return StagePlan(
            name=self.stage.name,
            total=1,
            reused=1 - missing,
            draw=missing,
            relabel=0,
            skipped=0,
            shards=missing,
            gpu=bool(missing),
        )

    def row(self) -> dict[str, Any]:
        """Return the training's part of `plan.json`."""
        return {
            "name": self.stage.name,
            "model": self.model.uri,
            "modelDigest": self.model.digest,
            "token": self.task.token,
            "address": self.address,
        }


def trainings_of(spec: LabeledDatasetSpec) -> dict[str, Training]:
    """Return the stages that train, by name; raise `SpecError` naming the field of one that cannot work."""
    return {stage.name: training_of(spec, stage, number) for number, stage in enumerate(spec.stages) if not stage.draws}


def training_of(spec: LabeledDatasetSpec, stage: Stage, number: int, *, weights: bool = False) -> Training:
    """Return the training of a stage, which is number `number` of the spec.

    `weights` also downloads the weights of a remote model.
    """
    task, field, s3 = stage.textual_inversion, f"spec.stages[{number}].{stage.kind}", spec.output.s3
    if task is None:
        raise TypeError(f"stage {stage.name!r} trains nothing")
    model = resolve(task.model, field=f"{field}.model", s3=s3, pin=task.model_sha256, weights=weights)
    family = family_of(model.pipeline)
    if made_for_inpainting(model):
        raise SpecError(
            "UnsupportedModel",
            f"{field}.model: {model.uri!r} is made for inpainting; train with the model that it comes from.",
        )
    if task.token.lower() in family.vocabulary(model.path):
        raise SpecError(
            "TokenTaken",
            f"{field}.token: {task.token!r} is a word that the model knows already; write another, such as "
            f"'<{task.token.strip('<>')}-1>', here and in the prompts.",
        )
    if task.vectors > (room := token_limit(model) - family.marks):
        raise SpecError(
            "TooManyVectors",
            f"{field}.vectors: {task.vectors} is more than the {room} tokens of a prompt; ask for fewer.",
        )
    images = read_images(task.images, s3, field=f"{field}.images")
    masks = read_images(task.masks, s3, field=f"{field}.masks") if task.masks is not None else {}
    settings = settings_of(task, spec.image)
    address = address_of(settings, model.digest, digests_of(images), digests_of(masks))
    return Training(stage, field, model, settings, address, images, masks)


def check_fit(training: Training, model: ModelFolder, field: str) -> None:
    """Raise `SpecError` naming `field` where a model cannot use a training's word."""
    if family_of(model.pipeline).embedding_sets(model) != family_of(training.model.pipeline).embedding_sets(
        training.model
    ):
        raise SpecError(
            "UnsupportedEmbedding",
            f"{field}.from: stage {training.stage.name!r} trains with {training.model.uri}, whose text encoders are "
            f"not those of {model.uri}; train with a model of the same kind.",
        )
    if training.task.token.lower() in family_of(model.pipeline).vocabulary(model.path):
        raise SpecError(
            "TokenTaken", f"{field}.from: {model.uri} has a word {training.task.token!r}; give the stage another token."
        )
