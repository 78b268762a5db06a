"""A session with a loaded model: it draws the images of samples and labels them. This module imports torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from diffugen_api.errors import SpecError
from diffugen_api.plan import Sample
from diffugen_api.prompt_weights import Piece
from diffugen_api.v1alpha1 import S3
from diffugen_api.words import Vocabulary
from diffugen_generator.calibration.result import Calibration
from diffugen_generator.diffusion.devices import open_device, threads_in_operations
from diffugen_generator.diffusion.drawing import DrawingSettings, DrawRequest
from diffugen_generator.diffusion.masks import SourceImage
from diffugen_generator.diffusion.parallel_drawers import ParallelDrawers
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.failures import first_line
from diffugen_generator.families.embedding import Embedding
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.lora import Lora
from diffugen_generator.families.model import DiffusionModel, HeadWeights
from diffugen_generator.families.registry import family_of
from diffugen_generator.labeling.attention.fitting import fitted
from diffugen_generator.labeling.attention.inline import InlineAttention
from diffugen_generator.labeling.attention.posthoc import PosthocAttention
from diffugen_generator.labeling.attention.presence import PresenceCheck
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.labeling.findings import Findings
from diffugen_generator.labeling.labeler import LabelInput
from diffugen_generator.samples.recipes import DrawnWith
from diffugen_generator.samples.shards import GIVEN, ShardHeader
from diffugen_generator.stages.batch_sizes import CPU_BATCH, GPU_BATCH, AdaptiveBatch
from diffugen_generator.stages.label_only_session import label_input
from diffugen_generator.stages.sample_image import SampleImage
from diffugen_generator.stages.side_labelers import SideLabelers

SMALL_BATCH = 8
"""Images at once on each thread, if a small model draws on several threads."""

FEW_PARAMETERS = 20_000_000
"""On a CPU, a denoising network with fewer parameters runs each operation on one thread, and several batches in
parallel."""
MOST_THREADS = 4
"""The most batches in parallel."""
ENV_THREADS = "OMP_NUM_THREADS"
# The layers of `builtin://shapes` are so small that threads wait for one another: on two busy cores, two threads took
# ten times as long as one. If the user sets the variable for the number of threads, it is the number of batches.


class ModelSession:
    """One model, loaded for the samples of one shard."""

    def __init__(
        self,
        model: ModelFolder,
        header: ShardHeader,
        *,
        device: str | None,
        batch: int | None,
        dtype: str = "auto",
        compiled: bool = False,
        embeddings: Sequence[Embedding] = (),
        loras: Sequence[Lora] = (),
        s3: S3 | None = None,
        calibrated: Callable[[DiffusionModel, TextStates, Vocabulary], Calibration] | None = None,
    ) -> None:
        """Load `model` to `device` (default: the GPU, if any), for batches of `batch` (default: by the device).

        `dtype` and `compiled` are values of `run.dtype` and `run.compile`; `embeddings` are new words for the model,
        and `loras` are added to its weights; `s3` is the store that `s3://` means in the names of detectors.
        `calibrated` returns the attention's calibration for the loaded model.
        """
        where = open_device(device)
        on_gpu = where.type == "cuda"
        loaded = family_of(model.pipeline).load(
            model, where, header.drawing["settings"].get("scheduler"), dtype=dtype, embeddings=embeddings, loras=loras
        )
        if compiled:
            loaded.compile_blocks()
        threads = 1
        self._threads: int | None = None
        if not (on_gpu or compiled) and loaded.parameters < FEW_PARAMETERS:
            threads = threads_of(os.environ)
            torch.set_num_threads(1)
            self._threads = 1 if torch.are_deterministic_algorithms_enabled() else threads
        self.batch = batch or (GPU_BATCH if on_gpu else CPU_BATCH if threads == 1 else SMALL_BATCH * threads)
        """How many samples one call should get."""
        gpu = torch.cuda.get_device_name(where) if on_gpu else None
        self.drawn_with = DrawnWith(str(loaded.dtype).removeprefix("torch."), gpu or "cpu")
        """What its images are drawn with."""
        # A GPU is faster if all batches have one shape, and blocks are compiled for each; else padding costs time.
        one_shape = self.batch if on_gpu or compiled else None
        self._drawing = AdaptiveBatch("draw", padded_to=one_shape)
        self._looking = AdaptiveBatch("look at", padded_to=one_shape)
        self._checking = AdaptiveBatch("check the words of")
        texts = TextStates(loaded)
        # Sorted, because the address of the evidence does not depend on the order in the spec.
        classes = sorted(header.classes, key=lambda each: each.name)
        attention = header.attention
        background = sorted(attention.background) if attention is not None else ()
        vocabulary = Vocabulary({each.name: each.words for each in classes}, background, header.tokens)
        self._settings = settings_of(header)
        self._model = loaded
        self._vocabulary = vocabulary
        self._attention = attention
        self._inline = attention is not None and attention.capture == "inline"
        self._fit = loaded.trained_side if header.kind == GIVEN else None
        self._refine = attention is not None and attention.refine
        self._drawer = ParallelDrawers(loaded, texts, threads)
        found = calibrated(loaded, texts, vocabulary) if calibrated is not None else Calibration()
        self._heads = HeadWeights(
            by_agreement=attention is not None and attention.head_weights == "agreement",
            chosen=found.heads,
            last=found.last,
        )
        self._border = found.border if calibrated is not None else None
        self._posthoc = PosthocAttention(
            loaded,
            texts,
            vocabulary,
            refine=self._refine,
            rescale=attention is not None and attention.rescale,
            heads=self._heads,
            border=self._border,
            token=torch.tensor(found.token) if found.token else None,
        )
        self._presence = PresenceCheck(loaded, texts, vocabulary)
        self._side_labelers = SideLabelers(header, where, s3)

    def draw(self, samples: Sequence[Sample], sources: Sequence[SourceImage] = ()) -> list[SampleImage]:
        """Return the samples' images with their latents and, with `capture: inline`, the observed maps.

        `sources` are the images from which they are drawn.
        """
        self._side_labelers.open()  # a labeler that cannot be loaded fails the stage before anything is drawn
        try:
            return self._drawing.each(self._draw, _tasks(samples, sources))
        except torch._dynamo.exc.TorchDynamoException as error:
            why = first_line(getattr(error, "inner_exception", error))
            raise SpecError(
                "InvalidSettings",
                f"run.compile: the model's blocks cannot be compiled: {why}; leave run.compile out, or use an image "
                "with a C compiler.",
            ) from error

    def look(
        self,
        samples: Sequence[Sample],
        images: Sequence[SampleImage],
        before: Sequence[Findings] = (),
        sources: Sequence[SourceImage] = (),
    ) -> list[Findings]:
        """Return the evidence of all models in the samples' images: `before`, completed with the missing evidence.

        `sources` are the images from which they were drawn; they are needed if `draws_to_label`.
        """
        found = list(before) or [Findings()] * len(samples)
        inputs = [label_input(sample, each) for sample, each in zip(samples, images, strict=True)]
        if missing := [i for i, each in enumerate(found) if each.attention is None and self._attention is not None]:
            tasks = _tasks(samples, sources)
            evidence = self._attended(
                [tasks[i] for i in missing],
                [self._fitted(inputs[i]) for i in missing],
                [images[i].observed for i in missing],
            )
            for index, each in zip(missing, evidence, strict=True):
                found[index] = replace(found[index], attention=each)
        return self._side_labelers.complete(inputs, found)

    @property
    def draws_to_label(self) -> bool:
        """Whether an image from the store must be drawn once more to be labeled."""
        return self._inline

    def _fitted(self, each: LabelInput) -> LabelInput:
        """Return the input for attention: an image that the model did not draw is resized to fit the model."""
        return each if self._fit is None else replace(each, image=fitted(each.image, self._fit))

    def _attended(
        self, tasks: Sequence[_Task], inputs: Sequence[LabelInput], observed: Sequence[AttentionMaps | None]
    ) -> list[AttentionMaps]:
        """Return the diffusion model's maps; with `capture: inline`, images without observed maps are drawn again."""
        if self._inline:
            again = [task for task, maps in zip(tasks, observed, strict=True) if maps is None]
            redrawn = iter(self._drawing.each(self._sample, again))
            evidence = [maps or _observed(next(redrawn)) for maps in observed]
        else:
            with threads_in_operations(self._threads):  # no other batch is drawn meanwhile
                evidence = self._looking.each(
                    lambda some: self._posthoc.look(some, batch=self._looking.padded_to), inputs
                )
        if self._attention is None or self._attention.min_presence is None:
            return evidence
        presence = self._checking.each(self._check, inputs)
        return [replace(each, presence=shares) for each, shares in zip(evidence, presence, strict=True)]

    def _check(self, inputs: Sequence[LabelInput]) -> list[tuple[float, ...]]:
        """Return how much the words of each image's classes help to predict it."""
        latents = self._posthoc.latents(inputs)
        prompts, seeds, words = zip(*((each.prompt, each.seed, each.words) for each in inputs), strict=True)
        return self._presence.of(list(latents), prompts, seeds, words)

    def _draw(self, tasks: Sequence[_Task]) -> list[SampleImage]:
        sampled = self._sample(tasks)
        images = self._drawer.decode([latents for latents, _ in sampled])
        drawn = []
        for (_, source), image, (latents, observed) in zip(tasks, images, sampled, strict=True):
            if source is None or source.mask is None:
                drawn.append(SampleImage(image, latents, observed))
            else:  # the latents do not have the parts of the source that are put back
                drawn.append(SampleImage(source.put_back(image), None, observed))
        return drawn

    def _sample(self, tasks: Sequence[_Task]) -> list[tuple[torch.Tensor, AttentionMaps | None]]:
        """Return each sample's latents [c, h, w] and, with `capture: inline`, the observed maps."""
        requests = [DrawRequest(sample.text, sample.seed, source, sample.words) for sample, source in tasks]
        batch = self._drawing.padded_to
        if not self._inline:
            return [(latents, None) for latents in self._drawer.sample(requests, self._settings, batch=batch)]
        inline = InlineAttention(
            self._model, self._vocabulary, refine=self._refine, heads=self._heads, border=self._border
        )
        latents = self._drawer.sample(requests, self._settings, batch=batch, observer=inline)
        return [(each, inline.evidence[index]) for index, each in enumerate(latents)]


