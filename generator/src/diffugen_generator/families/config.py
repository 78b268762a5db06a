"""What the plan asks of a model family, without torch: which files it reads, and whether they fit each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from diffugen_generator.families.embedding import Embedding
from diffugen_generator.families.folder import ModelFolder

if TYPE_CHECKING:
    import torch

    from diffugen_generator.families.model import DiffusionModel
    from diffugen_generator.families.token_training import TokenModel


class FamilyConfig(Protocol):
    """A family of models: pipelines of diffusers that are loaded, drawn with and read in the same way."""

    @property
    def pipelines(self) -> Mapping[str, tuple[str, ...]]:
        """The classes of its pipelines, and the folders of the components that are read of each."""
        ...

    @property
    def without_weights(self) -> frozenset[str]:
        """Those of the components that hold settings alone."""
        ...

    @property
    def marks(self) -> int:
        """How many tokens of a window are marks and not words."""
        ...

    def check(self, folder: Path, pipeline: str) -> None:
        """Raise `ValueError` where the settings do not fit each other; its text ends a sentence about the model."""
        ...

    def takes_a_mask(self, folder: Path) -> bool:
        """Return whether the network was made for inpainting: it gets a mask and the surroundings as input."""
        ...

    def check_sampler(self, model: ModelFolder, name: str | None, steps: int, *, field: str, stage: str) -> None:
        """Raise `SpecError` where a stage cannot draw with its sampler, or not in so many steps.

        Args:
            model: what the stage draws with.
            name: a value of `scheduler` in the stage; the model's own where absent.
            steps: what the stage asks for.
            field: the manifest's field that names the model.
            stage: the manifest's field of what the stage does, `spec.stages[0].txt2img`.
        """
        ...

    def token_limit(self, folder: Path, tokenizer: str = "tokenizer") -> int:
        """Return the tokens of one window of a text encoder, marks included; raise `ValueError` where unknown."""
        ...

    def vocabulary(self, folder: Path) -> frozenset[str]:
        """Return the words of the tokenizer, in lower case, and those parts of words that may end one."""
        ...

    def embedding_sets(self, model: ModelFolder) -> Sequence[tuple[str, int]]:
        """Return, for each text encoder, its name in a file of textual inversion and the width of its vectors."""
        ...

    def load(
        self,
        model: ModelFolder,
        device: torch.device,
        scheduler: str | None = None,
        *,
        dtype: str = "auto",
        embeddings: Sequence[Embedding] = (),
    ) -> DiffusionModel:
        """Load a model for inference; imports torch.

        Raises `SpecError` where the model cannot work, `DeviceFailed` where the device cannot.

        Args:
            model: a model with its weights.
            device: where the networks go.
            scheduler: a name of `txt2img.scheduler`; the folder's own where absent.
            dtype: `float32`, `float16`, `bfloat16`, or `auto`: bf16 on CUDA and fp32 on the CPU.
            embeddings: words that the text encoders learn besides their own.
        """
        ...

    def token_model(self, model: DiffusionModel, token: str, initializer: str, count: int, *, field: str) -> TokenModel:
        """Return a loaded model with a new word, to train it; imports torch.

        The model's embedding look-up is changed until the result is closed. Raises `SpecError` naming `field` where the
        model cannot learn the word.

        Args:
            model: what `load` returned.
            token: the new word.
            initializer: words of the model whose vectors the new ones start from.
            count: vectors of the word.
            field: what names the training in errors.
        """
        ...
