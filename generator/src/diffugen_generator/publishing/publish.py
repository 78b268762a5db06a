"""The publish step: from labels in the store to a dataset that people can train on.

One pass over the samples feeds every format. `dataset.json` is written after all other files, `current.json` after it;
each is a single write. Readers start at `current.json`, so after a crash at any byte they still read the previous
dataset. The next try writes the same bytes again. A second try after a finished one writes nothing.

The spec decides the name of a revision's folder. The same spec can lead to other images later: a model's files were
replaced, or a new release labels differently. Then the folder exists already, with other content. `addresses.json`,
written first, has the fingerprint of the content, and content with another fingerprint goes to another folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from diffugen_api import layout
from diffugen_api.contract import Outcome, Published
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import StageRecipe
from diffugen_generator.publishing.filling import Progress, Work, fill
from diffugen_generator.publishing.history import former_revisions
from diffugen_generator.publishing.labeled_samples import LabeledSample, labeled_samples
from diffugen_generator.publishing.manifest import PATH as MANIFEST
from diffugen_generator.publishing.parts import Division
from diffugen_generator.publishing.pointer import point, pruned
from diffugen_generator.publishing.publication import Publication
from diffugen_generator.publishing.published import digest_in
from diffugen_generator.store.clearing import clear
from diffugen_generator.store.protocol import Store


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
    division: Division | None = None,
) -> Outcome:
    """Publish the dataset; raise `Incomplete` where a stage is not finished, `SpecError` where nothing is accepted.

    `samples` replaces the samples that the spec asks for, and `total` is their number; `drawn` is false for the user's
    own images. With `division`, `publish_shard` has written the parts of it, and they are joined here.
    """
    publication = Publication.of(order, store)
    folder, recipes = publication.folder, publication.recipes
    dataset = publication.dataset()
    if dataset is None:
        parts = publication.parts(division) if division is not None else None
        to_publish: Iterable[LabeledSample] = ()
        if samples is None or total is None:
            expansion = publication.expansion()
        if samples is not None:
            to_publish = samples(recipes)
        elif parts is None:
            to_publish = labeled_samples(expansion, recipes, store)
        expected = sum(expansion.most.values()) if total is None else total
        work = Work(
            order, store, folder, publication.plan, recipes, to_publish, expected, drawn, publication.fingerprint, parts
        )
        dataset = fill(work, on_progress, stop)
    published = _published(store, folder, dataset)
    pointer = point(store, folder, published, order.spec.revision_history_limit, clock)
    if division is not None:
        clear(store, store.list(layout.publish_parts(order.revision)), stop=stop)
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


def _sentence(published: Published) -> str:
    return (
        f"{published.samples:,} images with {published.instances:,} objects are published, "
        f"{published.rejected:,} are rejected"
    )
