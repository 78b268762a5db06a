"""Opens the store of a dataset: a local folder, or the bucket that its spec names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

from diffugen_api.layout import dataset_root
from diffugen_api.plan import SpecError
from diffugen_api.v1alpha1 import S3
from diffugen_api.v1alpha1.output import AddressingStyle
from diffugen_generator.store.folder import FolderStore
from diffugen_generator.store.protocol import Store

ENV_ADDRESSING_STYLE = "DIFFUGEN_S3_ADDRESSING_STYLE"
"""How requests name a bucket of a location on the command line: as `output.s3.addressingStyle` in a spec."""


def addressing_style() -> AddressingStyle:
    """Return the style of the environment; auto if it names none. Raises SpecError for an unknown one."""
    text = os.environ.get(ENV_ADDRESSING_STYLE) or "auto"
    for style in get_args(AddressingStyle):
        if text == style:
            return style  # type: ignore[no-any-return]  # get_args is not typed
    raise SpecError("InvalidStore", f"{ENV_ADDRESSING_STYLE} is {text!r}: set it to auto, path or virtual.")


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
