"""Finds the published dataset at a location that the user gives: `s3://BUCKET/…`, or a folder.

The location is that of the dataset (with `current.json`), of one of its revisions (`…/revisions/NAME`), or a folder
that `diffugen pull` filled.
"""

from __future__ import annotations

from pathlib import Path

from diffugen_api import layout
from diffugen_generator.commands.locations import store_of
from diffugen_generator.failures import Damaged, Missing, NotPublished, RevisionGone
from diffugen_generator.publishing.published import current_of, dataset_at, folder_of
from diffugen_generator.publishing.reading import PublishedDataset
from diffugen_generator.store.protocol import Store

CURRENT = "current"
"""The link that `pull` keeps beside the revisions that it has fetched."""


def published_at(place: str, endpoint: str = "") -> PublishedDataset:
    """Return the dataset at `place`: the current revision, or the one that `place` names.

    Raises `NotPublished` if there is none, `RevisionGone` if the revision was deleted, `SpecError` or a `StoreFailure`.
    """
    whole = place.rstrip("/")
    root, _, name = whole.rpartition(f"/{layout.REVISIONS}")
    if root and name and "/" not in name:
        store = store_of(root, endpoint)
        return _revision(store, layout.revision_folder(name))
    store = store_of(place, endpoint)
    try:
        pointer = current_of(store)
    except Missing:
        return _folder(store, place)
    folder = folder_of(pointer)
    if not layout.is_ours(layout.dataset_card(folder)):
        raise Damaged(layout.CURRENT, f"it names the folder {folder!r}, which is no folder of a revision")
    try:
        dataset = dataset_at(store, pointer["dataset"])
    except Missing:
        raise RevisionGone(
            f"{store.uri}/{layout.CURRENT} names the revision {folder}, which is not there any more; publish it again"
        ) from None
    return PublishedDataset(store, folder, dataset, pointer["publishedAt"])


def _revision(store: Store, folder: str) -> PublishedDataset:
    try:
        return PublishedDataset(store, folder, dataset_at(store, layout.dataset_card(folder)))
    except Missing:
        there = ", ".join(store.folders(layout.REVISIONS)) or "none"
        raise RevisionGone(
            f"{store.uri} has no complete revision {folder.split('/')[1]}; the revisions there are: {there}"
        ) from None


def _folder(store: Store, place: str) -> PublishedDataset:
    """Return the dataset of a folder without a pointer: a revision's folder, or one that `pull` filled."""
    folders = [""]
    link = Path(place) / CURRENT
    if not place.startswith("s3://") and link.is_dir():
        folders.append(f"{CURRENT}/")
    for folder in folders:
        try:
            return PublishedDataset(store, folder, dataset_at(store, layout.dataset_card(folder)))
        except Missing:
            continue
    raise NotPublished(
        f"{store.uri}: nothing is published there: it has neither {layout.CURRENT} nor dataset.json; give the folder "
        "of the dataset, PREFIX/NAMESPACE/NAME, or wait until it is published"
    )
