"""One publication of a revision: its plan, its recipes, and the folder that its content goes to."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from diffugen_api import layout
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import Expansion, StageRecipe, address
from diffugen_generator.failures import Damaged, Incomplete, Missing
from diffugen_generator.planning.prompt_rows import planned_expansion
from diffugen_generator.planning.summary import prompts_digest_in, read_summary
from diffugen_generator.publishing.file_list import missing_files
from diffugen_generator.publishing.filling import PUBLISH_VERSION
from diffugen_generator.publishing.labeled_samples import recipes_of
from diffugen_generator.publishing.parts import Division, Parts
from diffugen_generator.publishing.published import dataset_at, files_of
from diffugen_generator.samples.documents import Schema, discard, read_document
from diffugen_generator.store.protocol import Store

LOG = logging.getLogger("diffugen")


@dataclass(frozen=True, slots=True)
class Publication:
    """What is published, and where."""

    order: WorkOrder
    store: Store
    plan: Mapping[str, Any]
    recipes: list[StageRecipe]
    fingerprint: str
    """A hash over everything that decides the content of the folder except the spec."""
    folder: str
    """Key of the revision's folder, with its closing slash."""

    @classmethod
    def of(cls, order: WorkOrder, store: Store) -> Self:
        """Return the publication of an order; raise `Incomplete` where there is no plan."""
        plan = _plan(store, order.revision)
        recipes = recipes_of(order.spec, plan)
        fingerprint = _fingerprint(recipes, plan)
        return cls(order, store, plan, recipes, fingerprint, _folder(store, order.revision, fingerprint))

    def dataset(self) -> dict[str, Any] | None:
        """Return the `dataset.json` of the folder; None where it is not complete, or damaged and to be filled again."""
        store, folder = self.store, self.folder
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

    def expansion(self) -> Expansion:
        """Return the expansion of the spec, with the rows of its prompts file as the plan read them."""
        try:
            return planned_expansion(self.order.spec, self.plan, self.store, self.order.revision)
        except Damaged as damaged:
            discard(self.store, damaged)
            raise

    def parts(self, division: Division) -> Parts:
        """Return the parts of the publication, for shards."""
        return Parts(self.store, self.order.revision, self.fingerprint, division)


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


def _fingerprint(recipes: list[StageRecipe], plan: Mapping[str, Any]) -> str:
    """Return a hash over everything that decides a published folder's content except the spec."""
    digest = prompts_digest_in(plan)
    rows = [digest] if digest else []  # added later; without a prompts file the fingerprint is the older one
    return address([PUBLISH_VERSION, [[r.stage, dict(r.drawing), r.label_id] for r in recipes], *rows])
