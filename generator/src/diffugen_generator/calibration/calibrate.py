"""Chooses which attention is read, and the border of objects, on annotated images.

Three choices, each from the default on: the last share of the sampling steps (`capture: inline`), the weights of the
heads of all layers, and the border. Each is judged by the mean intersection over union with the masks. A few images
say little, so another setting must be better than the default by `MARGIN`, and the weights are those of ensemble
selection (Caruana et al. 2004): heads are added one by one, and the same head can be added again. A head that shows
objects of any class fits the mask of a lone object as well as one that shows its class alone. So heads are weighted
only if an image has masks of two classes.

With `calibration.backgroundToken`, a token for what is no object is trained, too. It is judged on images that it was
not trained on: the images are parted, each part is read with the token that the others trained. It is used if the
labels of these images are better than those with the settings chosen before; then all heads count the same.

Sampling is imitated: an annotated image is noised at steps over the whole schedule, as far as its caption and its
content are those of a drawn image. Each image is read with two draws of noise, once mirrored.

Shapes: see the legend in `labeling.attention`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from diffugen_api.v1alpha1 import AttentionLabeling
from diffugen_api.words import Mention, Vocabulary, mentions
from diffugen_generator.calibration.annotations import AnnotatedImage, trains_token
from diffugen_generator.calibration.background_token import Reading, TokenTraining, reading_noise
from diffugen_generator.calibration.result import Calibration
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.families.model import DiffusionModel, SelfAttention
from diffugen_generator.labeling.attention.posthoc import NOISE_AT
from diffugen_generator.labeling.attention.refinement import ranged, refined
from diffugen_generator.labeling.attention.word_maps import BORDER, evidence_of, mention_columns
from diffugen_generator.labeling.decide.from_attention import enlarged, owners_of

LASTS: Final = (1.0, 0.5, 0.3, 0.2)
"""Shares of the sampling, counted from its end, that are tried."""
SHARES: Final = tuple(round(0.05 + 0.1 * step, 2) for step in range(10))
"""Fractions of the noise schedule at which the sampling is imitated."""
BORDERS: Final = tuple(round(0.2 + 0.05 * step, 2) for step in range(13))
"""The borders that are tried: 0.2 to 0.8."""
MARGIN: Final = 0.02
"""How much better than the default another setting must be, in mean intersection over union."""
ROUNDS: Final = 8
"""How many heads are added, one after the other."""
MOST_HEADS: Final = 48
"""The heads that can be added: the best ones alone."""
PARTS: Final = 4
"""Into so many parts the images are parted to judge a token, at most."""
_SIDE: Final = 32
"""Maps of single heads are kept with at most so many cells a side."""

Heads = Mapping[tuple[str, int], float]
"""The weight of each head: a layer's name and the head's number."""


@dataclass(frozen=True, slots=True)
class _View:
    """One reading of an annotated image."""

    image: AnnotatedImage
    named: Sequence[Mention]
    by_head: Mapping[float, torch.Tensor]
    """[all heads, mentions, h, w] for each share of the sampling."""
    layers: SelfAttention
    size: tuple[int, int]
    """The (h, w) of `layers`."""
    usual: torch.Tensor | None = None
    """[mentions, h, w]: the maps that label where no heads are chosen, if those are not the mean over all heads."""


def calibrate(
    model: DiffusionModel,
    texts: TextStates,
    vocabulary: Vocabulary,
    images: Sequence[AnnotatedImage],
    attention: AttentionLabeling,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Calibration:
    """Return the settings with which the attention of `model` fits the masks of `images` best.

    `attention` has the settings of the maps and of the decision: `capture`, `refine` and `snap`.
    """
    return Calibrating(model, texts, vocabulary, attention).run(images, on_progress)


class Calibrating:
    """The choices for one model and one vocabulary."""

    def __init__(
        self, model: DiffusionModel, texts: TextStates, vocabulary: Vocabulary, attention: AttentionLabeling
    ) -> None:
        """Calibrate the maps that `attention` asks for."""
        self._model = model
        self._texts = texts
        self._vocabulary = vocabulary
        self._attention = attention
        self._training = TokenTraining(model, texts, vocabulary, attention)
        self._heads: list[tuple[str, int]] = []
        self._equal: Heads = {}
        """The same weight for each head: no heads are chosen."""

    def run(self, images: Sequence[AnnotatedImage], on_progress: Callable[[int, int], None]) -> Calibration:
        """Read the images and choose; `on_progress` gets the number of read images and of all."""
        views = []
        for number, image in enumerate(images):
            views += [self._view(image, seed, mirror=bool(seed)) for seed in (0, 1)]
            on_progress(number + 1, len(images))
        equal = self._equal = dict.fromkeys(self._heads, 1 / len(self._heads))
        before = self._decided(views[::2], equal, 1.0)[BORDER]
        scores = {last: self._best(views, equal, last) for last in views[0].by_head}
        last = max(scores, key=lambda each: scores[each])
        if scores[last] < scores[1.0] + MARGIN:
            last = 1.0
        chosen: Heads = equal
        if any(len(image.masks) > 1 for image in images):
            added = self._ensemble(views, last)
            chosen = added if self._best(views, added, last) >= scores[last] + MARGIN else equal
        token: torch.Tensor | None = None
        if trains_token(self._attention) and len(images) > 1:
            readings = self._readings(images)
            token = self._token(views, readings, chosen)
            if token is not None:
                views, chosen = self._with_token(views, readings, token), equal
        fits = self._decided(views[::2], chosen, last)
        border = max(fits, key=lambda each: fits[each])
        near = [each for each in fits if fits[each] >= fits[border] - MARGIN]
        border = min(near, key=lambda each: abs(each - BORDER))
        if fits[border] < before:
            return Calibration(before=round(before, 4), after=round(before, 4))
        heads = {} if chosen is equal else _by_layer(chosen, self._heads)
        found = Calibration(heads, last, border, round(before, 4), round(fits[border], 4))
        return found if token is None else replace(found, token=tuple(token.tolist()))

    def _token(self, views: Sequence[_View], readings: Sequence[Reading], heads: Heads) -> torch.Tensor | None:
        """Return the token that is trained on all readings; None if it does not help on images that it did not see.

        `views` and `readings` have two of each image. Labels without the token are those with the weights `heads`.
        """
        count = len(readings) // 2
        parts = min(PARTS, count)
        without = with_token = 0.0
        for part in range(parts):
            held = [number for number in range(len(readings)) if number // 2 % parts == part]
            token = self._training.train([each for number, each in enumerate(readings) if number not in held])
            some, seen = [views[number] for number in held], [readings[number] for number in held]
            without += self._decided(some, heads, 1.0)[BORDER]
            with_token += self._decided(self._with_token(some, seen, token), self._equal, 1.0)[BORDER]
        return self._training.train(readings) if with_token > without else None

    @torch.no_grad()
    def _with_token(self, views: Sequence[_View], readings: Sequence[Reading], token: torch.Tensor) -> list[_View]:
        """Return the views with the maps that this token gives; every second one is mirrored."""
        maps = [self._training.maps(each, token)[0].cpu() for each in readings]
        return [
            replace(view, usual=each.flip(-1) if number % 2 else each)
            for number, (view, each) in enumerate(zip(views, maps, strict=True))
        ]

    def _readings(self, images: Sequence[AnnotatedImage]) -> list[Reading]:
        """Return two readings of each image, as `run` does: the second is mirrored."""
        return [
            self._training.read(
                image.pixels[:, ::-1].copy() if seed else image.pixels,
                image.caption,
                {kind: mask[:, ::-1].copy() if seed else mask for kind, mask in image.masks.items()},
                seed,
            )
            for image in images
            for seed in (0, 1)
        ]

    @torch.inference_mode()
    def _view(self, image: AnnotatedImage, seed: int, *, mirror: bool) -> _View:
        model = self._model
        pixels = image.pixels[:, ::-1].copy() if mirror else image.pixels
        latents = model.encode_images([pixels])
        named = mentions(image.caption, self._vocabulary)
        columns = mention_columns([model.read(image.caption)], [named]).to(model.device)
        predict = model.predictor(self._texts.conditioning([image.caption]))
        size = (int(latents.shape[2]), int(latents.shape[3]))
        inline = self._attention.capture == "inline"
        sums: dict[float, torch.Tensor] = {}
        total, own_size, layers = torch.zeros(()), size, list[tuple[torch.Tensor, torch.Tensor]]()
        for share in SHARES if inline else (NOISE_AT,):
            step = model.training_step(share)
            noise = reading_noise(latents, seed, step)
            noised = model.forward_noised(latents, noise, step)
            refine = inline and self._attention.refine and not layers  # the last step has the least noise
            with model.attention.all_passes(columns, size, guided=False, passes=1, self_attention=refine) as reading:
                predict(noised, torch.tensor(step, device=model.device))
            by_head = reading.by_head()
            self._heads = [(name, head) for name, maps in by_head.items() for head in range(maps.shape[1])]
            total = torch.cat([_small(maps[0]) for maps in by_head.values()]) + total
            if refine:
                own_size, found = reading.self_attention()
                layers = list(found)
            for last in LASTS if inline else (1.0,):
                if share < last:
                    sums[last] = total
        usual: torch.Tensor | None = None
        if not inline:  # with the same noise: the pass by which the labeler reads maps where no heads are chosen
            refine = self._attention.refine
            with model.attention.one_pass(columns, size, self_attention=refine) as reading:
                predict(noised, torch.tensor(step, device=model.device))
            usual = reading.maps()[0].cpu()
            if refine:
                own_size, found = reading.self_attention()
                layers = list(found)
        if mirror:
            usual = None if usual is None else usual.flip(-1)
            sums = {last: maps.flip(-1) for last, maps in sums.items()}
            layers = [(_mirrored(query, own_size), _mirrored(key, own_size)) for query, key in layers]
        return _View(image, named, sums, layers, own_size, usual)

    @torch.inference_mode()
    def _maps(self, view: _View, heads: Heads, last: float) -> tuple[NDArray[np.float32], tuple[str, ...]]:
        """Return the maps [words, height, width] in 0..1 with these weights, and the classes of the first ones."""
        if view.usual is not None and heads is self._equal:
            maps = view.usual[None]
        else:
            weights = torch.tensor([heads.get(each, 0.0) for each in self._heads], dtype=torch.float32)
            maps = torch.einsum("n,nmhw->mhw", weights, view.by_head[last])[None]
        if view.layers:
            if tuple(maps.shape[2:]) != view.size:
                maps = functional.interpolate(maps, size=view.size, mode="bilinear", align_corners=False)
            spread = refined(maps.to(view.layers[0][0].device), view.layers).cpu()
        else:
            spread = ranged(maps)
        evidence = evidence_of(self._vocabulary, view.named, spread[0], self._model.dtype)
        height, width = view.image.pixels.shape[:2]
        return enlarged(evidence.maps, height, width), evidence.classes

    def _best(self, views: Sequence[_View], heads: Heads, last: float) -> float:
        """Return the mean intersection over union at the best border, without the image's colors."""
        return float(np.mean([self._overlaps(view, heads, last) for view in views], axis=0).max())

    def _overlaps(self, view: _View, heads: Heads, last: float) -> NDArray[np.float64]:
        """Return the mean over the annotated classes, for each of `BORDERS`."""
        maps, classes = self._maps(view, heads, last)
        values = maps[: len(classes)].max(axis=0)
        winner = maps[: len(classes)].argmax(axis=0)
        found = []
        for kind, mask in view.image.masks.items():
            own = winner == classes.index(kind)
            found.append([_overlap(own & (values >= border), mask) for border in BORDERS])
        return np.asarray(np.mean(found, axis=0), np.float64)

    def _decided(self, views: Sequence[_View], heads: Heads, last: float) -> dict[float, float]:
        """Return the mean intersection over union of the decided labels, by border."""
        found = dict.fromkeys(BORDERS, 0.0)
        count = sum(len(view.image.masks) for view in views)
        for view in views:
            maps, classes = self._maps(view, heads, last)
            for border in BORDERS:
                owners = owners_of(maps, np.full(len(classes), border), view.image.pixels, snap=self._attention.snap)
                for kind, mask in view.image.masks.items():
                    found[border] += _overlap(owners == classes.index(kind), mask) / count
        return found

    def _ensemble(self, views: Sequence[_View], last: float) -> dict[tuple[str, int], float]:
        """Return the weights of heads that were added one by one, always the one with the best result."""
        alone = {each: self._best(views, {each: 1.0}, last) for each in self._heads}
        candidates = sorted(self._heads, key=lambda each: -alone[each])[:MOST_HEADS]
        counts: dict[tuple[str, int], float] = {}
        for _ in range(ROUNDS):
            added = max(candidates, key=lambda each: self._best(views, {**counts, each: counts.get(each, 0) + 1}, last))
            counts[added] = counts.get(added, 0) + 1
        return {each: count / ROUNDS for each, count in counts.items()}


def _small(maps: torch.Tensor) -> torch.Tensor:
    """Return maps [heads, mentions, h, w] with at most `_SIDE` cells a side, on the CPU."""
    height, width = maps.shape[2:]
    scale = min(1.0, _SIDE / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return (maps if size == (height, width) else functional.interpolate(maps, size=size, mode="area")).float().cpu()


def _mirrored(cells: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return queries or keys [b, heads, h * w, d] of the mirror image."""
    batch, heads, _, width = cells.shape
    return cells.reshape(batch, heads, *size, width).flip(3).reshape(cells.shape)


def _overlap(found: NDArray[np.bool_], mask: NDArray[np.bool_]) -> float:
    return float((found & mask).sum() / max(1, (found | mask).sum()))


def _by_layer(heads: Heads, known: Sequence[tuple[str, int]]) -> dict[str, tuple[float, ...]]:
    counts: dict[str, int] = {}
    for name, _ in known:
        counts[name] = counts.get(name, 0) + 1
    return {
        name: tuple(float(heads.get((name, head), 0.0)) for head in range(count))
        for name, count in counts.items()
        if any(heads.get((name, head), 0.0) for head in range(count))
    }
