"""`diffugen prune`: deletes what no kept revision of a dataset needs.

First, the pointer's history is cut to the kept revisions; the others are deleted with their plans. Then samples, their
evidence and their labels are listed, and those that no kept revision names are deleted. A plan of a revision that is
not published as a whole belongs to a run that is not finished: everything that it names is kept. So is what the plan of
a published revision names, if it has other models or a prompts file, which may have changed since. Without `delete`
nothing is changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import Any

from diffugen_api import layout
from diffugen_api.plan import SpecError
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_generator.failures import Interrupted, Missing
from diffugen_generator.planning.prompt_rows import planned_expansion
from diffugen_generator.planning.summary import prompts_digest_in, read_summary
from diffugen_generator.publishing.history import kept_folders, pointer_before
from diffugen_generator.publishing.labeled_samples import recipes_of
from diffugen_generator.publishing.published import dataset_at
from diffugen_generator.publishing.reading import PublishedDataset
from diffugen_generator.samples.documents import Schema, indented, read_document, sealed
from diffugen_generator.samples.shards import EVIDENCE_IDS_KEY
from diffugen_generator.store.clearing import clear
from diffugen_generator.store.protocol import JSON, Store
from diffugen_generator.telemetry.reporter import Reporter

KINDS = ("revisions", "plans", "samples", "evidence", "labels")


class _AnySpec(Schema):
    """A planned spec; its own model validates it."""


@dataclass
class PruneResult:
    """What no kept revision needs."""

    uri: str
    kept: list[str]
    """The revisions that are kept, the current one first."""
    unfinished: list[str]
    """Planned revisions that are not published; what they name is kept."""
    removed: list[str]
    """The revisions that are not kept."""
    objects: Counter[str] = field(default_factory=Counter)
    """How many objects are deleted, by kind."""
    bytes: Counter[str] = field(default_factory=Counter)
    deleted: bool = False

    def row(self) -> dict[str, Any]:
        """Return the result as JSON data."""
        return {
            "uri": self.uri,
            "deleted": self.deleted,
            "kept": self.kept,
            "removed": self.removed,
            "unfinished": self.unfinished,
            "objects": {kind: self.objects[kind] for kind in KINDS},
            "bytes": {kind: self.bytes[kind] for kind in KINDS},
        }


class _Named:
    """What kept revisions name."""

    def __init__(self) -> None:
        self.samples: set[tuple[str, str]] = set()
        """Stage and id."""
        self.labels: set[tuple[str, str]] = set()
        """Stage and label id."""
        self.evidence: set[tuple[str, str]] = set()
        """Stage and evidence id."""
        self.whole_evidence: set[str] = set()
        """Stages whose evidence is all kept, because a revision does not say which it needs."""


def prune(store: Store, keep: int, display: Reporter, *, delete: bool, stop: Event) -> PruneResult:
    """Find, and with `delete` remove, what is not needed for the current revision and the `keep` - 1 before it.

    Raises `SpecError` if nothing is published or `keep` is below 1, and a `Failure` of the store.
    """
    if keep < 1:
        raise SpecError("InvalidKeep", f"--keep: {keep} is below 1; the current revision is always kept.")
    pointer, tag = pointer_before(store)
    if not pointer:
        raise SpecError("NotPublished", f"URI: nothing is published in {store.uri}, so nothing can be pruned.")
    cut = {**pointer, "history": pointer.get("history", [])[: keep - 1]}
    kept = kept_folders(cut)
    there = [name for name in store.folders(layout.REVISIONS) if _is_revision(name)]
    whole = {name for name in {*there, *kept} if store.exists(layout.dataset_card(layout.revision_folder(name)))}
    published = {_revision_of(name) for name in whole}
    planned = [name for name in store.folders(layout.PLANS) if layout.is_ours(layout.plan_summary(name))]
    unfinished = [name for name in planned if name not in published]
    removed = [name for name in there if name not in kept and _revision_of(name) not in unfinished]
    result = PruneResult(store.uri, kept, unfinished, removed, deleted=delete)
    named = _named(store, kept, unfinished, display)
    if delete and cut != pointer and not store.replace(layout.CURRENT, indented(sealed(cut)), tag, JSON):
        raise Interrupted(f"{store.uri}: a revision was published meanwhile; prune again")
    still = {_revision_of(name) for name in kept} | set(unfinished)
    with display.task("pruning", "objects") as advance:
        looked: list[int] = [0]

        def sweep(kind: str, prefix: str, is_needed: Callable[[str], bool]) -> None:
            def unneeded() -> Iterator[str]:
                for key, size in store.sizes(prefix):
                    if stop.is_set():
                        raise Interrupted("pruning was stopped; what is deleted is not needed, and prune goes on")
                    looked[0] += 1
                    advance(looked[0], looked[0])
                    if layout.is_ours(key) and not is_needed(key):
                        result.objects[kind] += 1
                        result.bytes[kind] += size
                        yield key

            if delete:
                clear(store, unneeded(), stop=stop.is_set)
            else:
                for _ in unneeded():
                    pass

        for name in removed:
            folder = layout.revision_folder(name)
            if delete:  # first, so that what is half deleted is not taken for a whole revision
                sweep("revisions", layout.dataset_card(folder), lambda _: False)
            sweep("revisions", folder, lambda _: False)
        for top in (layout.PLANS, layout.SHARD_REPORTS):
            sweep("plans", top, lambda key: key.split("/")[1] in still)
        sweep("samples", layout.SAMPLES, lambda key: _is_sample(key, named))
        sweep("evidence", layout.EVIDENCE, lambda key: _is_evidence(key, named))
        sweep("labels", layout.LABELS, lambda key: _is_label(key, named))
    return result


def _is_revision(name: str) -> bool:
    return layout.is_ours(layout.dataset_card(layout.revision_folder(name)))


def _revision_of(folder: str) -> str:
    """Return the revision of a folder; a folder has another name if that of the revision was in use."""
    return folder.partition("-")[0]


def _is_sample(key: str, named: _Named) -> bool:
    _, stage, _, sample_id, _ = key.split("/")
    return (stage, sample_id) in named.samples


def _is_evidence(key: str, named: _Named) -> bool:
    _, stage, evidence_id, _, file = key.split("/")
    if stage in named.whole_evidence:
        return True
    return (stage, evidence_id) in named.evidence and (stage, file.partition(".")[0]) in named.samples


def _is_label(key: str, named: _Named) -> bool:
    _, stage, label_id, _, file = key.split("/")
    return (stage, label_id) in named.labels and (stage, file.partition(".")[0]) in named.samples


def _named(store: Store, kept: list[str], unfinished: list[str], display: Reporter) -> _Named:
    named = _Named()
    given = False
    with display.task("reading", "samples") as advance:
        for name in kept:
            folder = layout.revision_folder(name)
            try:
                published = PublishedDataset(store, folder, dataset_at(store, layout.dataset_card(folder)))
            except Missing:
                if name == kept[0] and _revision_of(name) not in unfinished:
                    raise SpecError(
                        "RevisionGone",
                        f"URI: {store.uri} has lost the dataset.json of its current revision, {name}; publish it "
                        "again, then prune.",
                    ) from None
                continue  # its row of the history outlived it, or it is being published again: its plan names all
            for row in published.rows():
                sample = published.sample_of(row)
                named.samples.add((sample.stage, sample.sample.id))
                given = given or bool(sample.given)
                advance(len(named.samples), len(named.samples))
            revision = str(published.dataset["revision"])
            plan = _plan_of(store, revision)
            for stage in published.dataset.get("stages", ()):
                named.labels.add((stage["name"], stage["labelId"]))
                _add_evidence(named, stage["name"], stage, plan)
            if not given and (_differs(plan, published.dataset) or prompts_digest_in(plan)):
                _add_plan(store, revision, named)
        for revision in unfinished:
            if given:
                raise SpecError(
                    "RunNotFinished",
                    f"URI: {store.uri} has an unfinished labeling, revision {revision}; finish it with the same "
                    "`diffugen label`, then prune.",
                )
            _add_plan(store, revision, named)
            advance(len(named.samples), len(named.samples))
    return named


def _plan_of(store: Store, revision: str) -> dict[str, Any]:
    try:
        return read_summary(store, revision)
    except Missing:
        return {"stages": []}


def _differs(plan: Mapping[str, Any], dataset: Mapping[str, Any]) -> bool:
    """Whether a run of the same revision makes other content now, because a model or this program changed."""
    keys = ("modelDigest", "evidenceId", "labelId")
    published = {each["name"]: each for each in dataset.get("stages", ())}
    return any(
        each.get(key) != published.get(each["name"], {}).get(key)
        for each in plan["stages"]
        if each["name"] in published
        for key in keys
        if key in each and key in published[each["name"]]
    )


def _add_evidence(named: _Named, name: str, stage: dict[str, Any], plan: dict[str, Any]) -> None:
    """Add the evidence of a stage: what `dataset.json` says, and what the plan says of models beside the stage's."""
    planned = next((each for each in plan["stages"] if each["name"] == name), None)
    if planned is None and EVIDENCE_IDS_KEY not in stage:
        named.whole_evidence.add(name)
        return
    for each in (stage, planned or {}):
        ids = [each.get("evidenceId"), *each.get(EVIDENCE_IDS_KEY, {}).values()]
        named.evidence |= {(name, evidence_id) for evidence_id in ids if evidence_id}


def _add_plan(store: Store, revision: str, named: _Named) -> None:
    """Add everything that a plan names, from its spec."""
    try:
        summary = read_summary(store, revision)
        data = read_document(store, layout.planned_spec(revision), _AnySpec)
    except Missing:
        raise SpecError(
            "RunNotFinished",
            f"URI: {store.uri} is being planned, revision {revision}; wait for it, or delete plans/{revision}/.",
        ) from None
    spec = LabeledDatasetSpec.model_validate(data)
    expansion = planned_expansion(spec, summary, store, revision)
    for recipe in recipes_of(spec, summary):
        named.labels.add((recipe.stage, recipe.label_id))
        named.evidence |= {(recipe.stage, evidence_id) for evidence_id in recipe.evidence_ids}
        named.samples |= {(recipe.stage, sample.id) for sample in expansion.samples_of(recipe)}
