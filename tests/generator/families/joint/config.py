"""The part of the joint family that the plan uses: a transformer with its own vocabulary. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffugen_api.plan import SpecError
from diffugen_generator.families.checkpoint import CheckpointFolder, CheckpointHeader, Prediction
from diffugen_generator.families.embedding import Embedding
from diffugen_generator.families.folder import ModelFolder, settings_of, whole_number
from diffugen_generator.families.lora import Lora, Shapes

if TYPE_CHECKING:
    import torch

    from tests.generator.families.joint.model import JointModel

PIPELINE = "TinyJointPipeline"
LIMIT = 12
"""Tokens of a text, which begins with one mark."""


class JointConfig:
    """One pipeline: `transformer/` with weights, `words/` with the vocabulary."""

    pipelines = {PIPELINE: ("transformer", "words")}  # noqa: RUF012 - read only
    without_weights = frozenset({"words"})
    marks = 1

    def check(self, folder: Path, pipeline: str) -> None:
        """Raise `ValueError` if the settings do not fit."""
        assert pipeline == PIPELINE
        whole_number(settings_of(folder / "transformer" / "config.json"), "width", "transformer/config.json")
        settings_of(folder / "words" / "words.json")

    def check_weights(self, folder: Path, component: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise `ValueError` if the projection into the transformer is missing."""
        if "into.weight" not in shapes:
            raise ValueError(f"has weights in {component}/ that lack into.weight.")

    def read_checkpoint(self, header: CheckpointHeader, predicts: Prediction | None) -> CheckpointFolder | None:
        """Return None: the family has no single files."""
        return None

    def takes_a_mask(self, folder: Path) -> bool:
        """Return False: the family has no inpainting model."""
        return False

    def check_sampler(
        self, model: ModelFolder, name: str | None, steps: int, *, field: str, stage: str, strength: float = 1
    ) -> None:
        """Raise `SpecError` for the name of a scheduler: flow matching is the only one."""
        if name is not None:
            raise SpecError("UnsupportedModel", f"{stage}.scheduler: {field} has one of its own; leave it out.")

    def run_sampler(self, model: ModelFolder, name: str | None, steps: int, *, strength: float = 1) -> None:
        """Do nothing: Euler steps along a velocity do not fail."""

    def token_limit(self, folder: Path, tokenizer: str = "words") -> int:
        """Return `LIMIT`."""
        return LIMIT

    def vocabulary(self, folder: Path) -> frozenset[str]:
        """Return the words."""
        return frozenset(settings_of(folder / "words" / "words.json"))

    def embedding_sets(self, model: ModelFolder) -> Sequence[tuple[str, int]]:
        """Return the one table of words."""
        return [("words", int(settings_of(model.path / "transformer" / "config.json")["width"]))]

    def check_lora(self, model: ModelFolder, shapes: Shapes) -> None:
        """Raise `ValueError`: the family reads no LoRAs."""
        raise ValueError("is a LoRA, and the model reads none")

    def load(
        self,
        model: ModelFolder,
        device: torch.device,
        scheduler: str | None = None,
        *,
        dtype: str = "auto",
        embeddings: Sequence[Embedding] = (),
        loras: Sequence[Lora] = (),
    ) -> JointModel:
        """Load the transformer."""
        from tests.generator.families.joint.model import load

        return load(model, device)
