"""Train `builtin://shapes-segmenter`, a small Mask2Former for the classes of `builtin://shapes`, from nothing.

    python -m generator.training.train_segmenter --workdir ~/.cache/diffugen/segmenter --export FOLDER

It learns from drawn scenes with exact masks, and from images that `builtin://shapes` generates, with the color oracle's
masks. Half of the drawn scenes are encoded and decoded by the autoencoder of `builtin://shapes`, with noise on the
latents. The seeds of the generated images differ from all seeds of measurements. Every stage writes a file into the
working directory and is skipped if that file exists. The training resumes from its latest checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from generator.training.measure_shapes import drawn_prompts
from generator.training.right_images import BATCH, right_images
from numpy.typing import NDArray
from transformers import (
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    SwinConfig,
)

from diffugen_generator.models.uris import BUILTIN_FOLDER
from generator.training import scenes

SEED = 7_070_707
"""Seed of drawn and of generated training images; measurements use seeds below a million."""
DRAWN = 8_000
GENERATED = 1_600
CHECKPOINT_EVERY = 100

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Data:
    """Images with up to two objects each."""

    images: Images
    """[n, 64, 64, 3] sRGB."""
    masks: NDArray[np.bool_]
    """[n, 2, 64, 64]; all False where there is no object."""
    classes: NDArray[np.int64]
    """[n, 2] indices into `scenes.CLASSES`, or `scenes.NOTHING`."""

    def save(self, file: Path) -> None:
        """Write `file` completely or not at all."""
        with file.with_suffix(".part").open("wb") as part:
            np.savez_compressed(part, images=self.images, masks=self.masks, classes=self.classes)
        file.with_suffix(".part").replace(file)

    @classmethod
    def load(cls, file: Path) -> Data:
        """Read what `save` wrote."""
        with np.load(file) as arrays:
            return cls(arrays["images"], arrays["masks"], arrays["classes"])


def draw_data(file: Path) -> None:
    """Draw scenes with exact masks; every second one goes through the autoencoder with noise on its latents."""
    if file.exists():
        return
    drawn = scenes.draw(DRAWN, np.random.default_rng(SEED))
    vae = StableDiffusionPipeline.from_pretrained(BUILTIN_FOLDER / "shapes", dtype=torch.float32).vae
    noise = torch.Generator().manual_seed(SEED)
    images = drawn.images.copy()
    images[::2] = np.concatenate([_round_trip(vae, images[i : i + 128 : 2], noise) for i in range(0, DRAWN, 128)])
    Data(images, drawn.masks, drawn.classes).save(file)


@torch.no_grad()
def _round_trip(vae: Any, images: Images, noise: torch.Generator) -> Images:
    """`images` [n, 64, 64, 3] encoded, noised by a deviation of 0 to 0.25 and decoded."""
    latents = vae.encode(as_input(images)).latent_dist.mean
    strength = 0.25 * torch.rand(len(latents), 1, 1, 1, generator=noise)
    latents = latents + strength * torch.randn(latents.shape, generator=noise)
    decoded = (vae.decode(latents).sample / 2 + 0.5).clamp(0, 1) * 255
    return np.asarray(decoded.round().permute(0, 2, 3, 1).byte().numpy())


def generate_data(file: Path) -> None:
    """Generate images of one and of two objects; those with the requested objects get the oracle's masks."""
    if file.exists():
        return
    words = [*drawn_prompts(GENERATED * 2 // 5, 1, SEED), *drawn_prompts(GENERATED * 3 // 5, 2, SEED)]
    images, masks, classes = [], [], []
    for batch, some in enumerate(right_images(words, SEED), 1):
        for image, objects in some:
            blank = 2 - len(objects)
            images.append(image)
            masks.append(np.stack([*(mask for _, mask in objects), *[np.zeros(image.shape[:2], np.bool_)] * blank]))
            classes.append([*(scenes.CLASSES.index(name) for name, _ in objects), *[scenes.NOTHING] * blank])
        print(f"generated {min(batch * BATCH, len(words))}/{len(words)}, {len(images)} of them right", flush=True)
    Data(np.stack(images), np.stack(masks), np.array(classes, np.int64)).save(file)


def new_segmenter() -> Any:  # transformers is untyped
    """An untrained Mask2Former of 0.9 M parameters for images of 64x64, with masks of 32x32."""
    backbone = SwinConfig(
        image_size=scenes.SIZE,
        patch_size=2,
        embed_dim=24,
        depths=[1, 1, 1, 1],
        num_heads=[2, 2, 4, 4],
        window_size=4,
        drop_path_rate=0.0,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=64,
        mask_feature_size=64,
        hidden_dim=64,
        encoder_feedforward_dim=128,
        encoder_layers=1,
        decoder_layers=3,
        num_attention_heads=4,
        dim_feedforward=128,
        num_queries=6,
        dropout=0.0,
        train_num_points=768,
        id2label=dict(enumerate(scenes.CLASSES)),
        label2id={name: index for index, name in enumerate(scenes.CLASSES)},
    )
    return Mask2FormerForUniversalSegmentation(config)


def new_processor() -> Any:  # transformers is untyped
    """Images of any size to 64x64 in [-1, 1]."""
    return Mask2FormerImageProcessor(
        size={"height": scenes.SIZE, "width": scenes.SIZE},
        size_divisor=1,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        ignore_index=255,
        num_labels=len(scenes.CLASSES),
    )


def as_input(images: Images) -> torch.Tensor:
    """uint8 [n, h, w, 3] to float [n, 3, h, w] in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def batch_of(drawn: Data, generated: Data, size: int, rng: np.random.Generator) -> tuple[torch.Tensor, Data]:
    """Half drawn and half generated images, [size, 3, 64, 64], changed a little; and the images' data.

    One in 25 is emptied: its leftmost column, which no object reaches, is spread over the image.
    """
    one, other = rng.integers(len(drawn.images), size=size // 2), rng.integers(len(generated.images), size=size // 2)
    images = np.concatenate([drawn.images[one], generated.images[other]])
    masks = np.concatenate([drawn.masks[one], generated.masks[other]])
    classes = np.concatenate([drawn.classes[one], generated.classes[other]])
    for empty in np.flatnonzero(rng.random(size) < 0.04):
        images[empty], masks[empty], classes[empty] = images[empty][:, :1], False, scenes.NOTHING
    inputs = as_input(images)
    gain = torch.from_numpy(rng.uniform(0.9, 1.1, (size, 1, 1, 1)).astype(np.float32))
    noise = torch.from_numpy(rng.normal(0, rng.uniform(0, 0.04), inputs.shape).astype(np.float32))
    return ((inputs + 1) * gain - 1 + noise).clamp(-1, 1), Data(images, masks, classes)


def train(workdir: Path, *, steps: int, batch: int, rate: float) -> None:
    """Train for `steps` steps in total; `latest.pt` has the state, with weights averaged over the last steps."""
    drawn, generated = Data.load(workdir / "drawn.npz"), Data.load(workdir / "generated.npz")
    torch.manual_seed(SEED)
    model = new_segmenter().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-2, betas=(0.9, 0.98))
    averaged = {name: value.clone() for name, value in model.state_dict().items()}
    first, latest = 0, workdir / "latest.pt"
    if latest.exists():
        state = torch.load(latest, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        averaged, first = state["averaged"], state["step"]
    started, running = time.monotonic(), 0.0
    for step in range(first, steps):
        left = (steps - step) / steps
        for group in optimizer.param_groups:
            group["lr"] = rate * min((step + 1) / 100, 1.0, left / 0.4)
        rng = np.random.default_rng([SEED, step])
        inputs, data = batch_of(drawn, generated, batch, rng)
        there = data.classes != scenes.NOTHING
        out = model(
            pixel_values=inputs,
            mask_labels=[torch.from_numpy(m[t]).float() for m, t in zip(data.masks, there, strict=True)],
            class_labels=[torch.from_numpy(c[t]) for c, t in zip(data.classes, there, strict=True)],
        )
        optimizer.zero_grad()
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        running += out.loss.item()
        keep = min(0.998, step / (step + 50))
        with torch.no_grad():
            for name, value in model.state_dict().items():
                if value.is_floating_point():
                    averaged[name].lerp_(value, 1 - keep)
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == steps:
            speed = (step + 1 - first) / (time.monotonic() - started)
            print(f"step {step + 1}/{steps} loss {running / CHECKPOINT_EVERY:.3f} {speed:.2f} steps/s", flush=True)
            running = 0.0
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "averaged": averaged}
            torch.save({**state, "step": step + 1}, latest.with_suffix(".part"))
            latest.with_suffix(".part").replace(latest)


def export(latest: Path, folder: Path) -> None:
    """Write the averaged weights to `folder` as float16 safetensors; other files there, such as the card, stay."""
    model = new_segmenter()
    model.load_state_dict(torch.load(latest, weights_only=True)["averaged"])
    model.half().save_pretrained(folder, safe_serialization=True)
    new_processor().save_pretrained(folder)
    # By default transformers loads float16 files as float16.
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "dtype": "float32"}, indent=2) + "\n")
    (folder / "model.safetensors").chmod(0o644)


def main() -> None:
    """Run all stages that have not been run."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--workdir", type=Path, required=True, help="where stages leave their files")
    arguments.add_argument("--steps", type=int, default=4000)
    arguments.add_argument("--batch", type=int, default=16)
    arguments.add_argument("--rate", type=float, default=1e-3)
    arguments.add_argument("--export", type=Path, help="write the model to this folder at the end")
    options = arguments.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    workdir: Path = options.workdir
    workdir.mkdir(parents=True, exist_ok=True)
    draw_data(workdir / "drawn.npz")
    generate_data(workdir / "generated.npz")
    train(workdir, steps=options.steps, batch=options.batch, rate=options.rate)
    if options.export:
        export(workdir / "latest.pt", options.export)


if __name__ == "__main__":
    main()
