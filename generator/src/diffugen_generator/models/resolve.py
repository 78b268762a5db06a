"""Resolves a `model:` field: finds the model, checks it and computes its digest, without loading it.

A model is a folder in the layout of diffusers: local, in a container image, in a bucket or on the hub. Its digest
covers only the files that the pipeline reads. So a README or a second copy of the weights does not change the address
of any image, and the digest is the same in every place. A plan needs no weights of models on the hub or in a bucket; a
stage finds them in the cache.

A model in a single file, or a folder that holds only such a file, is resolved by `checkpoints`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from diffugen_api.model_images import OCI, below
from diffugen_api.plan import SpecError
from diffugen_api.v1alpha1 import S3
from diffugen_generator.families.folder import INDEX, PICKLED, ModelFolder
from diffugen_generator.families.registry import family_of
from diffugen_generator.models.checkpoints import SUFFIXES, divided, names_file, only_file, resolve_checkpoint
from diffugen_generator.models.digests import FileDigest, digest_of, hashed
from diffugen_generator.models.files import Choice, choose
from diffugen_generator.models.headers import check_whole, shapes_of
from diffugen_generator.models.pins import Pin
from diffugen_generator.models.remotes import MODEL, Remote, held, remote_of
from diffugen_generator.models.uris import BUCKET, BUILTIN_FOLDER, HUB, path_of

_FIELD = "spec.stages[].txt2img.model"


def builtin_names() -> list[str]:
    """Return the names of the models that ship with the generator."""
    return sorted(index.parent.name for index in BUILTIN_FOLDER.glob(f"*/{INDEX}"))


def resolve(
    uri: str,
    *,
    field: str = _FIELD,
    s3: S3 | None = None,
    pin: str | None = None,
    pickled: bool = False,
    weights: bool = True,
) -> ModelFolder:
    """Find the model that `uri` names: `builtin://NAME`, `hf://…`, `s3://…`, `oci://…`, or an absolute path.

    It is a folder of diffusers, or a checkpoint in a single file; `#epsilon` or `#v_prediction` may follow a file.

    Args:
        uri: the manifest's value.
        field: the manifest's field, for errors.
        s3: the store whose endpoint, region and credentials `s3://` means.
        pin: the digest that the model must have, of a single file its SHA-256; with it, pickled weights are allowed.
        pickled: allow pickled weights without `pin`; the caller then compares the digest.
        weights: fetch the weights of a remote model; if False, only what is needed to check and digest it.

    Raises:
        SpecError: reason `UnknownModel` if there is no such folder, `UnsupportedModel` if it is not a pipeline of a
            known family with safetensors weights, `ModelMismatch` if its digest is not `pin`.
        Failure: the hub or the bucket does not answer, or refuses.
    """
    place, predicts = divided(uri, field)
    single = place if names_file(place) else None
    if single is None:
        try:
            return _resolve_folder_or_remote(uri, field, s3, pin=pin, pickled=pickled, weights=weights)
        except _SingleFileError as error:
            single = error.uri
    return resolve_checkpoint(single, predicts, field=field, s3=s3, pin=pin, pickled=pickled, weights=weights)


class _SingleFileError(Exception):
    """A folder that holds only a checkpoint in a single file."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.uri = uri
        """The file."""


def _resolve_folder_or_remote(
    uri: str, field: str, s3: S3 | None, *, pin: str | None, pickled: bool, weights: bool
) -> ModelFolder:
    if uri.startswith((HUB, BUCKET)):
        found, safe = _resolve_remote(remote_of(uri, field, s3), field, weights=weights)
    else:
        found, safe = _resolve_folder(uri, field)
    pinned = Pin(field, pin)
    pinned.check(f"the model {uri} has the digest", found.digest)
    if not safe and not pickled:
        folders = ", ".join(sorted({f"{name.partition('/')[0]}/" for name in found.weights if name.endswith(PICKLED)}))
        pinned.check_pickle(
            uri,
            found.digest,
            f"has only pickled weights in {folders}, which may run code when loaded; save it again with "
            "safe_serialization=True",
        )
    return found


