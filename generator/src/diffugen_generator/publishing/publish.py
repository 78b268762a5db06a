"""The publish step: from labels in the store to a dataset that people can train on.

One pass over the samples feeds every format. `dataset.json` is written after all other files, `current.json` after it;
each is a single write. Readers start at `current.json`, so after a crash at any byte they still read the previous
dataset. The next try writes the same bytes again. A second try after a finished one writes nothing.

The spec decides the name of a revision's folder. The same spec can lead to other images later: a model's files were
replaced, or a new release labels differently. Then the folder exists already, with other content. `addresses.json`,
written first, has the fingerprint of the content, and content with another fingerprint goes to another folder.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from diffugen_api import layout
from diffugen_api.contract import Outcome, Published
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import Expansion, SpecError, StageRecipe, address
from diffugen_api.v1alpha1 import normalized
from diffugen_generator.bounded_pool import BoundedPool
from diffugen_generator.failures import Damaged, Incomplete, Interrupted, Missing, StoreFailure
from diffugen_generator.planning.summary import read_summary, side_models_in
from diffugen_generator.publishing.card import card
from diffugen_generator.publishing.contact_sheet import ContactSheet
from diffugen_generator.publishing.dataset_format import DatasetFormat, FormatFolder
from diffugen_generator.publishing.format_registry import format_named
from diffugen_generator.publishing.history import former_revisions, history_after, kept_folders, pointer_before, prune
from diffugen_generator.publishing.labeled_samples import LabeledSample, labeled_samples, recipes_of
from diffugen_generator.publishing.manifest import PATH as MANIFEST
from diffugen_generator.publishing.manifest import Manifest
from diffugen_generator.publishing.published import current_of, dataset_at
from diffugen_generator.publishing.release import NOT_CONTENT, Release
from diffugen_generator.publishing.report.report import Report
from diffugen_generator.publishing.stored_images import StoredImage, with_images
from diffugen_generator.publishing.tally import Tally
from diffugen_generator.quality.hints import hints
from diffugen_generator.samples.documents import Schema, discard, read_document, sealed
from diffugen_generator.scratch import scratch_folder
from diffugen_generator.store.protocol import JSON, Store

NOTHING_ACCEPTED = "NothingAccepted"
"""Reason of the error where all images are rejected."""
PUBLISH_VERSION = 4
"""Raised when the same labels are written down differently."""

LOG = logging.getLogger("diffugen")

_WRITERS = 32
"""Copies and small files that are written at the same time."""

Progress = Callable[[int, int], None]
"""Called with the samples published and all samples."""


def publish(
    order: WorkOrder,
    store: Store,
    *,
    on_progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    samples: Callable[[list[StageRecipe]], Iterable[LabeledSample]] | None = None,
    drawn: bool = True,
    total: int | None = None,
) -> Outcome:
    """Publish the dataset; raise `Incomplete` where a stage is not finished, `SpecError` where nothing is accepted.

    `samples` replaces the samples that the spec asks for, and `total` is their number; `drawn` is false for the user's
    own images.
    """
    plan = _plan(store, order.revision)
    recipes = recipes_of(order.spec, plan)
    fingerprint = _fingerprint(recipes)
    folder = _folder(store, order.revision, fingerprint)
    dataset = _dataset_in(store, folder)
    if dataset is None:
        store.write(layout.addresses(folder), _document(sealed({"fingerprint": fingerprint})), JSON)
        to_publish = samples(recipes) if samples is not None else labeled_samples(order, recipes, store)
        expected = sum(Expansion(order.spec).most.values()) if total is None else total
        work = _Work(order, store, folder, plan, recipes, to_publish, expected, drawn)
        dataset = _fill(work, on_progress, stop)
    published = _published(store, folder, dataset)
    pointer = _point(store, folder, published, order.spec.revision_history_limit, clock)
    published = published.model_copy(
        update={"published_at": pointer["publishedAt"], "history": former_revisions(pointer)}
    )
    message = _sentence(published) + _pruned(store, stop)
    return Outcome(ok=True, reason="Published", message=message, published=published)


@dataclass(frozen=True, slots=True)
class _Work:
    order: WorkOrder
    store: Store
    folder: str
    plan: Mapping[str, Any]
    recipes: list[StageRecipe]
    samples: Iterable[LabeledSample]
    expected: int
    """How many samples there are, at most."""
    drawn: bool


def _fill(work: _Work, on_progress: Progress | None, stop: Callable[[], bool]) -> dict[str, Any]:
    """Write a revision's folder and return its `dataset.json`, which is written last."""
    order = work.order
    with scratch_folder() as scratch, ExitStack() as open_files, BoundedPool(_WRITERS) as pool:
        release = Release(work.store, work.folder, scratch, pool, order.spec, open_files)
        tally, manifest = Tally(release), Manifest(release)
        sheet = ContactSheet(release, tally, order.name)
        formats = [format_named(name)(FormatFolder(release, name)) for name in order.spec.output.formats]
        report = Report(order, release, tally, work.recipes, expected=work.expected)
        keep = any(each.reads_images for each in formats)
        images = with_images(work.samples, work.store, keep=keep, look=report.look)
        for done, (sample, image) in enumerate(images, start=1):
            if fault := sample.damaged or image.fault:
                release.report(sample, fault)  # `Release.finish` raises, when all faults are known
                continue
            tally.add(sample)
            manifest.add(sample, image)
            sheet.add(sample)
            report.add(sample)
            if sample.verdict.accepted:
                _add(sample, image, formats, release)
            if on_progress:
                on_progress(done, max(done, work.expected))
            if stop():
                raise Interrupted("publishing was stopped; the next try does it again")
        manifest.finish()
        for dataset_format in formats:
            dataset_format.finish()
        if not tally.accepted and not release.lost:
            raise _nothing_accepted(tally, work.folder)
        release.finish()
        sheet.finish()
        models = [(stage["model"], stage["modelDigest"]) for stage in work.plan["stages"]]
        side_models = {kind: digest for found in side_models_in(work.plan).values() for kind, digest in found.items()}
        report.finish({stage["name"]: stage["model"] for stage in work.plan["stages"]}, side_models, drawn=work.drawn)
        loading = [each.loading() for each in formats]
        readme = card(order, tally, models, side_models, loading, drawn=work.drawn)
        release.write("README.md", readme.encode(), "text/markdown")
        release.finish()
        dataset = _dataset(work, release, tally)
        if not work.store.exists(layout.addresses(work.folder)):
            raise Incomplete(f"{work.folder} was deleted while it was being filled; plan again")
        work.store.write(layout.dataset_card(work.folder), _document(sealed(dataset)), JSON)
    return dataset


