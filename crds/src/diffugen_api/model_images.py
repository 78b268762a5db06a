"""Models in container images: `oci://REGISTRY/REPOSITORY@sha256:DIGEST#/PATH`.

A node pulls the image and mounts it into the pods as an image volume. The digest is required, so that one address
always means the same files. A tag before the digest is read and has no effect.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

OCI: Final = "oci://"
PATTERN: Final = (
    r"^oci://((localhost|[A-Za-z0-9-]+[.:][A-Za-z0-9.:-]+)(/[a-z0-9._-]+)+)(:[A-Za-z0-9_.-]+)?"
    r"@sha256:([0-9a-f]{64})(#/.*)?$"
)
"""A regular expression without lookahead and backslash, so that CEL can use it too."""

_FORM = "oci://REGISTRY/REPOSITORY@sha256:DIGEST, and #/PATH where the model is not at the root of the image"


@dataclass(frozen=True, slots=True)
class ModelImage:
    """What an `oci://` address names."""

    repository: str
    """REGISTRY/REPOSITORY."""
    digest: str
    """`sha256:` and 64 hex digits."""
    path: str
    """The folder or file in the image, relative to its root; empty for the root."""

    @property
    def reference(self) -> str:
        """The image as Kubernetes names it."""
        return f"{self.repository}@{self.digest}"


def read_model_image(uri: str) -> ModelImage:
    """Read an `oci://` address. Raises `ValueError`, whose text is a sentence about the field that has the address."""
    found = re.fullmatch(PATTERN, uri)
    if found is None:
        raise ValueError(f"{uri!r} {_fault(uri)}")
    path = (found[6] or "").removeprefix("#").strip("/")
    if ".." in path.split("/"):
        raise ValueError(f"{uri!r} has '..' after '#': write the path from the root of the image")
    return ModelImage(found[1], f"sha256:{found[5]}", path)


def below(uri: str, name: str) -> str:
    """Return the address of the file `name` in the folder that an `oci://` address names."""
    return f"{uri.rstrip('/')}{'' if '#' in uri else '#'}/{name}"


def _fault(uri: str) -> str:
    if "@" not in uri:
        return (
            "has no digest, and a tag can be moved to other files: append @sha256: and the 64 digits that the registry "
            "shows, for example by `crane digest IMAGE`"
        )
    return f"is no address of an image: write {_FORM}"
