"""The UNet family, as the plan uses it. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from diffugen_generator.families.checkpoint import CheckpointFolder, CheckpointHeader, Prediction
from diffugen_generator.families.embedding import Embedding
from diffugen_generator.families.folder import ModelFolder, settings_of
from diffugen_generator.families.lora import Lora, Shapes
from diffugen_generator.families.unet.architecture import (
    END_OF_WORD,
    MARKS,
    SDXL_PIPELINES,
    check_architecture,
    takes_a_mask,
    tokens_at_once,
)
from diffugen_generator.families.unet.checkpoint import read_checkpoint
from diffugen_generator.families.unet.lora_layouts import check_lora
from diffugen_generator.families.unet.samplers import check_sampler
from diffugen_generator.families.unet.tensors import lacking

if TYPE_CHECKING:
    import torch

    from diffugen_generator.families.model import DiffusionModel
    from diffugen_generator.families.unet.components import Components
    from diffugen_generator.families.unet.token_model import UNetTokenModel

_ONE_ENCODER: Final = ("scheduler", "text_encoder", "tokenizer", "unet", "vae")
_TWO_ENCODERS: Final = (*_ONE_ENCODER, "text_encoder_2", "tokenizer_2")
PIPELINES: Final[Mapping[str, tuple[str, ...]]] = {
    "StableDiffusionPipeline": _ONE_ENCODER,
    "StableDiffusionInpaintPipeline": _ONE_ENCODER,
    "StableDiffusionImg2ImgPipeline": _ONE_ENCODER,
    **dict.fromkeys(SDXL_PIPELINES, _TWO_ENCODERS),
    "LatentConsistencyModelPipeline": _ONE_ENCODER,
}
"""The components that are read of each pipeline; a safety checker and a feature extractor are not read."""


class UNetConfig:
    """Stable Diffusion 1.x, 2.x and XL, for text or for inpainting, and models distilled to few steps."""

    pipelines = PIPELINES
    without_weights = frozenset({"scheduler", "tokenizer", "tokenizer_2"})
    marks = MARKS
    check_sampler = staticmethod(check_sampler)

    def check(self, folder: Path, pipeline: str) -> None:
        """Raise `ValueError` if the model cannot draw with the folder's settings."""
        check_architecture(folder, pipeline)

    def check_weights(self, folder: Path, component: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise `ValueError` if a component's weights lack tensors, or have others than its settings ask for."""
        if fault := lacking(component, settings_of(folder / component / "config.json"), shapes):
            raise ValueError(f"has weights in {component}/ that {fault}: copy it again, or name another model.")

    def read_checkpoint(self, header: CheckpointHeader, predicts: Prediction | None) -> CheckpointFolder | None:
        """Return the folder that a single file in the layout of latent diffusion stands for; None for other files."""
        return read_checkpoint(header, predicts)

    def takes_a_mask(self, folder: Path) -> bool:
        """Return whether the UNet takes a mask and the masked image: two sets of latents and one channel."""
        return takes_a_mask(folder)

    def run_sampler(self, model: ModelFolder, name: str | None, steps: int, *, strength: float = 1) -> None:
        """Run the steps of a scheduler of diffusers on one number; raise `ValueError` if they fail; imports torch."""
        from diffugen_generator.families.unet.schedulers import run_steps  # noqa: PLC0415 - torch

        run_steps(model.path / "scheduler", name, steps, strength)

    def token_limit(self, folder: Path, tokenizer: str = "tokenizer") -> int:
        """Return the tokens of a window; raise `ValueError` if the settings lack the number, or if no word fits."""
        return tokens_at_once(folder, tokenizer)

    def vocabulary(self, folder: Path) -> frozenset[str]:
        """Return the words of the first tokenizer, in lower case, and the parts of words that may end a word."""
        words = set[str]()
        for name in ("vocab.json", "added_tokens.json"):
            file = folder / "tokenizer" / name
            if file.is_file():
                words |= set(settings_of(file))
        whole = folder / "tokenizer" / "tokenizer.json"
        if not words and whole.is_file():
            words |= set(settings_of(whole)["model"]["vocab"])
        return frozenset(word.removesuffix(END_OF_WORD).lower() for word in words)

    def embedding_sets(self, model: ModelFolder) -> Sequence[tuple[str, int]]:
        """Return `clip_l`, and for Stable Diffusion XL `clip_g`, each with the width of the encoder's vectors."""
        encoders = ("text_encoder", "text_encoder_2") if model.pipeline in SDXL_PIPELINES else ("text_encoder",)
        settings = [settings_of(model.path / encoder / "config.json") for encoder in encoders]
        widths = [int(each.get("hidden_size", 512)) for each in settings]
        return list(zip(("clip_l", "clip_g"), widths, strict=False))

    def check_lora(self, model: ModelFolder, shapes: Shapes) -> None:
        """Raise `ValueError` if a LoRA does not fit the model."""
        check_lora(model.path, len(self.embedding_sets(model)), shapes)

    def load(
        self,
        model: ModelFolder,
        device: torch.device,
        scheduler: str | None = None,
        *,
        dtype: str = "auto",
        embeddings: Sequence[Embedding] = (),
        loras: Sequence[Lora] = (),
    ) -> Components:
        """Load a model as `components.load` does; imports torch."""
        from diffugen_generator.families.unet.components import load  # noqa: PLC0415 - torch

        return load(model, device, scheduler, dtype=dtype, embeddings=embeddings, loras=loras)

    def token_model(
        self, model: DiffusionModel, token: str, initializer: str, count: int, *, field: str
    ) -> UNetTokenModel:
        """Return a loaded model with a new word; imports torch."""
        from diffugen_generator.families.unet.components import Components  # noqa: PLC0415 - torch
        from diffugen_generator.families.unet.token_model import UNetTokenModel  # noqa: PLC0415

        if not isinstance(model, Components):
            raise TypeError(f"a model of another family: {type(model).__name__}")
        return UNetTokenModel(model, token, initializer, count, field=field)


UNET: Final = UNetConfig()
