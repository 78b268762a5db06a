"""The denoiser of `builtin://shapes`: a UNet and a text encoder, trained together on frozen latents.

An ordinary latent diffusion model: v-prediction (Salimans & Ho 2022, https://arxiv.org/abs/2202.00512) with
clipped signal-to-noise weights (Hang et al. 2023, https://arxiv.org/abs/2303.09556). No loss uses the attention. Two
dropouts of text states bind each word to the object that it names. In half the samples, end marks and padding are set
to zero, so that the words themselves must describe the scene. In many samples, color words are set to zero, so that
nouns must do so.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from generator.training.muon import Muon
from generator.training.ranks import average_gradients, run_on_ranks
from generator.training.tokens import END, MAX_TOKENS, START, load_tokenizer, token_id, token_ids
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from generator.training import scenes

WIDTH = 96
"""Width of the text states."""

HELD_OUT = 500
"""Number of scenes at the end of the data that training never uses."""


@dataclass(frozen=True)
class DenoiserSettings:
    """How the denoiser is trained."""

    samples: int
    """Samples after which training stops, over all ranks and since the start."""
    cool_samples: int = 0
    """Number of last samples over which the learning rate falls linearly to zero; 0: it never falls."""
    batch: int = 16
    """Samples per rank and step."""
    optimizer: str = "muon"
    """`muon` (weights of two and more dimensions inside the UNet; the rest by AdamW) or `adamw`."""
    muon_rate: float = 0.01
    adamw_rate: float = 1.5e-3
    averaging: float = 0.999
    """Decay per step of the averaged weights, which are the ones exported."""
    seed: int = 23
    ranks: int = 2
    """Processes of one thread each."""


class Denoiser(nn.Module):
    """UNet and text encoder as one module, so that they are averaged, saved and exported together."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(32, 64),
            layers_per_block=1,
            # All three cross-attentions work at 16x16: words matched their objects better than with 8x8 in addition.
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            mid_block_type="UNetMidBlock2D",
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            norm_num_groups=8,
            cross_attention_dim=WIDTH,
            attention_head_dim=2,  # diffusers reads this as the number of heads
        ).to(memory_format=torch.channels_last)
        tokenizer = load_tokenizer()
        self.text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=WIDTH,
                intermediate_size=2 * WIDTH,
                projection_dim=WIDTH,
                num_hidden_layers=1,
                num_attention_heads=4,
                max_position_embeddings=MAX_TOKENS,
                bos_token_id=token_id(tokenizer, START),
                eos_token_id=token_id(tokenizer, END),
                pad_token_id=token_id(tokenizer, END),
            )
        )

    def forward(
        self, noisy: torch.Tensor, t: torch.Tensor, ids: torch.Tensor, keep: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Predicted velocity [n, 4, 16, 16] of `noisy` latents at steps `t` [n], given token `ids` [n, 20].

        `keep` [n, 20] multiplies the text states: 0 silences a word.
        """
        states = self.text(ids).last_hidden_state  # [n, 20, width]
        if keep is not None:
            states = states * keep[..., None]
        velocity: torch.Tensor = self.unet(noisy, t, states).sample
        return velocity


def new_scheduler() -> Any:  # diffusers is untyped
    """Linear betas up to 2e-2: almost no signal is left at the last step, so the noise does not show the background."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=2e-2,
        beta_schedule="linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,  # trailing spacing does not use it, but the pipeline expects this value
    )


@dataclass(frozen=True)
class Batch:
    """One step's worth of training samples."""

    latents: torch.Tensor
    """[n, 4, 16, 16]."""
    noise: torch.Tensor
    """[n, 4, 16, 16]."""
    t: torch.Tensor
    """[n] steps 0..999."""
    ids: torch.Tensor
    """[n, 20] token ids."""
    keep: torch.Tensor
    """[n, 20] factors of the text states, 0 or 1."""


