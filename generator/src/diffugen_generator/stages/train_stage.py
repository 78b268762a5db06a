"""The stage step of a stage that trains a word: one training, its checkpoints and its result in the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from threading import Event
from typing import TYPE_CHECKING

from diffugen_api import layout
from diffugen_api.contract import ShardCounts
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_generator.failures import Missing
from diffugen_generator.inversion.images import digests_of, training_images
from diffugen_generator.inversion.result_names import CHECKPOINT, CONTENT_TYPES, PREVIEW
from diffugen_generator.planning.trainings import training_of
from diffugen_generator.store.protocol import Store

if TYPE_CHECKING:
    from diffugen_generator.inversion.presence import ImageSimilarity
    from diffugen_generator.inversion.training import TrainingState


def train_stage(
    spec: LabeledDatasetSpec,
    name: str,
    store: Store,
    *,
    device: str | None,
    dtype: str = "auto",
    reproduce: bool = False,
    on_progress: Callable[[TrainingState, int], None] = lambda state, steps: None,
    on_loading: Callable[[], None] = lambda: None,
    stop: Event | None = None,
) -> ShardCounts:
    """Train the word of stage `name` and store it; a word that the store already has is not trained again.

    `reproduce` trains on one thread with deterministic algorithms. `on_progress` is called with the state after each
    step and with the number of all steps. Raises `Interrupted` if `stop` is set, with a checkpoint in the store;
    `SpecError` or a `Failure` as a plan does.
    """
    number, stage = next((n, each) for n, each in enumerate(spec.stages) if each.name == name)
    found = training_of(spec, stage, number, weights=True)
    if found.is_done(store):
        return ShardCounts(total=1, reused=1)
    from diffugen_generator.diffusion.devices import compute_reproducibly, open_device  # noqa: PLC0415 - imports torch
    from diffugen_generator.families.registry import family_of  # noqa: PLC0415
    from diffugen_generator.inversion.train import train  # noqa: PLC0415

    size = (found.settings.width, found.settings.height)
    images = training_images(found.images, found.masks, size, field=f"{found.field}.images")
    where = open_device(device)
    on_loading()
    if reproduce:
        compute_reproducibly()
    # Gradients become 0 in fp16; bf16 has the range of fp32.
    loaded = family_of(found.model.pipeline).load(found.model, where, dtype="auto" if dtype == "float16" else dtype)
    made = train(
        loaded,
        images,
        digests_of(found.images),
        found.settings,
        _StoreCheckpoints(store, layout.trained(found.address, CHECKPOINT)),
        address=found.address,
        field=found.field,
        on_progress=lambda state: on_progress(state, found.settings.steps),
        on_preview=lambda image: store.write(layout.trained(found.address, PREVIEW), image, CONTENT_TYPES[".png"]),
        stop=stop,
        similarity=_similarity(spec),
    )
    for file, data in made.items():
        store.write(layout.trained(found.address, file), data, CONTENT_TYPES[PurePosixPath(file).suffix])
    store.delete([layout.trained(found.address, file) for file in (CHECKPOINT, PREVIEW)])
    return ShardCounts(total=1, labelled=1)


def _similarity(spec: LabeledDatasetSpec) -> ImageSimilarity | None:
    """Return the CLIP model of `spec.quality.clipScore`, for the card."""
    from diffugen_generator.labeling.detectors.clip import open_clip  # noqa: PLC0415 - imports torch

    wanted = spec.quality.clip_score
    return None if wanted is None else open_clip(wanted.model, "spec.quality.clipScore.model", spec.output.s3)


class _StoreCheckpoints:
    """The checkpoint of a training; its key is next to the key of the result."""

    def __init__(self, store: Store, key: str) -> None:
        self._store = store
        self.key = key

    def load(self) -> bytes | None:
        try:
            return self._store.read(self.key)
        except Missing:
            return None

    def save(self, data: bytes) -> None:
        self._store.write(self.key, data)
