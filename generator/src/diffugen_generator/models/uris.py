"""Where models are: the schemes of their URIs, and which of them name local folders."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from diffugen_api.contract import ENV_MODEL_IMAGES
from diffugen_api.model_images import OCI, read_model_image
from diffugen_api.plan import SpecError

BUILTIN: Final = "builtin://"
HUB: Final = "hf://"
BUCKET: Final = "s3://"
BUILTIN_FOLDER: Final = Path(__file__).parent.parent / "builtin"


def home_expanded(uri: str) -> Path:
    """Return a path with `~` replaced by the user's home folder; a path without a known user stays as it is."""
    try:
        return Path(uri).expanduser()
    except RuntimeError:
        return Path(uri)


def in_image(uri: str, field: str, *, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the path of what an `oci://` address names, in the folder where its image is mounted.

    `$DIFFUGEN_MODEL_IMAGES` names these folders; the operator sets it in pods. Raises `SpecError` with reason
    `UnknownModel`, naming `field`, if the address is not valid, the image is not mounted, or has no such path.
    """
    try:
        image = read_model_image(uri)
    except ValueError as error:
        raise SpecError("UnknownModel", f"{field}: {error}.") from None
    pairs = (each.partition("=") for each in environ.get(ENV_MODEL_IMAGES, "").split(",") if each)
    folder = {digest.strip(): folder.strip() for digest, _, folder in pairs}.get(image.digest)
    if folder is None:
        raise SpecError(
            "UnknownModel",
            f"{field}: {uri!r} is in an image, which only the pods of a cluster have; give a folder, {HUB}ORG/NAME or "
            f"{BUCKET}BUCKET/FOLDER here, or unpack the image and set {ENV_MODEL_IMAGES}={image.digest}=FOLDER.",
        )
    path = Path(folder) / image.path
    if not path.exists():
        raise SpecError(
            "UnknownModel",
            f"{field}: the image {image.reference} has no {'/' + image.path!r} (there is no {path}); write the path "
            "from the root of the image after '#'.",
        )
    return path


def local_path(uri: str, field: str) -> Path:
    """Return the path of a local file or folder: a path, or an address in an image. A path may not exist.

    Raises as `in_image` does.
    """
    return in_image(uri, field) if uri.startswith(OCI) else home_expanded(uri)


def path_of(uri: str, field: str, *, builtin: Collection[str], what: str) -> Path:
    """Return the path of a local model: of `builtin://NAME`, in an image, or an absolute path, which may not exist.

    `builtin` are the valid names. `what` describes what the path must be, for the error. Raises `SpecError` with
    reason `UnknownModel`, naming `field`.
    """
    names = ", ".join(builtin)
    if uri.startswith(BUILTIN):
        if (name := uri.removeprefix(BUILTIN)) not in builtin:
            raise SpecError("UnknownModel", f"{field}: no model is built in as {name!r}; builtin are: {names}.")
        return BUILTIN_FOLDER / name
    if uri.startswith(OCI):
        return in_image(uri, field)
    path = home_expanded(uri)
    if "://" in uri or not path.is_absolute():
        raise SpecError(
            "UnknownModel",
            f"{field}: {uri!r} is neither {BUILTIN}NAME, {HUB}ORG/NAME, {BUCKET}BUCKET/FOLDER, "
            f"{OCI}REGISTRY/REPOSITORY@sha256:DIGEST nor the absolute path of {what}; builtin are: {names}.",
        )
    return path
