"""Opens the store of a dataset: a local folder, or the bucket that its spec names."""

from __future__ import annotations

from pathlib import Path

from diffugen_api.layout import dataset_root
from diffugen_api.plan import SpecError
from diffugen_api.v1alpha1 import S3
from diffugen_generator.store.folder import FolderStore
from diffugen_generator.store.protocol import Store


def open_folder(folder: Path, namespace: str, name: str) -> FolderStore:
    """Return the store of a dataset below a local folder; the folder can hold many datasets."""
    return FolderStore(folder / dataset_root("", namespace, name))


def open_bucket(s3: S3 | None, namespace: str, name: str) -> Store:
    """Return the store of a dataset in the bucket of its spec; raise `SpecError` if the spec names none."""
    if s3 is None:
        raise SpecError(
            "NoStore",
            "spec.output.s3: no store is given to publish to; set endpoint and bucket, "
            "or name a folder with `diffugen run --store DIR`.",
        )
    from diffugen_generator.store.s3 import S3Store  # noqa: PLC0415 - importing minio takes a third of a second

    return S3Store(s3, dataset_root(s3.prefix, namespace, name))
