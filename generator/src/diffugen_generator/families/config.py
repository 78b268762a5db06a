"""The interface of a model family for the plan, without torch: which files it reads, and whether they fit together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from diffugen_generator.families.checkpoint import CheckpointFolder, CheckpointHeader, Prediction
from diffugen_generator.families.embedding import Embedding
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.lora import Lora, Shapes

if TYPE_CHECKING:
    import torch

    from diffugen_generator.families.model import DiffusionModel
    from diffugen_generator.families.token_training import TokenModel


class FamilyConfig(Protocol):
    """A family of models: pipelines of diffusers that are loaded, drawn with and read in the same way."""

    @property
    def pipelines(self) -> Mapping[str, tuple[str, ...]]:
        """The classes of its pipelines, each with the folders of the components that are read."""
        ...

    @property
    def without_weights(self) -> frozenset[str]:
        """The components that have only settings."""
        ...

    @property
    def marks(self) -> int:
        """The number of tokens of a window that are marks, not words."""
        ...

    def check(self, folder: Path, pipeline: str) -> None:
        """Raise `ValueError` if the settings do not fit together; the error's text ends a sentence about the model."""
        ...

    def check_weights(self, folder: Path, component: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise `ValueError` if a component's weights do not fit its settings; the error's text ends a sentence.

        `shapes` has the shape of each tensor in the headers of its files, by name.
        """
        ...

    def read_checkpoint(self, header: CheckpointHeader, predicts: Prediction | None) -> CheckpointFolder | None:
        """Return the folder that a checkpoint in a single file stands for; None if it is of another family.

        Raises `ValueError` if the file is of this family and cannot be drawn with; the error's text ends a sentence
        about the model.

        Args:
            header: the tensors of the file, whose numbers are not read.
            predicts: what the network predicts, as the manifest says; if None, what the file says.
        """
        ...

    def takes_a_mask(self, folder: Path) -> bool:
        """Return whether the network was made for inpainting: it takes a mask and the masked image as extra input."""
        ...

    def check_sampler(
        self, model: ModelFolder, name: str | None, steps: int, *, field: str, stage: str, strength: float = 1
    ) -> None:
        """Raise `SpecError` if a stage cannot draw with its sampler, or not with this number of steps.

        Args:
            model: the model of the stage.
            name: a value of `scheduler` in the stage; if absent, the model's own scheduler.
            steps: the number of steps of the stage.
            field: the manifest's field that names the model.
            stage: the manifest's field with the stage's kind, such as `spec.stages[0].txt2img`.
            strength: the part of the steps that runs; below 1, the first timestep is not among them.
        """
        ...

    def run_sampler(self, model: ModelFolder, name: str | None, steps: int, *, strength: float = 1) -> None:
        """Run the sampler itself over its steps, without a network; imports torch.

        Raises `ValueError` if it fails; the error's text is a clause about the sampler. The arguments are those of
        `check_sampler`.
        """
        ...

    def token_limit(self, folder: Path, tokenizer: str = "tokenizer") -> int:
        """Return the tokens of one window of a text encoder, marks included; raise `ValueError` if unknown."""
        ...

    def vocabulary(self, folder: Path) -> frozenset[str]:
        """Return the words of the tokenizer, in lower case, and the parts of words that may end a word."""
        ...

    def embedding_sets(self, model: ModelFolder) -> Sequence[tuple[str, int]]:
        """Return, for each text encoder, its name in a file of textual inversion and the width of its vectors."""
        ...

    def check_lora(self, model: ModelFolder, shapes: Shapes) -> None:
        """Raise `ValueError` if a LoRA does not fit the model; the error's text continues a sentence about the file.

        Args:
            model: the model, whose weights are not read.
            shapes: the tensors of the LoRA's file.
        """
        ...

    def load(
        self,
        model: ModelFolder,
        device: torch.device,
        scheduler: str | None = None,
        *,
        dtype: str = "auto",
        embeddings: Sequence[Embedding] = (),
        loras: Sequence[Lora] = (),
    ) -> DiffusionModel:
        """Load a model for inference; imports torch.

        Raises `SpecError` if the model does not work, `DeviceFailed` if the device does not work.

        Args:
            model: a model with its weights.
            device: the device of the networks.
            scheduler: a name of `txt2img.scheduler`; if absent, the folder's own scheduler.
            dtype: `float32`, `float16`, `bfloat16`, or `auto`: bf16 on CUDA and fp32 on the CPU.
            embeddings: new words for the text encoders.
            loras: LoRAs to add to the weights; the files of the model stay as they are.
        """
        ...

    def token_model(self, model: DiffusionModel, token: str, initializer: str, count: int, *, field: str) -> TokenModel:
        """Return a loaded model with a new word, to train it; imports torch.

        The model's embedding look-up is changed until the result is closed. Raises `SpecError` naming `field` if the
        model cannot learn the word.

        Args:
            model: a model that `load` returned.
            token: the new word.
            initializer: words of the model; the new vectors start from their vectors.
            count: the number of vectors of the word.
            field: the field that names the training in errors.
        """
        ...