def _add(sample: LabeledSample, image: StoredImage, formats: Sequence[DatasetFormat], release: Release) -> None:
    try:
        for each in formats:
            each.add(sample, image)
    except Missing as missing:
        release.report(sample, missing)


_OF_STAGES = ("name", "model", "modelDigest", "embeddings", "evidenceId", "labelId")
"""Fields of a stage in the plan that `dataset.json` keeps."""


def _dataset(work: _Work, release: Release, tally: Tally) -> dict[str, Any]:
    order = work.order
    return {
        "namespace": order.namespace,
        "name": order.name,
        "revision": order.revision,
        **tally.row(),
        "formats": list(order.spec.output.formats),
        "classIds": release.class_ids,
        "stages": [{key: stage[key] for key in _OF_STAGES if key in stage} for stage in work.plan["stages"]],
        "sha256": dict(sorted(release.files.items())),
        "spec": {field: value for field, value in normalized(order.spec).items() if field not in NOT_CONTENT},
        "generator": {"diffugen": version("diffugen"), "publish": PUBLISH_VERSION},
    }


def _published(store: Store, folder: str, dataset: Mapping[str, Any]) -> Published:
    return Published(
        uri=f"{store.uri}/{folder}".rstrip("/"),
        revision=dataset["revision"],
        samples=dataset["samples"],
        rejected=dataset["rejected"],
        instances=dataset["instances"],
        manifest_sha256=dataset["sha256"][MANIFEST],
        accepted_by_stage=dataset["acceptedByStage"],
        rejected_by_stage=dataset["rejectedByStage"],
    )


