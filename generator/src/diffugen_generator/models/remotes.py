"""Remote models: either only their settings, digests and headers are fetched, or the whole model, once.

Plans need no weights; of each weights file they read the header, which names its tensors. Stages that draw or label
have the weights in the cache.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final, Protocol

from diffugen_api.addresses import canonical
from diffugen_api.contract import ENV_MODEL_CACHE
from diffugen_api.plan import SpecError
from diffugen_api.v1alpha1 import S3
from diffugen_generator.families.checkpoint import CheckpointHeader
from diffugen_generator.models import cache, headers
from diffugen_generator.models.digests import FileDigest, hashed
from diffugen_generator.models.files import SAFE
from diffugen_generator.models.model_cards import CARD
from diffugen_generator.models.uris import BUCKET, HUB

MODEL: Final = "model"
"""The kind of diffusion models."""
_STATED: Final = "weights.json"
"""The file with the digests of the weights, for a model of which only the settings were fetched."""


class Remote(Protocol):
    """A remote folder."""

    @property
    def uri(self) -> str:
        """The folder's URI. If its place has versions, the URI always means the same content."""
        ...

    @property
    def identity(self) -> object:
        """What identifies its content, as JSON data: the same identity always means the same content."""
        ...

    def names(self) -> Collection[str]:
        """Return the names of its files."""
        ...

    def digest(self, name: str) -> FileDigest | None:
        """Return a file's digest if it is known without a download."""
        ...

    def header(self, name: str) -> CheckpointHeader:
        """Return the header of a safetensors file, without its other bytes."""
        ...

    def fetch(self, names: Collection[str], folder: Path) -> Mapping[str, FileDigest]:
        """Fetch files into `folder` and check them; files or parts that are already there are used."""
        ...


class Wanted(Protocol):
    """Which files of a folder are read."""

    @property
    def names(self) -> Collection[str]:
        """The files, relative to the folder."""
        ...

    @property
    def weights(self) -> Collection[str]:
        """The names that are weights."""
        ...


def remote_of(uri: str, field: str, s3: S3 | None) -> Remote:
    """Return the folder that `hf://ORG/NAME@REVISION` or `s3://BUCKET/FOLDER` names; raise `SpecError` naming `field`.

    `s3` is the store whose endpoint, region and credentials `s3://` means.
    """
    if uri.startswith(HUB):
        from diffugen_generator.models.hub import Repository  # noqa: PLC0415 - few models are from there

        repository = Repository(uri, field)
        if repository.path:
            raise SpecError(
                "UnknownModel",
                f"{field}: {uri!r} names a file that is no checkpoint (.safetensors, .ckpt); write "
                "hf://ORG/NAME@REVISION, the whole repository, or one that is.",
            )
        return repository
    from diffugen_generator.models.buckets import BucketFolder  # noqa: PLC0415 - a third of a second

    return BucketFolder(uri, field, s3)


def remote_file_of(uri: str, field: str, s3: S3 | None) -> tuple[Remote, str]:
    """Return the one file that `hf://ORG/NAME@REVISION/FILE` or `s3://BUCKET/FILE` names, and its name in its folder.

    Raises `SpecError` naming `field` if there is no such file.
    """
    if uri.startswith(HUB):
        from diffugen_generator.models.hub import Repository  # noqa: PLC0415 - few models are from there

        repository = Repository(uri, field)
        return repository, repository.path
    from diffugen_generator.models.buckets import BucketFolder  # noqa: PLC0415 - a third of a second

    bucket = BucketFolder(uri, field, s3, single=True)
    return bucket, bucket.path


def held(
    remote: Remote, kind: str, identity: list[object], choose: Callable[[Path], Wanted], *, weights: bool
) -> tuple[Path, dict[str, FileDigest]]:
    """Return a local folder with the files that are read of a remote one, and the digest of each of these files.

    Args:
        remote: the remote folder.
        kind: the kind of the cache entries that hold all of these files.
        identity: identifies what is read, as JSON data: the same identity always means the same content.
        choose: returns which files are read; it may fetch what it needs for that into the folder that it gets.
        weights: fetch the weights, too; if False, only their digests are returned.
    """
    # The plan fills a volume that outlives the pod; into any other folder, it fetches no weights.
    whole = weights or (ENV_MODEL_CACHE in os.environ and remote.uri.startswith(BUCKET))
    if (there := cache.found([kind, *identity], verify=weights)) is None and not whole:
        return _described(remote, identity, choose, shapes=kind == MODEL)

    def fill(part: Path) -> Mapping[str, FileDigest]:
        return remote.fetch([*choose(part).names, *_card(remote)], part)

    folder, files = there or cache.entry([kind, *identity], fill, verify=weights)
    return folder, {name: digest for name, digest in files.items() if name != CARD}


def _card(remote: Remote) -> list[str]:
    """Return the name of the model's card, if it has one; it is kept for the license and is not part of any digest."""
    return [CARD] if CARD in remote.names() else []


def _described(
    remote: Remote, identity: list[object], choose: Callable[[Path], Wanted], *, shapes: bool
) -> tuple[Path, dict[str, FileDigest]]:
    """Return a folder with only the settings, and all digests; those of the weights come from the remote place.

    With `shapes`, the headers of the weights are read and kept, too.
    """

    def fill(part: Path) -> Mapping[str, FileDigest]:
        wanted = choose(part)
        settings = [name for name in wanted.names if name not in wanted.weights]
        files = dict(remote.fetch([*settings, *_card(remote)], part))
        stated, tensors, metadata = {}, {}, {}
        for name in sorted(wanted.weights):
            if (digest := remote.digest(name)) is None:
                files |= remote.fetch([name], part)  # a small file: the hub keeps it with the settings
            else:
                stated[name] = list(digest)
                if shapes and name.endswith(SAFE):
                    header = remote.header(name)
                    tensors[name] = {tensor: list(shape) for tensor, shape in header.shapes.items()}
                    metadata[name] = dict(header.metadata)
        for name, content in ((_STATED, stated), (headers.STATED, tensors), (headers.METADATA, metadata)):
            (part / name).write_bytes(canonical(content))
            files[name] = hashed(part / name)
        return files

    folder, files = cache.entry(["described", *identity], fill)
    stated = {name: FileDigest(*digest) for name, digest in json.loads((folder / _STATED).read_bytes()).items()}
    beside = {_STATED, headers.STATED, headers.METADATA, CARD}
    return folder, {name: digest for name, digest in files.items() if name not in beside} | stated