def _resolve_folder(uri: str, field: str) -> tuple[ModelFolder, bool]:
    path = _folder_of(uri, field)
    names = [file.relative_to(path).as_posix() for file in path.glob("*/*") if file.is_file()]
    index = (path / INDEX).read_bytes() if (path / INDEX).is_file() else None
    choice = _chosen(uri, field, names, index)
    return _found(uri, field, path, choice, {name: hashed(path / name) for name in choice.names}), choice.safe


def _resolve_remote(remote: Remote, field: str, *, weights: bool) -> tuple[ModelFolder, bool]:
    def choose(part: Path) -> Choice:
        return _choice_of(remote, field, part)

    folder, files = held(remote, MODEL, [remote.identity], choose, weights=weights)
    choice = _chosen(remote.uri, field, list(files), (folder / INDEX).read_bytes())
    return _found(remote.uri, field, folder, choice, files), choice.safe


def _choice_of(remote: Remote, field: str, folder: Path) -> Choice:
    names = remote.names()
    index = None
    if INDEX not in names:
        _look_for_single(remote.uri, field, names)
    else:
        remote.fetch([INDEX], folder)
        index = (folder / INDEX).read_bytes()
    return _chosen(remote.uri, field, names, index)


def _look_for_single(uri: str, field: str, names: Collection[str]) -> None:
    """Raise `_SingleFileError` if a folder without `model_index.json` has one checkpoint, `SpecError` if several."""
    try:
        found = only_file(names)
    except ValueError as error:
        raise SpecError("UnsupportedModel", f"{field}: {uri!r} {error}") from None
    if found is not None:
        raise _SingleFileError(below(uri, found) if uri.startswith(OCI) else f"{uri.rstrip('/')}/{found}")


def _chosen(uri: str, field: str, names: Collection[str], index: bytes | None) -> Choice:
    try:
        return choose(names, index)
    except ValueError as error:
        raise SpecError("UnsupportedModel", f"{field}: {uri!r} {error}") from None


def _found(uri: str, field: str, path: Path, choice: Choice, files: Mapping[str, FileDigest]) -> ModelFolder:
    try:
        check_whole(path, choice.weights)
        family = family_of(choice.pipeline)
        family.check(path, choice.pipeline)
        for component, shapes in shapes_of(path, choice.weights).items():
            family.check_weights(path, component, shapes)
    except ValueError as error:
        raise SpecError("UnsupportedModel", f"{field}: {uri!r} {error}") from None
    digest = digest_of({name: files[name] for name in choice.names})
    return ModelFolder(uri, path, digest, choice.pipeline, choice.weights)


def _folder_of(uri: str, field: str) -> Path:
    path = path_of(uri, field, builtin=builtin_names(), what="a diffusers folder")
    if not path.is_dir():
        raise SpecError(
            "UnknownModel",
            f"{field}: there is no folder {uri!r}; mount the model's diffusers folder there, or give a checkpoint "
            f"({', '.join(SUFFIXES)}).",
        )
    if not (path / INDEX).is_file():
        path = _snapshot_of(path, uri, field)
    if not (path / INDEX).is_file():
        place = uri if uri.startswith(OCI) else str(path)
        _look_for_single(place, field, [each.name for each in path.iterdir() if each.is_file()])
    return path


def _snapshot_of(path: Path, uri: str, field: str) -> Path:
    """Return the snapshot of a model in the Hugging Face cache: that of `refs/main`, or the only one.

    `path` is returned if it is no folder of that cache.
    """
    snapshots, main = path / "snapshots", path / "refs" / "main"
    if not snapshots.is_dir():
        return path
    there = sorted(each.name for each in snapshots.iterdir() if each.is_dir())
    wanted = main.read_text().strip() if main.is_file() else ""
    if wanted not in there and len(there) != 1:
        raise SpecError(
            "UnknownModel",
            f"{field}: {uri!r} is a folder of the Hugging Face cache with {len(there)} snapshots and without that of "
            f"refs/main; give {uri.rstrip('/')}/snapshots/REVISION.",
        )
    return snapshots / (wanted if wanted in there else there[0])
