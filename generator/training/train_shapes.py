"""Train `builtin://shapes` from nothing: draw scenes, train the autoencoder, then the denoiser, and export.

    python -m generator.training.train_shapes --workdir ~/.cache/diffugen/shapes

Every stage writes a file into the working directory and is skipped if that file exists. So a run can be stopped at any
time and started again. The denoiser resumes from its latest checkpoint.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from diffusers import AutoencoderKL
from generator.training.autoencoder import AutoencoderSettings, encode_all, standardise_latents, train_autoencoder
from generator.training.denoiser import DenoiserSettings, train_denoiser
from generator.training.pipelines import export_pipeline

from generator.training import scenes

SCENES = 40_000
SCENE_SEED = 7


def draw_data(workdir: Path) -> None:
    """Draw the training scenes: images in `images.npy`, contents in `contents.npz`."""
    if (workdir / "contents.npz").exists():
        return
    drawn = scenes.draw(SCENES, np.random.default_rng(SCENE_SEED))
    np.save(workdir / "images.npy", drawn.images)
    np.savez(workdir / "contents.npz", classes=drawn.classes, colors=drawn.colors, backgrounds=drawn.backgrounds)


def encode_data(workdir: Path) -> None:
    """Standardise the latents of the trained autoencoder, and encode all images once into `latents.npy`."""
    if (workdir / "latents.npy").exists():
        return
    images = np.load(workdir / "images.npy", mmap_mode="r")
    model = AutoencoderKL.from_pretrained(workdir / "vae").eval()
    standardise_latents(model, encode_all(model, images[:2000]))
    model.save_pretrained(workdir / "vae-standard")
    np.save(workdir / "latents.npy", encode_all(model, images).contiguous().numpy())


def main() -> None:
    """Run all stages that have not been run."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--workdir", type=Path, required=True, help="where stages leave their files")
    arguments.add_argument("--autoencoder-samples", type=int, default=AutoencoderSettings.samples)
    arguments.add_argument("--samples", type=int, default=800_000, help="samples that the denoiser sees in all")
    arguments.add_argument("--cool-samples", type=int, default=0, help="of these, the last, at a falling rate")
    arguments.add_argument("--batch", type=int, default=DenoiserSettings.batch)
    arguments.add_argument("--ranks", type=int, default=DenoiserSettings.ranks)
    arguments.add_argument("--optimizer", choices=("muon", "adamw"), default=DenoiserSettings.optimizer)
    arguments.add_argument("--muon-rate", type=float, default=DenoiserSettings.muon_rate)
    arguments.add_argument("--adamw-rate", type=float, default=DenoiserSettings.adamw_rate)
    arguments.add_argument("--checkpoint", default="denoiser.pt", help="file in the working directory")
    arguments.add_argument("--export", type=Path, help="write the pipeline to this folder at the end")
    options = arguments.parse_args()
    workdir: Path = options.workdir
    workdir.mkdir(parents=True, exist_ok=True)
    draw_data(workdir)
    if not (workdir / "vae.done").exists():
        settings = AutoencoderSettings(samples=options.autoencoder_samples, ranks=options.ranks)
        train_autoencoder(workdir / "images.npy", workdir / "vae", settings)
        (workdir / "vae.done").touch()
    encode_data(workdir)
    checkpoint = workdir / options.checkpoint
    train_denoiser(
        workdir,
        checkpoint,
        DenoiserSettings(
            samples=options.samples,
            cool_samples=options.cool_samples,
            batch=options.batch,
            optimizer=options.optimizer,
            muon_rate=options.muon_rate,
            adamw_rate=options.adamw_rate,
            ranks=options.ranks,
        ),
    )
    if options.export:
        export_pipeline(workdir / "vae-standard", checkpoint, options.export)


if __name__ == "__main__":
    main()
