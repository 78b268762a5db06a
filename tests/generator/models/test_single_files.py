"""Models in single files: read by their headers, converted by diffusers, and equal to the folder of the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from diffugen_api.plan import SpecError
from diffugen_generator.families.unet.components import load
from diffugen_generator.models.resolve import resolve
from tests.generator.single_files import LAYOUTS, write_file, write_folder

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=LAYOUTS)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """A layout, and the same weights as a folder of diffusers and as a single file."""
    top = tmp_path_factory.mktemp("single")
    folder = write_folder(top / "folder", request.param)
    return request.param, folder, write_file(top / "file.safetensors", folder, request.param)


def uri_of(layout: str, file: Path) -> str:
    return f"{file}#{'v_prediction' if layout == '2-v' else 'epsilon'}" if layout in {"2", "2-v"} else str(file)


def test_a_single_file_has_the_weights_of_the_folder(both: tuple[str, Path, Path]) -> None:
    layout, folder, file = both

    single, plain = (load(resolve(uri), CPU) for uri in (uri_of(layout, file), str(folder)))

    pairs = [(single.unet, plain.unet), (single.vae, plain.vae)]
    pairs += [(a.network, b.network) for a, b in zip(single.encoders, plain.encoders, strict=True)]
    for one, other in pairs:
        weights = dict(other.named_parameters())
        assert {name for name, _ in one.named_parameters()} == set(weights)
        for name, each in one.named_parameters():
            torch.testing.assert_close(each, weights[name], rtol=0, atol=0, msg=name)
