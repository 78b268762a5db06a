"""Single small files by name: an embedding, a LoRA, or the `.pt` file of a detector."""

from __future__ import annotations

from pathlib import Path

from diffugen_api.model_images import OCI
from diffugen_api.plan import SpecError
from diffugen_api.v1alpha1 import S3
from diffugen_generator.models import cache
from diffugen_generator.models.digests import hashed
from diffugen_generator.models.uris import BUCKET, HUB, local_path


def open_file(
    uri: str, *, field: str, default: str = "", s3: S3 | None = None, reason: str = "UnknownEmbedding"
) -> tuple[str, Path, str]:
    """Find one small file: `hf://ORG/NAME@REVISION/FILE`, `s3://BUCKET/FILE`, `oci://…#/FILE`, or an absolute path.

    Returns its URI (of a repository, with the commit), its path on this machine, and its SHA-256 in hex. `default` is
    the file of a repository if the URI names none. Raises as `resolve` does, with `reason` if a path is no file.
    """
    if not uri.startswith((HUB, BUCKET)):
        path = local_path(uri, field)
        if not path.is_absolute() or not path.is_file():
            fix = "give an absolute path, s3://BUCKET/FILE or hf://ORG/NAME/FILE"
            if uri.startswith(OCI):
                fix = "append #/FILE, its path from the root of the image"
            raise SpecError(reason, f"{field}: there is no file {uri!r}; {fix}.")
        return uri, path, hashed(path).sha256
    if uri.startswith(HUB):
        from diffugen_generator.models.hub import Repository  # noqa: PLC0415 - few models are from there

        repository = Repository(uri, field)
        name, remote = repository.path or default, repository
        if name != repository.path:
            repository.path = name
    else:
        from diffugen_generator.models.buckets import BucketFolder  # noqa: PLC0415 - a third of a second

        bucket = BucketFolder(uri, field, s3, single=True)
        name, remote = bucket.path, bucket  # type: ignore[assignment]  # also a Remote
    folder, files = cache.entry([remote.identity, name], lambda part: remote.fetch([name], part), verify=True)
    return remote.uri, folder / name, files[name].sha256
