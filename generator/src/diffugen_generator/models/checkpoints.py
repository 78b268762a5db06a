"""Finds and checks a model in a single file, without loading it: which file it is, and the settings made from it.

The digest of such a model is the SHA-256 of its file, as model sites show it. The settings and tokenizers are made from
the header of the file and written to the cache, because a family reads a folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Final

from diffugen_api.plan import SpecError
from diffugen_api.v1alpha1 import S3
from diffugen_generator.families.checkpoint import PREDICTIONS, CheckpointFolder, CheckpointHeader, Prediction
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.registry import family_of, read_checkpoint
from diffugen_generator.models import cache
from diffugen_generator.models.checkpoint_pickles import header_of_pickle
from diffugen_generator.models.digests import FileDigest, hashed
from diffugen_generator.models.files import SAFE, Choice
from diffugen_generator.models.headers import check_whole, header_of
from diffugen_generator.models.model_cards import CARD
from diffugen_generator.models.pins import Pin
from diffugen_generator.models.remotes import MODEL, held, remote_file_of
from diffugen_generator.models.uris import BUCKET, HUB, local_path

PICKLE: Final = ".ckpt"
SUFFIXES: Final = (SAFE, PICKLE)
"""The ends of the names of checkpoints."""


def divided(uri: str, field: str) -> tuple[str, Prediction | None]:
    """Divide `FILE#PREDICTION` into the file and what its network predicts; other URIs stay as they are.

    Raises `SpecError` naming `field` if the prediction is unknown.
    """
    file, mark, stated = uri.rpartition("#")
    if not mark or not names_file(file):
        return uri, None
    found = next((each for each in PREDICTIONS if each == stated), None)
    if found is None:
        raise SpecError(
            "UnsupportedModel",
            f"{field}: {uri!r} ends with #{stated}, and a checkpoint may end with #{' or #'.join(PREDICTIONS)}; write "
            "one of them, or nothing.",
        )
    return file, found


def names_file(uri: str) -> bool:
    """Return whether a URI names a checkpoint in a single file, by its end; a revision may follow on the hub."""
    file, mark, revision = uri.rpartition("@") if uri.startswith(HUB) else (uri, "", "")
    return uri.endswith(SUFFIXES) or bool(mark and "/" not in revision and file.endswith(SUFFIXES))


def only_file(names: Collection[str]) -> str | None:
    """Return the one checkpoint among the files of a folder, by their names; None if there is none.

    Raises `ValueError` if there are several; the error's text ends a sentence about the folder.
    """
    for suffix in SUFFIXES:
        found = sorted(name for name in names if name.endswith(suffix) and "/" not in name)
        if len(found) > 1:
            raise ValueError(
                f"is no diffusers folder and has {len(found)} checkpoints: name one of {', '.join(found[:5])}."
            )
        if found:
            return found[0]
    return None


def resolve_checkpoint(
    uri: str, predicts: Prediction | None, *, field: str, s3: S3 | None, pin: str | None, pickled: bool, weights: bool
) -> ModelFolder:
    """Find the checkpoint that `uri` names, which is a file; the arguments and errors are those of `resolve`.

    `predicts` is what the network predicts, as the user says.
    """
    if uri.startswith((HUB, BUCKET)):
        file = _RemoteFile(uri, field, s3)
        uri, name = file.uri, file.name
        if name.endswith(PICKLE) and not pickled:  # before it is fetched
            _check_pin(uri, name, file.digest(), field=field, pin=pin, pickled=False)
        folder, digest = file.held(weights=weights or name.endswith(PICKLE))
    else:
        folder, name, digest = _local(uri, field)
    _check_pin(uri, name, digest, field=field, pin=pin, pickled=pickled)
    try:
        header = _header(folder, name)
        made, own = read_checkpoint(header, predicts), digest.sha256
        if predicts is not None and not _is_same(made, header):
            own = hashlib.sha256(f"{digest.sha256}#{predicts}".encode()).hexdigest()
        settings = _written(made, folder if uri.startswith(HUB) else None)
        family_of(made.pipeline).check(settings, made.pipeline)
    except ValueError as error:
        raise SpecError("UnsupportedModel", f"{field}: {uri!r} {error}") from None
    weights_file = folder / name
    known = f"{uri}#{predicts}" if predicts else uri
    return ModelFolder(
        known, settings, own, made.pipeline, frozenset({name}), weights_file if weights_file.is_file() else None
    )


def _local(uri: str, field: str) -> tuple[Path, str, FileDigest]:
    path = local_path(uri, field)
    if not path.is_absolute() or not path.is_file():
        raise SpecError(
            "UnknownModel",
            f"{field}: there is no file {uri!r}; give an absolute path, s3://BUCKET/FILE or hf://ORG/NAME@REVISION/FILE.",
        )
    try:
        check_whole(path.parent, [path.name])  # before its digest is compared or shown
    except ValueError as error:
        raise SpecError("UnsupportedModel", f"{field}: {uri!r} {error}") from None
    return path.parent, path.name, hashed(path)


class _RemoteFile:
    """A checkpoint on the hub or in a bucket."""

    def __init__(self, uri: str, field: str, s3: S3 | None) -> None:
        """Find the file; raise `SpecError` naming `field` if there is none."""
        self._remote, self.name = remote_file_of(uri, field, s3)
        if self.name not in (names := self._remote.names()):
            others = sorted(each for each in names if each.endswith(SUFFIXES) and "/" not in each)
            there = f"; there are {', '.join(others[:5])}" if others else ""
            raise SpecError("UnknownModel", f"{field}: there is no {uri!r}{there}; check its name.")

    @property
    def uri(self) -> str:
        """The file; of a repository, with the commit."""
        return self._remote.uri

    def digest(self) -> FileDigest:
        """Return its digest; it is fetched only if its place does not publish the digest."""
        return self._remote.digest(self.name) or self.held(weights=True)[1]

    def held(self, *, weights: bool) -> tuple[Path, FileDigest]:
        """Return a local folder with the file, or without `weights` only with its header, and its digest."""
        choice = Choice((self.name,), frozenset({self.name}), safe=self.name.endswith(SAFE), pipeline="")
        folder, files = held(self._remote, MODEL, [self._remote.identity, self.name], lambda _: choice, weights=weights)
        return folder, files[self.name]


def _check_pin(uri: str, name: str, digest: FileDigest, *, field: str, pin: str | None, pickled: bool) -> None:
    pinned = Pin(field, pin)
    pinned.check(f"the file {uri} has the SHA-256", digest.sha256)
    if name.endswith(PICKLE) and not pickled:
        pinned.check_pickle(uri, digest.sha256, "is a pickle, which may run code when loaded; save it as safetensors")


def _header(folder: Path, name: str) -> CheckpointHeader:
    if name.endswith(PICKLE):
        return header_of_pickle(folder / name)
    check_whole(folder, [name])
    return header_of(folder, name)


def _is_same(made: CheckpointFolder, header: CheckpointHeader) -> bool:
    """Return whether the file alone leads to the same settings."""
    try:
        return read_checkpoint(header, None) == made
    except ValueError:
        return False


def _written(made: CheckpointFolder, repository: Path | None) -> Path:
    """Write the settings of a checkpoint, and the card of its repository, to the cache; return their folder."""
    files = dict(made.files)
    if repository is not None and (repository / CARD).is_file():
        files[CARD] = (repository / CARD).read_bytes()

    def fill(part: Path) -> dict[str, FileDigest]:
        for name, content in files.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).write_bytes(content)
        return {name: hashed(part / name) for name in files}

    content = [[name, hashlib.sha256(each).hexdigest()] for name, each in sorted(files.items())]
    folder, _ = cache.entry(["settings of a checkpoint", content], fill, verify=True)
    return folder