_Task = tuple[Sample, SourceImage | None]
"""A sample, and its source image."""


def _observed(sampled: tuple[torch.Tensor, AttentionMaps | None]) -> AttentionMaps:
    maps = sampled[1]
    if maps is None:
        raise AssertionError("with capture: inline every sampling is observed")
    return maps


def _tasks(samples: Sequence[Sample], sources: Sequence[SourceImage]) -> list[_Task]:
    under: Sequence[SourceImage | None] = sources or [None] * len(samples)
    return list(zip(samples, under, strict=True))


def threads_of(environ: Mapping[str, str]) -> int:
    """Return how many batches of a small model to draw in parallel: the number of requested threads, or of cores."""
    asked = environ.get(ENV_THREADS, "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_THREADS, int(asked) if asked.isdecimal() else cores))


def settings_of(header: ShardHeader) -> DrawingSettings:
    """Return the drawing settings that a shard's samples share."""
    negative = tuple(Piece(text, float(weight)) for text, weight in header.drawing.get("negativeWeights", ()))
    image, settings = header.drawing["image"], header.drawing["settings"]
    return DrawingSettings(
        width=int(image["width"]),
        height=int(image["height"]),
        steps=int(settings["steps"]),
        guidance=float(settings["guidanceScale"]),
        negative=negative or str(header.drawing["negative"]),
        strength=float(settings.get("strength", 1)),
    )
