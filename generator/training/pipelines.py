"""A checkpoint as an ordinary `StableDiffusionPipeline` folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from generator.training.denoiser import Denoiser, new_scheduler
from generator.training.tokens import FROZEN, load_tokenizer


def pipeline_of(autoencoder: Path, checkpoint: Path) -> Any:  # diffusers is untyped
    """The pipeline with the averaged weights of `checkpoint`, in float32."""
    denoiser = Denoiser()
    denoiser.load_state_dict(torch.load(checkpoint, weights_only=True)["averaged"])
    return StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(autoencoder),
        text_encoder=denoiser.text,
        tokenizer=load_tokenizer(),
        unet=denoiser.unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def export_pipeline(autoencoder: Path, checkpoint: Path, folder: Path) -> None:
    """Write the pipeline to `folder` as float16 safetensors; other files there, such as the card, stay."""
    pipeline = pipeline_of(autoencoder, checkpoint).to(torch.float16)
    for part in ("vae", "text_encoder", "tokenizer", "unet", "scheduler"):
        shutil.rmtree(folder / part, ignore_errors=True)
    pipeline.save_pretrained(folder, safe_serialization=True)
    # By default transformers loads float16 files as float16, and diffusers loads the other parts as float32.
    config = folder / "text_encoder" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "dtype": "float32"}, indent=2) + "\n")
    # The path from which the parts were loaded is specific to this machine and would change the model's digest.
    for config in folder.glob("*/config.json"):
        kept = {key: value for key, value in json.loads(config.read_text()).items() if key != "_name_or_path"}
        config.write_text(json.dumps(kept, indent=2) + "\n")
    # In addition to tokenizer.json, for programs that read the two older files.
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(FROZEN / name, folder / "tokenizer" / name)
    for file in folder.glob("*/*.safetensors"):
        file.chmod(0o644)  # they are written so that only their owner can read them
