"""The flow of one shard.

The store, not the plan, shows what each sample still needs. So a shard that was killed continues from its last result.
The order of work: labels from stored evidence (no model), then images without evidence, then images to draw.
A damaged object counts as missing: evidence is collected again, an image is drawn again.
While the model works on one batch, a bounded pool encodes, labels and uploads the batch before it.
When `stop` is set, the current batch is finished and uploaded, and `Interrupted` is raised.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from threading import Event, Lock
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from diffugen_api import layout
from diffugen_api.contract import ShardCounts
from diffugen_api.plan import Sample, canonical
from diffugen_generator.bounded_pool import BoundedPool
from diffugen_generator.diffusion.masks import SourceImage
from diffugen_generator.failures import Damaged, Interrupted
from diffugen_generator.labeling.findings import Findings, label_of
from diffugen_generator.samples import image_files
from diffugen_generator.samples.documents import discard
from diffugen_generator.samples.recipes import DrawnWith
from diffugen_generator.samples.shards import GIVEN, Need, ShardHeader, ShardRow
from diffugen_generator.stages.sample_image import SampleImage
from diffugen_generator.stages.sample_store import JSON, SampleStore
from diffugen_generator.stages.session_cache import SessionCache
from diffugen_generator.stages.source_images import SourceImages
from diffugen_generator.store.protocol import Store
from diffugen_generator.telemetry.timings import Measures, Part

if TYPE_CHECKING:
    from diffugen_generator.stages.label_only_session import LabelOnlySession
    from diffugen_generator.stages.model_session import ModelSession

Progress = Callable[[ShardCounts], None]
"""Called with the current counts at every change; from any thread, one call at a time."""

WAITING = 64
"""The most samples that wait for encoding and upload: at 512 px some 50 MB of pixels."""
THREADS = 8
"""Enough for a store with a latency of some ten milliseconds; encoding and deciding release Python's lock (GIL)."""


def run_shard(
    header: ShardHeader,
    rows: Sequence[ShardRow],
    store: Store,
    *,
    on_progress: Progress = lambda _: None,
    on_loading: Callable[[], None] = lambda: None,
    stop: Event | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    sessions: SessionCache | None = None,
    measures: Measures | None = None,
) -> ShardCounts:
    """Complete a shard's samples, write the shard's report, and return the counts.

    Args:
        header: the values that all samples share.
        rows: the samples, and the need of each when the plan was made.
        store: the dataset's store.
        on_progress: called with the counts at every change.
        on_loading: called before a model is loaded, which takes seconds without progress.
        stop: when it is set, the work ends after the current batch.
        batch_size: images at once; if absent, it depends on the device.
        device: `cuda`, `cuda:1`, `cpu`; if absent, the GPU if there is one, else the CPU.
        sessions: loads the model and keeps it for the next shard; `batch_size` and `device` are then not read.
        measures: gets the time that each part takes.

    Raises:
        SpecError: the model is not the one of the plan, or it cannot draw.
        Interrupted: `stop` was set before everything was done.
        Failure: of the store, or of objects in it.
    """
    sessions = sessions or SessionCache(device=device, batch_size=batch_size)
    work = _Work(header, store, on_progress, on_loading, stop or Event(), measures or Measures())
    try:
        return work.run(rows, sessions)
    except Damaged as damaged:  # an object of another stage, or an image that no stage draws
        discard(store, damaged)
        raise


def upload_pool() -> BoundedPool:
    """Return the pool that encodes, decides and uploads while the model draws the next batch.

    Drawn images are stored for every end of the work, except if the store itself fails.
    """
    # Each task has its own thread. Additional threads of OpenCV would only slow them down.
    return BoundedPool(THREADS, bound=WAITING, complete_on_error=True, initializer=partial(cv2.setNumThreads, 1))


