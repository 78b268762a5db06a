"""A pipeline with the layers of Stable Diffusion 1.5 and random weights: it needs the same time as the real model.

Sizes are those of the configurations that diffusers' conversion script writes for SD 1.x
(https://github.com/huggingface/diffusers, scripts/convert_original_stable_diffusion_to_diffusers.py): a UNet of 860 M
parameters, an autoencoder of 84 M, CLIP ViT-L/14's text encoder with windows of 77 tokens. The vocabulary is the
built-in model's, as reading a row of a smaller table costs the same. Weights are random, so images are noise.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from diffugen_generator.families.folder import ModelFolder

WINDOW = 77
"""Number of tokens that the text encoder reads at once."""


def write_sd15(folder: Path, builtin: ModelFolder) -> None:
    """Write the pipeline to `folder`: 4 GB in fp32."""
    torch.manual_seed(0)
    words = folder / "words"
    shutil.copytree(builtin.path / "tokenizer", words)
    settings = json.loads((words / "tokenizer_config.json").read_text())
    (words / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": WINDOW}))
    tokenizer = CLIPTokenizer.from_pretrained(words)
    pipeline: Any = StableDiffusionPipeline(
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            sample_size=512,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=768,
                intermediate_size=3072,
                num_hidden_layers=12,
                num_attention_heads=12,
                max_position_embeddings=WINDOW,
                hidden_act="quick_gelu",
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        ),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8),
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    shutil.rmtree(words)
