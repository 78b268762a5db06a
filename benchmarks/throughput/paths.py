"""The compared ways of drawing: the stage, and programs that use diffusers directly."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from benchmarks.throughput.daam_style import HeatMaps, mask_of
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel

from diffugen_api import layout
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import Sample, revision_of
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_generator.diffusion.devices import threads_in_operations
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.labeling.findings import Findings
from diffugen_generator.planning.plan import plan
from diffugen_generator.samples.shards import ShardHeader, ShardRow, read_shard
from diffugen_generator.stages.run_shard import run_shard
from diffugen_generator.stages.session_cache import SessionCache
from diffugen_generator.store.folder import FolderStore
from diffugen_generator.telemetry.timings import Measures, Part

CLASSES = ("ball", "square", "triangle", "star")
THREADS = torch.get_num_threads()
"""The default number of threads in an operation; the pipelines draw with it."""


@dataclass(frozen=True)
class Case:
    """One model on one device."""

    name: str
    model: ModelFolder
    device: str
    side: int
    """Side of an image in pixels."""
    batch: int
    batched: int
    """Images in one repetition of the ways that draw in batches."""
    single: int
    """Images in one repetition of the ways that draw one by one."""
    repetitions: int
    steps: int = 25
    guidance: float = 7.5

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.device == "cuda" else torch.float32


@dataclass(frozen=True)
class Timing:
    """One repetition of one way."""

    images: int
    seconds: float
    cpu_seconds: float
    """CPU seconds of the whole process."""
    model_seconds: float = 0.0
    """Seconds in the UNet and the autoencoder; measured only for the stage."""
    parts: dict[str, float] = field(default_factory=dict)


def order_of(case: Case) -> WorkOrder:
    """Return the dataset that the stage draws: `case.batched` images, each with its own prompt."""
    places = [f"{color} {place}" for color in ("white", "gray", "blue", "red") for place in ("snow", "sand", "sea")]
    spec = LabeledDatasetSpec.model_validate(
        {
            "classes": [{"name": name} for name in CLASSES],
            "image": {"width": case.side, "height": case.side},
            "prompts": {
                "templates": ["a red {object} on {place}"],
                "variables": {"object": list(CLASSES), "place": places},
                "sample": min(case.batched, len(CLASSES) * len(places)),
                "samplesPerPrompt": -(-case.batched // (len(CLASSES) * len(places))),
            },
            "stages": [
                {
                    "name": "base",
                    "txt2img": {
                        "model": case.model.uri,
                        "steps": case.steps,
                        "guidanceScale": case.guidance,
                        "scheduler": "ddim",
                    },
                }
            ],
            "run": {"samplesPerShard": 10_000},
        }
    )
    return WorkOrder(namespace="bench", name="throughput", revision=revision_of(spec), spec=spec)


class Ways:
    """The ways; all models are loaded once, before the measurements."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.order = order_of(case)
        self.sessions = SessionCache(device=case.device, batch_size=case.batch)
        self.pipeline = StableDiffusionPipeline.from_pretrained(
            case.model.path, torch_dtype=case.dtype, local_files_only=True
        ).to(case.device)
        self.pipeline.set_progress_bar_config(disable=True)
        with tempfile.TemporaryDirectory() as folder:
            header, rows = self._shard(FolderStore(Path(folder)))
        self.samples = [row.sample for row in rows]
        self.session = self.sessions.open(header)

    def all(self) -> dict[str, Callable[[], Timing]]:
        """Return the ways by name, in the order in which they run."""
        return {
            "pipeline, one by one": self.loop,
            "pipeline, batched": self.batches,
            "DAAM-style labels": self.daam,
            "stage without labels": self.unlabeled,
            "stage with labels": self.stage,
        }

    def loop(self) -> Timing:
        with threads_in_operations(THREADS), _timed(self.case) as timing:
            for sample in self.samples[: self.case.single]:
                self._draw([sample])
        return timing(self.case.single)

    def batches(self) -> Timing:
        samples = self.samples[: self.case.batched]
        with threads_in_operations(THREADS), _timed(self.case) as timing:
            for start in range(0, len(samples), self.case.batch):
                self._draw(samples[start : start + self.case.batch])
        return timing(len(samples))

    def daam(self) -> Timing:
        trained = self.pipeline.unet.config.sample_size * self.pipeline.vae_scale_factor
        side = 64 if trained == 512 else 96
        with threads_in_operations(THREADS), _timed(self.case) as timing:
            for sample in self.samples[: self.case.single]:
                with HeatMaps(self.pipeline.unet) as maps:
                    self._draw([sample])
                words = self.pipeline.tokenizer(sample.prompt)["input_ids"]
                word = self.pipeline.tokenizer(sample.variables["object"], add_special_tokens=False)["input_ids"]
                heat = maps.of([words.index(word[0])], side)
                mask_of(heat, self.case.side, self.case.side)
        return timing(self.case.single)

    def stage(self) -> Timing:
        """Run a shard of the stage, from its rows to its report; the model is already loaded."""
        measures = Measures()
        with tempfile.TemporaryDirectory() as folder, _networks(self.case) as spent:
            store = FolderStore(Path(folder))
            header, rows = self._shard(store)
            with _timed(self.case) as timing:
                run_shard(header, rows, store, sessions=self.sessions, measures=measures)
        parts = {part.value: round(seconds, 3) for part, seconds in measures.seconds.items() if part is not Part.LOAD}
        return timing(len(rows), model_seconds=spent(), parts=parts)

    def unlabeled(self) -> Timing:
        """Run the same shard without labels: the difference in time is the cost of labels."""

        nothing = Findings(attention=AttentionMaps((), (), np.zeros((0, 1, 1), np.uint8)))
        with mock.patch.object(self.session, "look", lambda samples, *_: [nothing] * len(samples)):
            return self.stage()

    def _shard(self, store: FolderStore) -> tuple[ShardHeader, list[ShardRow]]:
        plan(self.order, store)
        return read_shard(store, layout.shard(self.order.revision, "base", 0))

    def _draw(self, samples: Sequence[Sample]) -> None:
        """Draw with diffusers' pipeline and its default settings."""
        self.pipeline(
            [sample.prompt for sample in samples],
            width=self.case.side,
            height=self.case.side,
            num_inference_steps=self.case.steps,
            guidance_scale=self.case.guidance,
            generator=[torch.Generator().manual_seed(sample.seed) for sample in samples],
            output_type="np",
        )


