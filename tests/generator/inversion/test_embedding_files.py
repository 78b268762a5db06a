"""diffusers and the generator read the same vectors from the file of a trained token, bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.families.unet.components import load
from diffugen_generator.inversion.embedding_files import embedding_files
from diffugen_generator.inversion.result_names import BOTH, FIRST, SECOND, whole_file
from diffugen_generator.models.embeddings import open_embedding
from diffugen_generator.models.resolve import resolve
from tests.generator.inversion.trainings import CPU, TOKEN
from tests.generator.pipelines import write_shape

PROMPT = f"a red {TOKEN} on snow"


def vectors(width: int, count: int) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(width))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("shape", "width"), [("sd1", 32), ("sd2", 48)])
def test_states_equal_those_of_diffusers(tmp_path: Path, shape: str, width: int, count: int) -> None:
    model = resolve(str(write_shape(tmp_path / shape, shape)))
    files = embedding_files(TOKEN, [vectors(width, count)])
    assert list(files) == [FIRST] == [whole_file(1)]
    (tmp_path / FIRST).write_bytes(files[FIRST])
    pipeline: Any = DiffusionPipeline.from_pretrained(model.path)
    pipeline.load_textual_inversion(tmp_path / FIRST)

    ours = TextStates(load(model, CPU, embeddings=[open_embedding(tmp_path / FIRST, TOKEN, model, field="f")]))
    theirs, _ = pipeline.encode_prompt(PROMPT, CPU, 1, False)

    assert torch.equal(ours.of([PROMPT]), theirs)


def test_states_of_xl_equal_those_of_diffusers_from_both_files(tmp_path: Path) -> None:
    model = resolve(str(write_shape(tmp_path / "xl", "xl")))
    files = embedding_files(TOKEN, [vectors(32, 2), vectors(40, 2)])
    assert list(files) == [FIRST, SECOND, BOTH]
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    pipeline: Any = DiffusionPipeline.from_pretrained(model.path)
    first, second = (pipeline.text_encoder, pipeline.tokenizer), (pipeline.text_encoder_2, pipeline.tokenizer_2)
    for name, (encoder, tokenizer) in zip((FIRST, SECOND), (first, second), strict=True):
        pipeline.load_textual_inversion(tmp_path / name, text_encoder=encoder, tokenizer=tokenizer)

    embedding = open_embedding(tmp_path / whole_file(2), TOKEN, model, field="f")
    ours = TextStates(load(model, CPU, embeddings=[embedding]))
    theirs, _, _, _ = pipeline.encode_prompt(PROMPT, do_classifier_free_guidance=False)

    assert torch.equal(ours.of([PROMPT]), theirs)
