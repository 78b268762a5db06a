"""What diffusers' networks compute with LoRAs: a program of its own, as diffusers needs peft for them.

    python -m tests.generator.models.diffusers_loras FOLDER

FOLDER has pipelines, each with folders of LoRAs: NAME/model and NAME/LAYOUT/0.safetensors, 1.safetensors. The program
writes NAME/plain.pt and NAME/LAYOUT.pt. diffusers imports peft wherever it is installed, which takes seconds in each
process, and the images do not have it: so it is installed in a folder of its own (`make venv`).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

PEFT = Path(sys.prefix) / "peft"
NAMES = ("unet", "text_encoder", "text_encoder_2")
WEIGHTS = (0.8, -0.5)


def outputs_of(networks: Mapping[str, Any], *, xl: bool) -> torch.Tensor:
    """Everything that the networks compute for some inputs, in one row."""
    torch.manual_seed(9)
    ids = torch.tensor([[5, 6, 7, 8]])
    unet = networks["unet"]
    found = [networks[name](ids, output_hidden_states=True).last_hidden_state for name in NAMES[1:] if name in networks]
    width = unet.config.cross_attention_dim
    added = {"text_embeds": torch.randn(1, 24), "time_ids": torch.ones(1, 6)} if xl else None
    states = torch.randn(1, 4, width)
    found.append(unet(torch.randn(1, 4, 16, 16), 7, encoder_hidden_states=states, added_cond_kwargs=added)[0])
    return torch.cat([each.flatten() for each in found])


def networks_of(pipeline: Any) -> dict[str, Any]:
    """The networks of a pipeline by their names in diffusers."""
    return {name: getattr(pipeline, name) for name in NAMES if getattr(pipeline, name, None) is not None}


def compute(folder: Path) -> None:
    """Run this program in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, str(folder)]
    subprocess.run(command, cwd=Path(__file__).parents[3], check=True, timeout=300)


@torch.no_grad()
def _main(folder: Path) -> None:
    sys.path.insert(0, str(PEFT))
    from diffusers import DiffusionPipeline

    for model in sorted(folder.glob("*/model")):
        name = model.parent.name
        torch.save(
            outputs_of(networks_of(DiffusionPipeline.from_pretrained(model)), xl=name == "xl"),
            model.parent / "plain.pt",
        )
        for layout in sorted(each for each in model.parent.iterdir() if (each / "0.safetensors").exists()):
            pipeline = DiffusionPipeline.from_pretrained(model)
            for number in range(len(WEIGHTS)):
                pipeline.load_lora_weights(layout / f"{number}.safetensors", adapter_name=f"n{number}")
            pipeline.set_adapters([f"n{number}" for number in range(len(WEIGHTS))], list(WEIGHTS))
            torch.save(outputs_of(networks_of(pipeline), xl=name == "xl"), layout.with_suffix(".pt"))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