class Data:
    """Encoded scenes and their captions; every batch depends only on its seed."""

    def __init__(self, workdir: Path) -> None:
        self.latents = torch.from_numpy(np.load(workdir / "latents.npy"))
        contents = np.load(workdir / "contents.npz")
        no_images, no_masks = np.empty(0, np.uint8), np.empty(0, np.bool_)
        drawn = scenes.Scenes(no_images, no_masks, contents["classes"], contents["colours"], contents["backgrounds"])
        self.words = [scenes.words_of(drawn, index) for index in range(len(self.latents))]
        self.tokenizer = load_tokenizer()
        self.end = token_id(self.tokenizer, END)
        self.start = token_id(self.tokenizer, START)
        self.color_ids = torch.tensor(self.tokenizer.convert_tokens_to_ids([f"{name}</w>" for name in scenes.COLORS]))

    def batch(self, count: int, *, seed: list[int], full: bool = False) -> Batch:
        """Draw `count` samples. `full`: from the held-out scenes, with full captions and no dropout."""
        rng = np.random.default_rng(seed)
        size = len(self.latents)
        low, high = (size - HELD_OUT, size) if full else (0, size - HELD_OUT)
        picked = rng.integers(low, high, count)
        words = [self.words[index] for index in picked]
        captions = [scenes.full_caption(w) if full else scenes.drawn_caption(w, rng) for w in words]
        ids = token_ids(self.tokenizer, captions)
        # Stratified: one step from each of `count` equal parts of 0..999.
        t = (np.arange(count) + rng.random(count)) / count * 1000
        noise = rng.standard_normal((count, *self.latents.shape[1:]), np.float32)
        keep = torch.ones(ids.shape) if full else self._keep(ids, rng)
        return Batch(self.latents[picked], torch.from_numpy(noise), torch.from_numpy(t.astype(np.int64)), ids, keep)

    def _keep(self, ids: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Text-state dropout [n, 20]: end marks in half the samples; color words, and rarely other words."""
        count = len(ids)
        color = torch.isin(ids, self.color_ids)
        end = ids == self.end
        word = ~end & (ids != self.start)
        chance = 0.05 * word + 0.55 * color  # a color word: 0.6
        chance = chance * torch.from_numpy(rng.random((count, 1)) < 0.6)
        chance = torch.where(end, torch.from_numpy((rng.random((count, 1)) < 0.5).astype(np.float64)), chance)
        return (torch.from_numpy(rng.random(ids.shape)) >= chance).float()


def loss_of(model: nn.Module, batch: Batch, alphas: torch.Tensor) -> torch.Tensor:
    """Weighted squared error of the velocity, one per sample [n]; `alphas` [1000] are cumulative products."""
    alpha = alphas[batch.t][:, None, None, None]
    noisy = alpha.sqrt() * batch.latents + (1 - alpha).sqrt() * batch.noise
    velocity = alpha.sqrt() * batch.noise - (1 - alpha).sqrt() * batch.latents
    predicted = model(noisy.contiguous(memory_format=torch.channels_last), batch.t, batch.ids, batch.keep)
    error = (predicted - velocity).square().mean(dim=(1, 2, 3))
    ratio = alphas[batch.t] / (1 - alphas[batch.t])
    weighted: torch.Tensor = error * (ratio + 1).clamp(max=6) / (ratio + 1)
    return weighted


def train_denoiser(workdir: Path, checkpoint: Path, settings: DenoiserSettings) -> None:
    """Train from `checkpoint`, if it exists, until `settings.samples`; update `checkpoint` meanwhile."""
    run_on_ranks(settings.ranks, _train, workdir, checkpoint, settings)


def _optimizers(model: Denoiser, settings: DenoiserSettings) -> list[tuple[torch.optim.Optimizer, float]]:
    """Optimizers with their peak rates: Muon for matrices inside the UNet, AdamW for the rest or for all."""
    inner = {
        name
        for name, weight in model.named_parameters()
        if settings.optimizer == "muon"
        and weight.ndim >= 2
        and name.startswith("unet.")
        and not name.startswith(("unet.conv_in", "unet.conv_out", "unet.time_embedding"))
    }
    rest = [weight for name, weight in model.named_parameters() if name not in inner]
    adamw = torch.optim.AdamW(rest, lr=settings.adamw_rate, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
    if not inner:
        return [(adamw, settings.adamw_rate)]
    matrices = [weight for name, weight in model.named_parameters() if name in inner]
    muon = Muon(matrices, lr=settings.muon_rate, weight_decay=0.01)
    return [(adamw, settings.adamw_rate), (muon, settings.muon_rate)]


def rate_factor(step: int, steps: int, cool_steps: int) -> float:
    """Share of the peak rate: up over 200 steps, constant, then linearly down over the last `cool_steps`."""
    warm = min(1.0, (step + 1) / 200)
    return warm * min(1.0, (steps - step) / cool_steps) if cool_steps else warm


def _train(rank: int, workdir: Path, checkpoint: Path, settings: DenoiserSettings) -> None:
    torch.manual_seed(settings.seed)
    model = Denoiser()
    averaged = copy.deepcopy(model).requires_grad_(False)
    optimizers = _optimizers(model, settings)
    step = 0
    if checkpoint.exists():
        saved: dict[str, Any] = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        averaged.load_state_dict(saved["averaged"])
        for (optimizer, _), state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        step = saved["step"]
    data = Data(workdir)
    alphas = new_scheduler().alphas_cumprod
    parameters = list(model.parameters())
    pairs = list(zip(averaged.parameters(), parameters, strict=True))
    per_step = settings.batch * settings.ranks
    steps, cool_steps = settings.samples // per_step, settings.cool_samples // per_step
    started, first, running = time.monotonic(), step, 0.0
    while step < steps:
        factor = rate_factor(step, steps, cool_steps)
        for optimizer, peak in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = peak * factor
        loss = loss_of(model, data.batch(settings.batch, seed=[settings.seed, rank, step]), alphas).mean()
        model.zero_grad()
        loss.backward()
        average_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer, _ in optimizers:
            optimizer.step()
        decay = min(settings.averaging, (1 + step) / (10 + step))
        torch._foreach_lerp_([a for a, _ in pairs], [p for _, p in pairs], 1.0 - decay)
        running += loss.item()
        step += 1
        if rank == 0 and step % 100 == 0:
            rate = (step - first) / (time.monotonic() - started)
            print(
                f"denoiser {step}/{steps} loss {running / 100:.4f} {rate * per_step:.0f}/s"
                f" {(steps - step) / rate / 60:.1f} min left",
                flush=True,
            )
            running = 0.0
        if rank == 0 and (step % 500 == 0 or step == steps):
            print(f"denoiser {step} held out: {_held_out(averaged, data, alphas)}", flush=True)
            state = {
                "model": model.state_dict(),
                "averaged": averaged.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer, _ in optimizers],
                "step": step,
            }
            torch.save(state, checkpoint.with_suffix(".partial"))
            checkpoint.with_suffix(".partial").replace(checkpoint)


@torch.no_grad()
def _held_out(model: nn.Module, data: Data, alphas: torch.Tensor) -> str:
    """Mean loss on fixed samples with full captions, at little, medium and much noise."""
    losses, t = [], []
    for part in range(4):
        batch = data.batch(64, seed=[99, part], full=True)
        losses.append(loss_of(model, batch, alphas))
        t.append(batch.t)
    loss, at = torch.cat(losses), torch.cat(t)
    bands = ((0, 250), (250, 500), (500, 750), (750, 1000))
    return " ".join(f"t {low}..{high}: {loss[(at >= low) & (at < high)].mean():.4f}" for low, high in bands)
