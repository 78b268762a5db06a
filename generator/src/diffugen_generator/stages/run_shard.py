"""The flow of one shard.

What each sample still needs is asked of the store, not of the plan, so a shard that was killed goes on where
it was.
Then: decisions on stored evidence (no model), images that were drawn but not looked at, images to draw. What turns out
to be damaged in between is missing: evidence is looked for again, an image is drawn again.
The model works on one batch while the batch before it is encoded, decided and uploaded by a bounded pool.
When `stop` is set, the batch under way is finished and uploaded, and `Interrupted` is raised.
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
"""Called with the counts so far whenever they change; from any thread, one call at a time."""

WAITING = 64
"""Samples that may wait for encoding and upload: at 512 px some 50 MB of pixels."""
THREADS = 8
"""Enough for a store some ten milliseconds away; encoding and deciding release the interpreter's lock."""


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
    """Do what a shard's samples still need, write the shard's report, and return what was done.

    Args:
        header: what the samples share.
        rows: the samples, and what each needed when the plan was made.
        store: the dataset's store.
        on_progress: told the counts whenever they change.
        on_loading: told before a model is loaded, which takes seconds without progress.
        stop: once set, the work ends after the batch under way.
        batch_size: images at once; by the device where absent.
        device: `cuda`, `cuda:1`, `cpu`; the GPU where absent and there is one.
        sessions: where the model is loaded, and kept for the next shard; `batch_size` and `device` are not read then.
        measures: told where the time goes.

    Raises:
        SpecError: the model is not the one that was planned with, or cannot be drawn with.
        Interrupted: `stop` was set before everything was done.
        Failure: of the store, or of objects in it.
    """
    sessions = sessions or SessionCache(device=device, batch_size=batch_size)
    work = _Work(header, store, on_progress, on_loading, stop or Event(), measures or Measures())
    try:
        return work.run(rows, sessions)
    except Damaged as damaged:  # of another stage, or an image that nobody draws
        discard(store, damaged)
        raise


def upload_pool() -> BoundedPool:
    """Return the pool that encodes, decides and uploads while the model draws the next batch.

    What was drawn is kept whatever ends the work, unless the store itself fails.
    """
    # Each task has a thread: more threads of OpenCV's own would only get in the way.
    return BoundedPool(THREADS, bound=WAITING, complete_on_error=True, initializer=partial(cv2.setNumThreads, 1))


class _Work:
    """One shard under way."""

    def __init__(  # noqa: PLR0917 - `run_shard`'s own
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
                needs[Need.DRAW] += self._see(needs[Need.SEE], who, uploads)
            if self._header.origins:
                needs[Need.DRAW] = self._standing(needs[Need.DRAW], uploads)
            if needs[Need.DRAW]:
                with self._measures.timed(Part.LOAD):
                    session = sessions.open(self._header, self._on_loading)
                self._draw(needs[Need.DRAW], session, uploads)
        self._report()
        return self._counts

    def _who_sees(
        self, needs: dict[Need, list[Sample]], sessions: SessionCache, uploads: BoundedPool
    ) -> ModelSession | LabelOnlySession:
        """Return who looks at stored images: the model that draws is loaded only if it is needed."""
        asked = [uploads.ask(self._sample_store.lacks_attention, sample) for sample in needs[Need.SEE]]
        lacking = [answer.result() for answer in asked]
        if needs[Need.DRAW] or any(lacking):
            return sessions.open(self._header, self._on_loading)
        return sessions.label_only(self._header, self._on_loading)

    def _needs(self, rows: Sequence[ShardRow], uploads: BoundedPool) -> dict[Need, list[Sample]]:
        """Ask the store what each sample still needs; complete ones are left out."""
        asked = [uploads.ask(self._look_up, row) for row in rows]
        needs: dict[Need, list[Sample]] = {need: [] for need in Need}
        for row, answer in zip(rows, asked, strict=True):
            if (need := answer.result()) is not None:
                needs[need].append(row.sample)
        return needs

    def _look_up(self, row: ShardRow) -> Need | None:
        need = self._sample_store.need(row.sample, row.do)
        if row.do is Need.DRAW and need is not Need.DRAW:  # an earlier try drew it; its report was never written
            try:
                file = self._sample_store.image_file(row.sample)
            except Damaged as damaged:
                return self._discarded(damaged)
            self._note(row.sample, file.sha256)
        return need

    def _label(self, needs: dict[Need, list[Sample]], uploads: BoundedPool) -> None:
        """Decide the labels of samples whose evidence is stored; what is damaged is added to the other needs."""
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
        """Return the samples whose sources will do; the others are skipped, with the reason."""
        asked = [uploads.ask(self._sources.refusal, sample) for sample in samples]
        refusals = [answer.result() for answer in asked]
        self._skipped = {sample.id: why for sample, why in zip(samples, refusals, strict=True) if why}
        if self._skipped:
            self._count(skipped=len(self._skipped))
        return [sample for sample in samples if sample.id not in self._skipped]

    def _see(
        self, samples: Sequence[Sample], session: ModelSession | LabelOnlySession, uploads: BoundedPool
    ) -> list[Sample]:
        """Look at stored images; those of the next batch are read meanwhile. Return samples with a damaged image."""
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
        """Return an image that is read; None, and its recipe is deleted, if it is damaged."""
        try:
            return read.result()
        except Damaged as damaged:
            if self._header.kind == GIVEN:  # nobody draws it again; the intake copies it again
                raise
            discard(self._store, damaged)
            return None

    def _draw(self, samples: Sequence[Sample], session: ModelSession, uploads: BoundedPool) -> None:
        """Draw images and look at them; what those of the next batch are drawn from is read meanwhile."""
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
            else:  # borders are snapped to the colors that are stored
                with self._measures.timed(Part.ENCODE):
                    encoded = [image_files.encode(each.image, self._sample_store.format) for each in drawn]
                    pairs = zip(drawn, encoded, strict=True)
                    drawn = [replace(each, image=image_files.decode(file)) for each, file in pairs]
                files = list(encoded)
            with self._measures.timed(Part.LOOK):
                seen = session.look(batch, drawn)
            for sample, each, file, findings in zip(batch, drawn, files, seen, strict=True):
                uploads.submit(self._keep_drawn, sample, each.image, file, findings)

    def _fetch_sources(self, batch: Sequence[Sample], uploads: BoundedPool) -> list[Future[SourceImage]]:
        """Return what will be read of the samples' sources; nothing for those of text alone."""
        return [uploads.ask(self._sources.source, sample) for sample in batch if sample.source is not None]

    def _keep_drawn(self, sample: Sample, image: NDArray[np.uint8], file: bytes | None, findings: Findings) -> None:
        if file is None:
            with self._measures.timed(Part.ENCODE):
                file = image_files.encode(image, self._sample_store.format)
        with self._measures.timed(Part.UPLOAD):
            self._sample_store.keep_drawn(sample, file, findings)
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
        """Decide a label on stored evidence; return what the sample needs if a stored object is damaged."""
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
