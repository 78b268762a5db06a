"""Where models are: what their URIs begin with, and which of them are folders here."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

from diffugen_api.plan import SpecError

BUILTIN: Final = "builtin://"
HUB: Final = "hf://"
BUCKET: Final = "s3://"
BUILTIN_FOLDER: Final = Path(__file__).parent.parent / "builtin"


def path_of(uri: str, field: str, *, builtin: Collection[str], what: str) -> Path:
    """Return where a model that is here lies: `builtin://NAME`, or an absolute path, at which there may be nothing.

    `builtin` are the names that there are, `what` says what a path has to be of. Raises `SpecError` with reason
    `UnknownModel`, naming `field`.
    """
    names = ", ".join(builtin)
    if uri.startswith(BUILTIN):
        if (name := uri.removeprefix(BUILTIN)) not in builtin:
            raise SpecError("UnknownModel", f"{field}: no model is built in as {name!r}; builtin are: {names}.")
        return BUILTIN_FOLDER / name
    path = Path(uri)
    if "://" in uri or not path.is_absolute():
        raise SpecError(
            "UnknownModel",
            f"{field}: {uri!r} is neither {BUILTIN}NAME, {HUB}ORG/NAME, {BUCKET}BUCKET/FOLDER nor the absolute path of "
            f"{what}; builtin are: {names}.",
        )
    return path