@contextmanager
def _timed(case: Case) -> Iterator[Callable[..., Timing]]:
    """Time the block; after it, the yielded function returns its timing."""
    began, began_cpu = time.perf_counter(), time.process_time()
    ended: list[float] = []
    yield lambda images, **more: Timing(images, ended[0], ended[1], **more)
    if case.device == "cuda":
        torch.cuda.synchronize()
    ended += [time.perf_counter() - began, time.process_time() - began_cpu]


@contextmanager
def _networks(case: Case) -> Iterator[Callable[[], float]]:
    """Measure the time of the networks in the block; on a GPU with GPU events, without waiting for the GPU."""
    calls: list[Any] = []

    def timing(work: Callable[..., Any]) -> Callable[..., Any]:
        def on_cpu(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            result = work(*args, **kwargs)
            calls.append((began, time.perf_counter()))
            return result

        def on_gpu(*args: Any, **kwargs: Any) -> Any:
            began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            began.record()
            result = work(*args, **kwargs)
            ended.record()
            calls.append((began, ended))
            return result

        return on_gpu if case.device == "cuda" else on_cpu

    def seconds() -> float:
        if case.device == "cuda":
            return sum(began.elapsed_time(ended) / 1000 for began, ended in calls)
        return _covered(calls)

    networks = (UNet2DConditionModel, "forward"), (AutoencoderKL, "encode"), (AutoencoderKL, "decode")
    with ExitStack() as patches:
        for kind, name in networks:
            patches.enter_context(mock.patch.object(kind, name, timing(getattr(kind, name))))
        yield seconds


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """Return the seconds that at least one of `spans` covers."""
    covered, until = 0.0, float("-inf")
    for began, ended in sorted(spans):
        covered += max(0.0, ended - max(began, until))
        until = max(until, ended)
    return covered
