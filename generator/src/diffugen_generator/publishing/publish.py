"""The publish step: from labels in the store to a dataset that people can train on.

One pass over the samples feeds every format. `dataset.json` is written after all other files, `current.json` after it;
each is a single write. Readers start at `current.json`, so after a crash at any byte they still read the previous
dataset. The next try writes the same bytes again. A second try after a finished one writes nothing.

The spec decides the name of a revision's folder. The same spec can lead to other images later: a model's files were
replaced, or a new release labels differently. Then the folder exists already, with other content. `addresses.json`,
written first, has the fingerprint of the content, and content with another fingerprint goes to another folder.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from diffugen_api import layout
from diffugen_api.contract import Outcome, Published
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import Expansion, StageRecipe, address
from diffugen_generator.failures import Damaged, Incomplete, Missing
from diffugen_generator.planning.prompt_rows import planned_expansion
from diffugen_generator.planning.summary import prompts_digest_in, read_summary
from diffugen_generator.publishing.file_list import missing_files
from diffugen_generator.publishing.filling import PUBLISH_VERSION, Progress, Work, fill
from diffugen_generator.publishing.history import former_revisions
from diffugen_generator.publishing.labeled_samples import LabeledSample, labeled_samples, recipes_of
from diffugen_generator.publishing.manifest import PATH as MANIFEST
from diffugen_generator.publishing.pointer import point, pruned
from diffugen_generator.publishing.published import dataset_at, digest_in, files_of
from diffugen_generator.samples.documents import Schema, discard, read_document
from diffugen_generator.store.protocol import Store

LOG = logging.getLogger("diffugen")


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
    fingerprint = _fingerprint(recipes, plan)
    folder = _folder(store, order.revision, fingerprint)
    dataset = _dataset_in(store, folder)
    if dataset is None:
        if samples is None or total is None:
            expansion = _expansion(order, plan, store)
        to_publish = samples(recipes) if samples is not None else labeled_samples(expansion, recipes, store)
        expected = sum(expansion.most.values()) if total is None else total
        work = Work(order, store, folder, plan, recipes, to_publish, expected, drawn, fingerprint)
        dataset = fill(work, on_progress, stop)
    published = _published(store, folder, dataset)
    pointer = point(store, folder, published, order.spec.revision_history_limit, clock)
    published = published.model_copy(
        update={"published_at": pointer["publishedAt"], "history": former_revisions(pointer)}
    )
    message = _sentence(published) + pruned(store, stop)
    return Outcome(ok=True, reason="Published", message=message, published=published)


def _published(store: Store, folder: str, dataset: Mapping[str, Any]) -> Published:
    return Published(
        uri=f"{store.uri}/{folder}".rstrip("/"),
        revision=dataset["revision"],
        samples=dataset["samples"],
        rejected=dataset["rejected"],
        instances=dataset["instances"],
        manifest_sha256=digest_in(dataset, MANIFEST),
        accepted_by_stage=dataset["acceptedByStage"],
        rejected_by_stage=dataset["rejectedByStage"],
    )


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
    key = layout.dataset_card(folder)
    skip = len(folder)
    try:
        dataset = dataset_at(store, key)
        sizes = ((stored[skip:], size) for stored, size in store.sizes(folder))
        missing = missing_files(partial(files_of, store, folder, dataset), sizes)
    except Missing:
        return None
    except Damaged as damaged:
        discard(store, Damaged(damaged.key, damaged.why, keys=[key]))
        return None
    if not missing:
        return dataset
    discard(store, Damaged(folder + missing[0], "it is missing or has another size", keys=[key]))
    return None


def _expansion(order: WorkOrder, plan: Mapping[str, Any], store: Store) -> Expansion:
    try:
        return planned_expansion(order.spec, plan, store, order.revision)
    except Damaged as damaged:
        discard(store, damaged)
        raise


def _fingerprint(recipes: list[StageRecipe], plan: Mapping[str, Any]) -> str:
    """Return a hash over everything that decides a published folder's content except the spec."""
    digest = prompts_digest_in(plan)
    rows = [digest] if digest else []  # added later; without a prompts file the fingerprint is the older one
    return address([PUBLISH_VERSION, [[r.stage, dict(r.drawing), r.label_id] for r in recipes], *rows])


def _sentence(published: Published) -> str:
    return (
        f"{published.samples:,} images with {published.instances:,} objects are published, "
        f"{published.rejected:,} are rejected"
    )
