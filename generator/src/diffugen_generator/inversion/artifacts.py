"""The results of a training: the embedding's files, a card, sample images and the loss curve."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from diffugen_generator.diffusion.drawing import DrawingSettings
from diffugen_generator.families.token_training import TokenModel
from diffugen_generator.inversion.embedding_files import embedding_files
from diffugen_generator.inversion.images import TrainingImage
from diffugen_generator.inversion.loss_curve import loss_curve
from diffugen_generator.inversion.presence import ImageSimilarity, presence_of
from diffugen_generator.inversion.result_names import CARD, FILES, LOSS, SAMPLES
from diffugen_generator.inversion.samples import COLUMNS, draw_samples, grid
from diffugen_generator.inversion.settings import TrainingSettings
from diffugen_generator.inversion.training import TrainingState

_STEPS: Final = 20
_GUIDANCE: Final = 5.0
_ROWS: Final = 2


def artifacts(
    model: TokenModel,
    images: Sequence[TrainingImage],
    digests: Mapping[str, str],
    settings: TrainingSettings,
    state: TrainingState,
    *,
    address: str,
    seconds: float,
    similarity: ImageSimilarity | None = None,
) -> dict[str, bytes]:
    """Return the files of a finished training by name, the card last.

    `digests` are the SHA-256s of the images' files, `address` is the training's content address, and `similarity`
    compares images for the card.
    """
    files = embedding_files(settings.token, state.best)
    files[SAMPLES] = sample_grid(model, images, settings)
    files[LOSS] = loss_curve(state.losses, state.evaluations, f"{settings.token} on {model.taught.model.uri}")
    card = _card(model, digests, settings, state, address=address, seconds=seconds)
    card[FILES] = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    card["presence"] = presence_of(model, images, settings, _drawing(settings), similarity)
    files[CARD] = (json.dumps(card, indent=2, ensure_ascii=False) + "\n").encode()
    return files


def sample_grid(model: TokenModel, images: Sequence[TrainingImage], settings: TrainingSettings) -> bytes:
    """Return a PNG: some of the images, and below them images that the model draws with the current vectors."""
    sentences = settings.sentences()
    prompts = [sentences[number % len(sentences)] for number in range(_ROWS * COLUMNS)]
    drawn = draw_samples(model.taught, prompts, _drawing(settings), seed=settings.seed)
    return grid([image.pixels for image in images], drawn)


def _drawing(settings: TrainingSettings) -> DrawingSettings:
    return DrawingSettings(width=settings.width, height=settings.height, steps=_STEPS, guidance=_GUIDANCE)


def _card(
    model: TokenModel,
    digests: Mapping[str, str],
    settings: TrainingSettings,
    state: TrainingState,
    *,
    address: str,
    seconds: float,
) -> dict[str, Any]:
    folder = model.taught.model
    return {
        "address": address,
        "model": {"uri": folder.uri, "digest": folder.digest, "pipeline": folder.pipeline},
        "settings": asdict(settings),
        "images": dict(digests),
        "steps": state.step,
        "plateaued": state.plateaued,
        "resumedAt": state.resumed,
        "seconds": round(seconds, 1),
        "loss": {
            "first": state.evaluations[0][1],
            "best": state.best_loss,
            "bestStep": min(state.evaluations, key=lambda each: each[1])[0],
        },
        "norms": [
            {"vectors": vectors.norm(dim=1).tolist(), "vocabulary": [norms.low, norms.high]}
            for vectors, norms in zip(state.best, model.norms, strict=True)
        ],
    }