def _point(
    store: Store, folder: str, published: Published, limit: int, clock: Callable[[], datetime]
) -> dict[str, Any]:
    """Move the pointer and return it; if it already names this revision, it keeps its time.

    The write is conditional: if another publisher moved the pointer in between, its revision goes into the history.
    """
    pointer = {
        "revision": published.revision,
        "uri": published.uri,
        "manifestSHA256": published.manifest_sha256,
        "dataset": layout.dataset_card(folder),
        "samples": published.samples,
    }
    while True:
        current, tag = pointer_before(store)
        # another publisher deletes what the pointer does not name, before this one has moved it
        if not store.exists(layout.dataset_card(folder)):
            raise Incomplete(f"{folder} was deleted by another publisher of this dataset; plan again")
        there = {key: current.get(key) for key in pointer} == pointer
        now = clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        moved = {
            **pointer,
            "publishedAt": current["publishedAt"] if there else now,
            "history": history_after(pointer, current, limit),
        }
        if moved == current or store.replace(layout.CURRENT, _document(sealed(moved)), tag, JSON):
            return moved


def _pruned(store: Store, stop: Callable[[], bool]) -> str:
    """Delete what the pointer no longer names; a failure is only reported, since the dataset is published."""

    def kept() -> list[str]:
        return kept_folders(current_of(store))

    try:
        prune(store, kept, stop=stop)
    except (StoreFailure, Damaged) as failure:
        LOG.warning("former revisions stay for now: %s", failure)
        return f"; former revisions could not be deleted: {failure}"
    return ""


def _folder(store: Store, revision: str, fingerprint: str) -> str:
    """Return the folder for content with a fingerprint: the revision's own, or another one if that is in use."""
    folder = layout.revision_folder(revision)
    key = layout.addresses(folder)
    try:
        taken = read_document(store, key, _Addresses)["fingerprint"]
    except Missing:
        return folder
    except Damaged as damaged:  # its content is not known, and readers may use it: it stays as it is
        LOG.warning("%s is damaged (%s); the dataset goes to a folder beside it", damaged.key, damaged.why)
        taken = ""
    return folder if taken == fingerprint else layout.revision_folder(f"{revision}-{fingerprint[:8]}")


class _Addresses(Schema):
    fingerprint: str


def _plan(store: Store, revision: str) -> dict[str, Any]:
    try:
        return read_summary(store, revision)
    except Missing:
        raise Incomplete(f"there is no plan of revision {revision}; plan first") from None
    except Damaged as damaged:
        discard(store, damaged)
        raise


def _dataset_in(store: Store, folder: str) -> dict[str, Any] | None:
    """Return the `dataset.json` of a folder; None where it is not complete, or damaged and to be filled again."""
    try:
        return dataset_at(store, layout.dataset_card(folder))
    except Missing:
        return None
    except Damaged as damaged:
        discard(store, damaged)
        return None


def _fingerprint(recipes: list[StageRecipe]) -> str:
    """Return a hash over everything that decides a published folder's content except the spec."""
    return address([PUBLISH_VERSION, [[r.stage, dict(r.drawing), r.label_id] for r in recipes]])


def _nothing_accepted(tally: Tally, folder: str) -> SpecError:
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(tally.reasons.items()))
    return SpecError(
        NOTHING_ACCEPTED,
        f"spec.quality: all {tally.rejected.total():,} images are rejected ({reasons}): "
        f"{hints(tally.reasons, tally.dropped, tally.left_out)}. {folder}{MANIFEST} in the store lists them.",
    )


def _sentence(published: Published) -> str:
    return (
        f"{published.samples:,} images with {published.instances:,} objects are published, "
        f"{published.rejected:,} are rejected"
    )


def _document(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
