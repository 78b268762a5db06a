"""The locations of images and datasets that commands take: a folder, or `s3://BUCKET/PREFIX`."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import ValidationError

from diffugen_api.faults import faults_of, first_of
from diffugen_api.layout import dataset_root
from diffugen_api.plan import SpecError
from diffugen_api.v1alpha1 import S3
from diffugen_generator.given.image_sources import BucketSource, FolderSource, ImageSource
from diffugen_generator.store.folder import FolderStore
from diffugen_generator.store.opening import addressing_style, open_bucket, open_folder
from diffugen_generator.store.protocol import Store

_S3 = "s3://"
NAMESPACE = "default"
"""The namespace of datasets that were not made in a cluster."""


def source_at(place: str, endpoint: str, store: str, name: str) -> ImageSource:
    """Return the files at `place`, without those of the dataset `name` at `store`, and in a bucket of all at `store`.

    Raises SpecError if `place` is not a valid location.
    """
    if place.startswith(_S3):
        source = _bucket(place, endpoint)
        left_out = ""
        if store.startswith(_S3) and (kept := _bucket(store, endpoint)).bucket == source.bucket:
            datasets = dataset_root(kept.prefix, NAMESPACE, "") + "/"
            prefix = f"{source.prefix.strip('/')}/".lstrip("/")
            left_out = datasets.removeprefix(prefix) if datasets.startswith(prefix) else ""
        return BucketSource(open_bucket(source, "", ""), left_out)
    return FolderSource(_folder(place, "DIR"), None if store.startswith(_S3) else Path(store) / NAMESPACE / name)


def store_of(place: str, endpoint: str, argument: str = "URI") -> Store:
    """Return a store whose keys are relative to `place`; `argument` is its name on the command line, for errors."""
    if place.startswith(_S3):
        return open_bucket(_bucket(place, endpoint), "", "")
    if "://" in place:
        raise SpecError("UnknownLocation", f"{argument}: {place!r} is neither s3://BUCKET/PREFIX nor a folder.")
    return FolderStore(_folder(place, argument))


def store_at(place: str, endpoint: str, name: str, namespace: str = NAMESPACE) -> Store:
    """Return the store of the dataset `name` below `place`; raise `SpecError` if `place` is not a valid location."""
    if place.startswith(_S3):
        return open_bucket(_bucket(place, endpoint), namespace, name)
    if "://" in place:
        raise SpecError("UnknownStore", f"--store: {place!r} is neither a folder nor s3://BUCKET/PREFIX.")
    return open_folder(Path(place), namespace, name)


def _folder(place: str, argument: str) -> Path:
    """Return a folder that exists; `argument` is its name on the command line, for errors."""
    if not Path(place).is_dir():
        raise SpecError("NoSuchFolder", f"{argument}: there is no folder {place!r}; give one, or s3://BUCKET/PREFIX.")
    return Path(place)


def _bucket(place: str, endpoint: str) -> S3:
    if not endpoint:
        raise SpecError("NoEndpoint", f"{place}: say where the store is: --endpoint, or AWS_ENDPOINT_URL.")
    parts = urlsplit(place)
    data = {"endpoint": endpoint, "bucket": parts.netloc, "prefix": parts.path.strip("/")}
    data["addressingStyle"] = addressing_style()
    if region := os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"):
        data["region"] = region
    try:
        return S3.model_validate(data)
    except ValidationError as error:
        raise SpecError("InvalidStore", f"{place}: {first_of(faults_of(error, S3, data))}") from None
