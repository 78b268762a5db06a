"""Measure a shapes pipeline: how often images show the requested objects, and how exact labels from attention are.

    python -m generator.training.measure_shapes FOLDER --prompts 200 --json measured.json --sheet sheet.png

An image is right when the color oracle finds exactly the colors that the prompt names (`oracle.shows`).
Labels: the final latents of a right image are noised to t = 100 and denoised once with the image's own caption. The
cross-attention of a class noun is averaged over layers and heads, enlarged to the image, scaled to 0..1 and cut at a
threshold. The result is compared (intersection over union) with the oracle's mask of the object that has the noun's
color.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray

from diffugen_generator.builtin_shapes import oracle
from generator.training import scenes

THRESHOLDS = (0.3, 0.4, 0.5)


@dataclass
class Figures:
    """What was measured for prompts with one number of objects."""

    prompts: int = 0
    right: float = 0.0
    """Share of images with exactly the requested objects."""
    in_order: float = 0.0
    """Share of images that also have them in the prompt's order, left to right."""
    outlines: float = 0.0
    """Share of the objects in right images whose outline fits the requested class best."""
    label_iou: dict[str, float] = field(default_factory=dict)
    """Mean intersection over union of attention labels in right images, by threshold."""


@contextmanager
def cross_attention(unet: Any) -> Iterator[list[torch.Tensor]]:
    """Collect the probabilities [batch, heads, pixels, tokens] of every cross-attention during the block."""
    kept: list[torch.Tensor] = []

    class Keeping:
        def __call__(
            self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, **_: Any
        ) -> torch.Tensor:
            query = attn.head_to_batch_dim(attn.to_q(hidden_states))
            key = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
            value = attn.head_to_batch_dim(attn.to_v(encoder_hidden_states))
            probabilities = attn.get_attention_scores(query, key)
            kept.append(probabilities.unflatten(0, (-1, attn.heads)))
            out: torch.Tensor = attn.to_out[0](attn.batch_to_head_dim(probabilities @ value))
            return out

    before = unet.attn_processors
    unet.set_attn_processor({k: Keeping() if ".attn2." in k else v for k, v in before.items()})
    try:
        yield kept
    finally:
        unet.set_attn_processor(before)


@torch.no_grad()
def attention_maps(pipeline: Any, latents: torch.Tensor, captions: list[str], *, t: int, seed: int) -> torch.Tensor:
    """Maps [n, tokens, 16, 16] of `latents` noised to step `t` and denoised once with their own captions."""
    ids = pipeline.tokenizer(
        captions, padding="max_length", max_length=pipeline.tokenizer.model_max_length, return_tensors="pt"
    ).input_ids
    states = pipeline.text_encoder(ids).last_hidden_state
    steps = torch.full((len(latents),), t)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
    with cross_attention(pipeline.unet) as kept:
        pipeline.unet(pipeline.scheduler.add_noise(latents, noise, steps), steps, states)
    side = latents.shape[-1]
    words = torch.stack([p.mean(dim=1) for p in kept if p.shape[2] == side * side]).mean(dim=0).mT
    return words.reshape(*words.shape[:2], side, side)


