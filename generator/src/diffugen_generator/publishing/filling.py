"""Fills a revision's folder: one pass over the samples feeds the manifest, every format and the extras.

`dataset.json` is written last, after the store has listed every other file with its size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from diffugen_api import layout
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import SpecError, StageRecipe
from diffugen_api.v1alpha1 import normalized
from diffugen_generator.bounded_pool import BoundedPool
from diffugen_generator.failures import Damaged, Incomplete, Missing
from diffugen_generator.planning.summary import licenses_in, side_models_in
from diffugen_generator.publishing.card import card
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.manifest import PATH as MANIFEST
from diffugen_generator.publishing.models import Models
from diffugen_generator.publishing.parts import Parts
from diffugen_generator.publishing.release import NOT_CONTENT, Release
from diffugen_generator.publishing.revision_writer import RevisionWriter
from diffugen_generator.publishing.second_process import second_process_for
from diffugen_generator.publishing.stopping import check_stop
from diffugen_generator.publishing.stored_images import with_images
from diffugen_generator.publishing.tally import Tally
from diffugen_generator.quality.hints import hints
from diffugen_generator.samples.documents import indented, sealed
from diffugen_generator.samples.shards import EVIDENCE_IDS_KEY
from diffugen_generator.scratch import scratch_folder
from diffugen_generator.store.protocol import JSON, Store

NOTHING_ACCEPTED = "NothingAccepted"
"""Reason of the error where all images are rejected."""
PUBLISH_VERSION = 6
"""Raised when the same labels are written down differently. 4: the report is written. 5: `dataset.json` lists every
file with its size, the manifest has what recipes say of number types and versions, and `croissant.json` is written.
6: the rows of `huggingface` have the regions to ignore."""
ADDRESSES = layout.addresses("")

WRITERS = 32
"""Copies and small files that are written at the same time."""

Progress = Callable[[int, int], None]
"""Called with the samples published and all samples."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is published, and where."""

    order: WorkOrder
    store: Store
    folder: str
    """Key of the revision's folder, with its closing slash."""
    plan: Mapping[str, Any]
    recipes: list[StageRecipe]
    samples: Iterable[LabeledSample]
    expected: int
    """How many samples there are, at most."""
    drawn: bool
    """False for the user's own images."""
    fingerprint: str
    """A hash over everything that decides the content of the folder except the spec."""
    parts: Parts | None = None
    """The parts to join in place of `samples`."""

    @property
    def stage_models(self) -> dict[str, str]:
        """The URI of each stage's model."""
        return {stage["name"]: stage["model"] for stage in self.plan["stages"]}


def fill(work: Work, on_progress: Progress | None, stop: Callable[[], bool]) -> dict[str, Any]:
    """Write a revision's folder and return its `dataset.json`, which is written last."""
    order = work.order
    with scratch_folder() as scratch, ExitStack() as open_files, BoundedPool(WRITERS) as pool:
        release = Release(work.store, work.folder, scratch, pool, order.spec, open_files, work.folder.split("/")[1])
        release.write(ADDRESSES, indented(sealed({"fingerprint": work.fingerprint})), JSON)
        stages = work.plan["stages"]
        if work.parts is None:  # parts that are joined have their images and sprites already
            release.second = second_process_for(work.expected, open_files)
        writer = RevisionWriter(order, release, work.recipes, work.stage_models, expected=work.expected)
        if work.parts is not None:
            _join(writer, work.parts, on_progress, stop)
        else:
            _add_samples(writer, release, work, on_progress, stop)
        writer.finish_samples()
        tally = writer.tally
        if not tally.accepted and not release.lost:
            raise _nothing_accepted(tally, work.folder)
        side_models = {kind: digest for found in side_models_in(work.plan).values() for kind, digest in found.items()}
        models = Models(
            [(stage["model"], stage["modelDigest"]) for stage in stages], side_models, licenses_in(work.plan)
        )
        writer.finish(models, lambda loading: card(order, tally, models, loading, drawn=work.drawn), drawn=work.drawn)
        if missing := release.missing():
            if work.parts is not None:
                work.parts.discard()
            more = f" and {missing[1]}" if len(missing) > 1 else ""
            raise Incomplete(
                f"{work.folder} was deleted while it was being filled: {missing[0]}{more} is not there; plan again"
            )
        dataset = _dataset(work, release, tally)
        work.store.write(layout.dataset_card(work.folder), indented(sealed(dataset)), JSON)
    return dataset


def _add_samples(
    writer: RevisionWriter, release: Release, work: Work, on_progress: Progress | None, stop: Callable[[], bool]
) -> None:
    images = with_images(
        work.samples,
        work.store,
        keep=writer.reads_images,
        look=writer.look,
        beside=writer.beside,
        second=release.second,
    )
    for done, (sample, image) in enumerate(images, start=1):
        if fault := sample.damaged or image.fault:
            release.report(sample, fault)  # `Release.finish` raises, when all faults are known
            continue
        writer.add(sample, image)
        if on_progress:
            on_progress(done, max(done, work.expected))
        check_stop(stop)


def _join(writer: RevisionWriter, parts: Parts, on_progress: Progress | None, stop: Callable[[], bool]) -> None:
    try:
        for part in parts.every():
            writer.join(part)
            if on_progress:
                on_progress(writer.tally.all(), max(writer.tally.all(), parts.division.count * parts.division.size))
            check_stop(stop)
    except (Missing, Damaged) as fault:
        parts.discard()
        raise Incomplete(f"the shards of the publication cannot be joined: {fault}; plan again") from fault


_OF_STAGES = (
    "name",
    "model",
    "modelDigest",
    "licenses",
    "embeddings",
    "loras",
    "calibration",
    "evidenceId",
    "labelId",
    EVIDENCE_IDS_KEY,
)
"""Fields of a stage in the plan that `dataset.json` keeps."""


def _dataset(work: Work, release: Release, tally: Tally) -> dict[str, Any]:
    order = work.order
    return {
        "namespace": order.namespace,
        "name": order.name,
        "revision": order.revision,
        **tally.row(),
        "formats": list(order.spec.output.formats),
        "classIds": release.class_ids,
        "stages": [{key: stage[key] for key in _OF_STAGES if key in stage} for stage in work.plan["stages"]],
        **release.files.row(),
        "spec": {field: value for field, value in normalized(order.spec).items() if field not in NOT_CONTENT},
        "generator": {"diffugen": version("diffugen"), "publish": PUBLISH_VERSION},
    }


def _nothing_accepted(tally: Tally, folder: str) -> SpecError:
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(tally.reasons.items()))
    return SpecError(
        NOTHING_ACCEPTED,
        f"spec.quality: all {tally.rejected.total():,} images are rejected ({reasons}): "
        f"{hints(tally.reasons, tally.dropped, tally.left_out)}. {folder}{MANIFEST} in the store lists them.",
    )