class _Work:
    """One shard in progress."""

    def __init__(  # noqa: PLR0917 - the arguments of `run_shard`
        self,
        header: ShardHeader,
        store: Store,
        on_progress: Progress,
        on_loading: Callable[[], None],
        stop: Event,
        measures: Measures,
    ) -> None:
        self._header = header
        self._store = store
        self._sample_store = SampleStore(header, store)
        self._sources = SourceImages(header, store)
        self._on_progress = on_progress
        self._on_loading = on_loading
        self._stop = stop
        self._measures = measures
        self._lock = Lock()
        self._counts = ShardCounts()
        self._digests: dict[str, str] = {}
        self._skipped: dict[str, str] = {}

    def run(self, rows: Sequence[ShardRow], sessions: SessionCache) -> ShardCounts:
        self._counts = ShardCounts(total=len(rows))
        with upload_pool() as uploads:
            self._measures.watch_queue(lambda: uploads.queued)
            needs = self._needs(rows, uploads)
            self._count(reused=len(rows) - sum(len(samples) for samples in needs.values()))
            self._label(needs, uploads)
            if needs[Need.SEE]:
                with self._measures.timed(Part.LOAD):
                    who = self._who_sees(needs, sessions, uploads)
                self._on_progress(self._counts)  # the models are loaded
                needs[Need.DRAW] += self._see(needs[Need.SEE], who, uploads)
            if self._header.origins:
                needs[Need.DRAW] = self._standing(needs[Need.DRAW], uploads)
            if needs[Need.DRAW]:
                with self._measures.timed(Part.LOAD):
                    session = sessions.open(self._header, self._on_loading, store=self._store)
                self._on_progress(self._counts)
                self._draw(needs[Need.DRAW], session, uploads)
        self._report()
        return self._counts

    def _who_sees(
        self, needs: dict[Need, list[Sample]], sessions: SessionCache, uploads: BoundedPool
    ) -> ModelSession | LabelOnlySession:
        """Return the session that labels stored images; the diffusion model is loaded only if it is needed."""
        asked = [uploads.ask(self._sample_store.lacks_attention, sample) for sample in needs[Need.SEE]]
        lacking = [answer.result() for answer in asked]
        if needs[Need.DRAW] or any(lacking):
            return sessions.open(self._header, self._on_loading, store=self._store)
        return sessions.label_only(self._header, self._on_loading)

    def _needs(self, rows: Sequence[ShardRow], uploads: BoundedPool) -> dict[Need, list[Sample]]:
        """Return what each sample still needs, by the store; complete samples are left out."""
        asked = [uploads.ask(self._look_up, row) for row in rows]
        needs: dict[Need, list[Sample]] = {need: [] for need in Need}
        for row, answer in zip(rows, asked, strict=True):
            if (need := answer.result()) is not None:
                needs[need].append(row.sample)
        return needs

    def _look_up(self, row: ShardRow) -> Need | None:
        need = self._sample_store.need(row.sample, row.do)
        if row.do is Need.DRAW and need is not Need.DRAW:  # an earlier try drew it, but did not write its report
            try:
                file = self._sample_store.image_file(row.sample)
            except Damaged as damaged:
                return self._discarded(damaged)
            self._note(row.sample, file.sha256)
        return need

    def _label(self, needs: dict[Need, list[Sample]], uploads: BoundedPool) -> None:
        """Decide the labels of samples with stored evidence; samples with damaged objects move to the other needs."""
        for batch in _batches(needs[Need.LABEL], WAITING):
            self._go_on()
            asked = [uploads.ask(self._label_stored, sample) for sample in batch]
            for sample, answer in zip(batch, asked, strict=True):
                if (need := answer.result()) is not None:
                    needs[need].append(sample)

    def _discarded(self, damaged: Damaged) -> Need:
        """Delete a damaged object of a sample and return what the sample needs now."""
        discard(self._store, damaged)
        return Need.SEE if damaged.key.startswith(layout.EVIDENCE) else Need.DRAW

    def _standing(self, samples: Sequence[Sample], uploads: BoundedPool) -> list[Sample]:
        """Return the samples with usable sources; the others are skipped, with the reason."""
        asked = [uploads.ask(self._sources.refusal, sample) for sample in samples]
        refusals = [answer.result() for answer in asked]
        self._skipped = {sample.id: why for sample, why in zip(samples, refusals, strict=True) if why}
        if self._skipped:
            self._count(skipped=len(self._skipped))
        return [sample for sample in samples if sample.id not in self._skipped]

    def _see(
        self, samples: Sequence[Sample], session: ModelSession | LabelOnlySession, uploads: BoundedPool
    ) -> list[Sample]:
        """Label stored images; the next batch is read at the same time. Return samples with a damaged image."""
        damaged: list[Sample] = []

        def fetch(batch: Sequence[Sample]) -> list[tuple[Future[NDArray[np.uint8]], Future[Findings]]]:
            sample_store = self._sample_store
            return [
                (uploads.ask(sample_store.image, each), uploads.ask(sample_store.found_before, each)) for each in batch
            ]

        batches = list(_batches(samples, session.batch))
        coming = fetch(batches[0]) if batches else []
        for number, batch in enumerate(batches):
            self._go_on()
            read = [self._image_of(image) for image, _ in coming]
            damaged += [sample for sample, image in zip(batch, read, strict=True) if image is None]
            whole = [sample for sample, image in zip(batch, read, strict=True) if image is not None]
            here = [image for image in read if image is not None]
            before = [found.result() for image, (_, found) in zip(read, coming, strict=True) if image is not None]
            under = (
                [source.result() for source in self._fetch_sources(whole, uploads)] if session.draws_to_label else []
            )
            coming = fetch(batches[number + 1]) if number + 1 < len(batches) else []
            if not whole:
                continue
            with self._measures.timed(Part.LOOK):
                seen = session.look(whole, [SampleImage(image) for image in here], before, under)
            for sample, image, findings in zip(whole, here, seen, strict=True):
                uploads.submit(self._keep_seen, sample, image, findings)
        return damaged

    def _image_of(self, read: Future[NDArray[np.uint8]]) -> NDArray[np.uint8] | None:
        """Return the image that was read; if it is damaged, delete its recipe and return None."""
        try:
            return read.result()
        except Damaged as damaged:
            if self._header.kind == GIVEN:  # no stage draws it again; the intake copies it again
                raise
            discard(self._store, damaged)
            return None

    def _draw(self, samples: Sequence[Sample], session: ModelSession, uploads: BoundedPool) -> None:
        """Draw images and label them; the sources of the next batch are read at the same time."""
        batches = list(_batches(samples, session.batch))
        coming = self._fetch_sources(batches[0], uploads) if batches else []
        for number, batch in enumerate(batches):
            self._go_on()
            sources = [source.result() for source in coming]
            coming = self._fetch_sources(batches[number + 1], uploads) if number + 1 < len(batches) else []
            with self._measures.timed(Part.DRAW):
                drawn = session.draw(batch, sources)
            if self._sample_store.format in image_files.LOSSLESS:
                files: list[bytes | None] = [None] * len(drawn)
            else:  # borders follow the colors of the stored image
                with self._measures.timed(Part.ENCODE):
                    encoded = [image_files.encode(each.image, self._sample_store.format) for each in drawn]
                    pairs = zip(drawn, encoded, strict=True)
                    drawn = [replace(each, image=image_files.decode(file)) for each, file in pairs]
                files = list(encoded)
            with self._measures.timed(Part.LOOK):
                seen = session.look(batch, drawn)
            for sample, each, file, findings in zip(batch, drawn, files, seen, strict=True):
                uploads.submit(self._keep_drawn, sample, each.image, file, findings, session.drawn_with)

    def _fetch_sources(self, batch: Sequence[Sample], uploads: BoundedPool) -> list[Future[SourceImage]]:
        """Return the reads of the samples' sources; an empty list for samples drawn only from text."""
        return [uploads.ask(self._sources.source, sample) for sample in batch if sample.source is not None]

    def _keep_drawn(
        self,
        sample: Sample,
        image: NDArray[np.uint8],
        file: bytes | None,
        findings: Findings,
        drawn_with: DrawnWith,
    ) -> None:
        if file is None:
            with self._measures.timed(Part.ENCODE):
                file = image_files.encode(image, self._sample_store.format)
        with self._measures.timed(Part.UPLOAD):
            self._sample_store.keep_drawn(sample, file, findings, drawn_with)
        self._note(sample, hashlib.sha256(file).hexdigest())
        self._count(drawn=1, seen=1)
        self._keep_label(sample, image, findings)

    def _keep_seen(self, sample: Sample, image: NDArray[np.uint8], findings: Findings) -> None:
        with self._measures.timed(Part.UPLOAD):
            self._sample_store.keep_findings(sample, findings)
        self._count(seen=1)
        self._keep_label(sample, image, findings)

    def _keep_label(self, sample: Sample, image: NDArray[np.uint8], findings: Findings) -> None:
        with self._measures.timed(Part.DECIDE):
            label = label_of(sample, image, findings, self._header)
        with self._measures.timed(Part.UPLOAD):
            self._sample_store.keep_label(label)
        self._count(labelled=1)

    def _label_stored(self, sample: Sample) -> Need | None:
        """Decide a label from stored evidence; if a stored object is damaged, return what the sample needs."""
        try:
            image, findings = self._sample_store.image(sample), self._sample_store.findings(sample)
        except Damaged as damaged:
            return self._discarded(damaged)
        self._keep_label(sample, image, findings)
        return None

    def _go_on(self) -> None:
        if self._stop.is_set():
            counts = self._counts
            raise Interrupted(f"stopped with {counts.done} of {counts.total} samples done")

    def _note(self, sample: Sample, sha256: str) -> None:
        with self._lock:
            self._digests[sample.id] = sha256

    def _count(self, **more: int) -> None:
        with self._lock:
            now = {name: getattr(self._counts, name) + number for name, number in more.items()}
            self._counts = self._counts.model_copy(update=now)
            self._on_progress(self._counts)

    def _report(self) -> None:
        header = self._header
        report = {
            "stage": header.stage,
            "revision": header.revision,
            "index": header.index,
            "counts": self._counts.model_dump(by_alias=True),
            "images": self._digests,
        }
        if self._skipped:
            report["skipped"] = self._skipped
        key = layout.shard_report(header.revision, header.stage, header.index)
        self._store.write(key, canonical(report) + b"\n", JSON)


def _batches(samples: Sequence[Sample], size: int) -> Iterator[Sequence[Sample]]:
    for start in range(0, len(samples), size):
        yield samples[start : start + size]