def enlarged(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """A map [16, 16] as [64, 64], scaled to 0..1."""
    large = cv2.resize(values, (scenes.SIZE, scenes.SIZE), interpolation=cv2.INTER_LINEAR)
    return np.asarray((large - large.min()) / max(float(large.max() - large.min()), 1e-9), np.float32)


def overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Intersection over union."""
    return float((one & other).sum() / max(1, (one | other).sum()))


def drawn_prompts(count: int, objects: int, seed: int) -> list[scenes.Words]:
    """Contents of `count` random scenes with this number of objects."""
    drawn = scenes.draw(count, np.random.default_rng([seed, objects]), two=float(objects - 1))
    return [scenes.words_of(drawn, index) for index in range(count)]


def decode(pipeline: Any, latents: torch.Tensor) -> NDArray[np.uint8]:
    """Images uint8 [n, 64, 64, 3] of `latents` [n, 4, 16, 16]."""
    with torch.no_grad():
        images = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    return np.asarray(((images / 2 + 0.5).clamp(0, 1) * 255).round().permute(0, 2, 3, 1).byte().numpy())


def measure(
    pipeline: Any, words: list[scenes.Words], *, steps: int, guidance: float, batch: int, seed: int
) -> tuple[Figures, NDArray[np.uint8], list[bool]]:
    """Draw an image for each of `words`; return figures, images [n, 64, 64, 3], and which of them are right."""
    images: list[NDArray[np.uint8]] = []
    right: list[bool] = []
    ordered: list[bool] = []
    outlines: list[bool] = []
    ious: dict[float, list[float]] = {threshold: [] for threshold in THRESHOLDS}
    for start in range(0, len(words), batch):
        part = words[start : start + batch]
        captions = [scenes.full_caption(each) for each in part]
        generators = [torch.Generator().manual_seed(seed + start + i) for i in range(len(part))]
        latents = pipeline(
            captions,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=generators,
            output_type="latent",
        ).images
        maps = attention_maps(pipeline, latents, captions, t=100, seed=seed + start)
        for index, (image, each) in enumerate(zip(decode(pipeline, latents), part, strict=True)):
            images.append(image)
            wanted = [color for color, _ in each.objects]
            found = {one.color: one.mask for one in oracle.objects_of(image)}
            right.append(sorted(found) == sorted(wanted))
            ordered.append(list(found) == wanted)
            if not right[-1]:
                continue
            tokens = pipeline.tokenizer.tokenize(captions[index])
            for color, kind in each.objects:
                outlines.append(oracle.outline_of(found[color]) == kind)
                at = tokens.index(f"{kind}</w>") + 1  # after the start mark
                values = enlarged(maps[index, at].numpy())
                for threshold in THRESHOLDS:
                    ious[threshold].append(overlap(values >= threshold, found[color]))
    figures = Figures(
        prompts=len(words),
        right=float(np.mean(right)),
        in_order=float(np.mean(ordered)),
        outlines=float(np.mean(outlines)) if outlines else 0.0,
        label_iou={f"{threshold}": float(np.mean(v)) if v else 0.0 for threshold, v in ious.items()},
    )
    return figures, np.stack(images), right


def contact_sheet(images: NDArray[np.uint8], right: list[bool], *, columns: int = 12) -> NDArray[np.uint8]:
    """Images in rows, wrong ones framed in red: uint8 [h, w, 3]."""
    framed = [
        cv2.copyMakeBorder(p, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=(255, 255, 255) if ok else (255, 0, 0))
        for p, ok in zip(images, right, strict=True)
    ]
    framed += [np.full_like(framed[0], 255)] * (-len(framed) % columns)
    rows = [np.concatenate(framed[start : start + columns], axis=1) for start in range(0, len(framed), columns)]
    return np.asarray(np.concatenate(rows, axis=0))


def main() -> None:
    """Measure one- and two-object prompts; print a table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--prompts", type=int, default=200, help="per number of objects")
    arguments.add_argument("--steps", type=int, default=20)
    arguments.add_argument("--guidance", type=float, default=3.0)
    arguments.add_argument("--batch", type=int, default=16)
    arguments.add_argument("--seed", type=int, default=1000)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--json", type=Path)
    arguments.add_argument("--sheet", type=Path)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    pipeline = StableDiffusionPipeline.from_pretrained(options.folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    table: dict[str, Any] = {"steps": options.steps, "guidance": options.guidance, "seed": options.seed}
    sheets = []
    for objects in (1, 2):
        started = time.monotonic()
        figures, images, right = measure(
            pipeline,
            drawn_prompts(options.prompts, objects, options.seed),
            steps=options.steps,
            guidance=options.guidance,
            batch=options.batch,
            seed=options.seed,
        )
        seconds = (time.monotonic() - started) / options.prompts
        table[f"objects_{objects}"] = {**asdict(figures), "seconds_per_picture": round(seconds, 3)}
        labels = " ".join(f"@{threshold} {iou:.3f}" for threshold, iou in figures.label_iou.items())
        print(
            f"{objects} object(s): right {figures.right:.3f}, in order {figures.in_order:.3f},"
            f" outlines {figures.outlines:.3f}, label IoU {labels},"
            f" {figures.prompts} prompts, {seconds:.2f} s each",
            flush=True,
        )
        sheets.append(contact_sheet(images[:60], right[:60]))
    if options.json:
        options.json.write_text(json.dumps(table, indent=2) + "\n")
    if options.sheet:
        cv2.imwrite(str(options.sheet), np.concatenate(sheets)[..., ::-1])


if __name__ == "__main__":
    main()
