"""Where models are: the schemes of their URIs, and which of them name local folders."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

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


def path_of(uri: str, field: str, *, builtin: Collection[str], what: str) -> Path:
    """Return the path of a local model: of `builtin://NAME`, or an absolute path. The path may not exist.

    `builtin` are the valid names. `what` describes what the path must be, for the error. Raises `SpecError` with
    reason `UnknownModel`, naming `field`.
    """
    names = ", ".join(builtin)
    if uri.startswith(BUILTIN):
        if (name := uri.removeprefix(BUILTIN)) not in builtin:
            raise SpecError("UnknownModel", f"{field}: no model is built in as {name!r}; builtin are: {names}.")
        return BUILTIN_FOLDER / name
    path = home_expanded(uri)
    if "://" in uri or not path.is_absolute():
        raise SpecError(
            "UnknownModel",
            f"{field}: {uri!r} is neither {BUILTIN}NAME, {HUB}ORG/NAME, {BUCKET}BUCKET/FOLDER nor the absolute path of "
            f"{what}; builtin are: {names}.",
        )
    return path
