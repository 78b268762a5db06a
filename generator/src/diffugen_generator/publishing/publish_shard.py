"""One shard of a publication: writes a part of the samples, which the publish step joins with the others.

The part's images, label files and report blocks go to the revision's folder. What has to be joined, such as the lines
of the manifest and of COCO's annotations, goes to a folder of the part. A shard that is finished is not written again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, islice

from diffugen_api.contract import Outcome, ShardCounts
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import Sample
from diffugen_generator.bounded_pool import BoundedPool
from diffugen_generator.failures import Damaged, Incomplete, Missing
from diffugen_generator.publishing.decisions import Reads, decide, decision_on, decisions_of
from diffugen_generator.publishing.filling import ADDRESSES, WRITERS, Progress
from diffugen_generator.publishing.labeled_samples import LabeledSample, Read, placed, placing_of, read_ahead, reads_of
from diffugen_generator.publishing.parts import Division, PartRelease, Parts
from diffugen_generator.publishing.placing import Accepted, Placing
from diffugen_generator.publishing.publication import Publication
from diffugen_generator.publishing.report.report import ShownSpan, is_shown
from diffugen_generator.publishing.revision_writer import RevisionWriter
from diffugen_generator.publishing.second_process import second_process_for
from diffugen_generator.publishing.stopping import check_stop
from diffugen_generator.publishing.stored_images import with_images
from diffugen_generator.samples.documents import discard, indented, sealed
from diffugen_generator.scratch import scratch_folder
from diffugen_generator.store.protocol import JSON, Store


def publish_shard(
    order: WorkOrder,
    store: Store,
    index: int,
    division: Division,
    *,
    on_progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Write shard `index` of a publication; raise `Incomplete` where a stage is not finished."""
    publication = Publication.of(order, store)
    parts = publication.parts(division)
    if parts.is_complete(index) or publication.dataset() is not None:
        return Outcome(ok=True, reason="ShardDone", message=f"shard {index} was published already")
    expansion = publication.expansion()

    def reads() -> Iterator[tuple[Sample, Read]]:
        return reads_of(expansion, publication.recipes, store)

    shard = _Shard(publication, parts, index, reads, sum(expansion.most.values()))
    try:
        decide(parts, index, reads, stop)
        count = shard.write(on_progress, stop)
    except Missing as missing:  # the parts are deleted when another publisher has moved the pointer
        raise Incomplete(f"{missing.key} was deleted during publication; plan again") from missing
    message = f"{count:,} samples of shard {index + 1} of {division.count} are published"
    return Outcome(ok=True, reason="ShardDone", message=message, counts=ShardCounts(total=count))


@dataclass(frozen=True, slots=True)
class _Shard:
    publication: Publication
    parts: Parts
    index: int
    reads: Reads
    expected: int
    """How many samples the dataset has, at most."""

    def write(self, on_progress: Progress | None, stop: Callable[[], bool]) -> int:
        """Write the part, and mark it as finished; return its number of samples."""
        work, parts, index = self.publication, self.parts, self.index
        placing, digest = self._placing()
        span, count = self._measured()
        stage_models = {stage["name"]: stage["model"] for stage in work.plan["stages"]}
        work.store.write(work.folder + ADDRESSES, indented(sealed({"fingerprint": work.fingerprint})), JSON)
        with scratch_folder() as scratch, ExitStack() as files, BoundedPool(WRITERS) as pool:
            name = work.folder.split("/")[1]
            release = PartRelease(
                work.store, work.folder, scratch, pool, work.order.spec, files, name, part_folder=parts.of(index)
            )
            release.second = second_process_for(count, files)
            writer = RevisionWriter(work.order, release, work.recipes, stage_models, expected=self.expected, span=span)
            for decision in decisions_of(parts, range(index)):
                if not placing.original_of(decision.accepted.id):
                    writer.pass_over(placing.split_of(decision.accepted.root), decision.objects)
            own, in_blocks, in_chunks = self._streams(span)
            judged = self._as_decided(read_ahead(chain(own, in_blocks)), count)
            samples = (placed(each, placing) for each in judged)
            images = with_images(
                samples,
                work.store,
                keep=writer.reads_images,
                look=writer.look,
                beside=writer.beside,
                second=release.second,
            )
            for done, (sample, image) in enumerate(images, start=1):
                if done > count:
                    writer.show(sample)
                elif fault := sample.damaged or image.fault:
                    release.report(sample, fault)
                else:
                    writer.add(sample, image)
                if on_progress:
                    on_progress(min(done, count), count)
                check_stop(stop)
            for sample in read_ahead(in_chunks):
                writer.show(placed(sample, placing))
            content = writer.part()
            parts.complete(index, {**content, **release.finish_part(), "decisions": digest})
        return count

    def _placing(self) -> tuple[Placing, str]:
        """Return the duplicates and splits of all samples, and a digest of what they follow from."""
        digest = hashlib.sha256()

        def accepted() -> Iterator[Accepted]:
            for each in decisions_of(self.parts, range(self.parts.division.count)):
                digest.update(repr(each).encode())
                yield each.accepted

        try:
            return placing_of(self.publication.order.spec, accepted()), digest.hexdigest()
        except Damaged as damaged:
            discard(self.parts.store, damaged)
            raise

    def _as_decided(self, samples: Iterable[LabeledSample], count: int) -> Iterator[LabeledSample]:
        """Yield `samples`; raise `Incomplete` where one of the first `count` was another when it was decided on.

        That is so if a label was damaged or deleted meanwhile, and was made again with another result. Then the
        decisions and all parts that follow from them count as missing.
        """
        parts, index = self.parts, self.index
        decided = decisions_of(parts, range(index, index + 1))
        for number, sample in enumerate(samples, start=1):
            changed = number <= count and sample.verdict.accepted and next(decided, None) != decision_on(sample)
            if changed or (number == count and next(decided, None) is not None):
                parts.store.delete([parts.decisions(index), parts.claim(index)])
                parts.discard()
                raise Incomplete(f"the label of sample {sample.sample.id} changed during publication; plan again")
            yield sample

    def _measured(self) -> tuple[ShownSpan, int]:
        """Return which of the samples that the report shows are in this shard, and how many samples the shard has."""
        division, stream = self.parts.division, (sample for sample, _ in self.reads())
        before = sum(is_shown(each, self.expected) for each in islice(stream, division.first(self.index)))
        own = [is_shown(each, self.expected) for each in islice(stream, division.length(self.index))]
        return ShownSpan(before, before + sum(own)), len(own)

    def _streams(self, span: ShownSpan) -> tuple[Iterator[Read], Iterator[Read], Iterator[Read]]:
        """Return the reads of the shard's samples, and of later ones for the report's last block and last chunk.

        All are from one pass, so they have to be used in this order.
        """
        division, stream = self.parts.division, self.reads()
        length, first = division.length(self.index), division.first(self.index)
        own = (read for _, read in islice(islice(stream, first, None), length))
        later = (read for sample, read in stream if is_shown(sample, self.expected))
        in_blocks = islice(later, span.after_blocks)
        return own, in_blocks, islice(later, max(0, span.after_chunks - span.after_blocks))
