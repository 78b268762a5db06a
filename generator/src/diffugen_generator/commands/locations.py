"""The locations of images and of the dataset for `diffugen label`: a folder, or `s3://BUCKET/PREFIX`."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import ValidationError

from diffugen_api.faults import faults_of, first_of
from diffugen_api.plan import SpecError
from diffugen_api.v1alpha1 import S3
from diffugen_generator.store.folder import FolderStore
from diffugen_generator.store.opening import open_bucket, open_folder
from diffugen_generator.store.protocol import Store

_S3 = "s3://"
NAMESPACE = "default"
"""The namespace of datasets that were not made in a cluster."""


def source_at(place: str, endpoint: str) -> Store:
    """Return a store whose keys are relative to `place`; raise `SpecError` if `place` is not a valid location."""
    if place.startswith(_S3):
        return open_bucket(_bucket(place, endpoint), "", "")
    if not Path(place).is_dir():
        raise SpecError("NoSuchFolder", f"DIR: there is no folder {place!r}; give one, or s3://BUCKET/PREFIX.")
    return FolderStore(Path(place))


def store_at(place: str, endpoint: str, name: str) -> Store:
    """Return the store of the dataset `name` below `place`."""
    if place.startswith(_S3):
        return open_bucket(_bucket(place, endpoint), NAMESPACE, name)
    return open_folder(Path(place), NAMESPACE, name)


def _bucket(place: str, endpoint: str) -> S3:
    if not endpoint:
        raise SpecError("NoEndpoint", f"{place}: say where the store is: --endpoint, or AWS_ENDPOINT_URL.")
    parts = urlsplit(place)
    data = {"endpoint": endpoint, "bucket": parts.netloc, "prefix": parts.path.strip("/")}
    try:
        return S3.model_validate(data)
    except ValidationError as error:
        raise SpecError("InvalidStore", f"{place}: {first_of(faults_of(error, S3, data))}") from None
