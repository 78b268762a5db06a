"""JSON documents in a store: one bounded reader for all of them, and a checksum in each document.

A document that is read back is not trusted: a disk, a copy tool or a person may have changed it. A document that is too
large, too deep, not JSON, without a field or with another checksum is `Damaged`; the error names its key. A damaged
document counts as missing: it is deleted and made again. Documents of earlier versions have no checksum; they are
accepted.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from diffugen_api.addresses import canonical
from diffugen_generator.bounded_json import json_of
from diffugen_generator.failures import Damaged
from diffugen_generator.store.protocol import Store

T = TypeVar("T")

LOG = logging.getLogger("diffugen")

CHECKSUM = "checksum"
"""The field with the SHA-256 of the canonical JSON of all other fields."""


class Schema(BaseModel):
    """Base of the schemas of stored documents. Unknown fields come from other versions and are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with its checksum."""
    return {**content, CHECKSUM: _checksum(content)}


def indented(content: Mapping[str, Any]) -> bytes:
    """Return a document as bytes that people can read, too."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def parse(data: bytes, schema: type[BaseModel] | None = None) -> dict[str, Any]:
    """Return a document's fields without its checksum; raise `ValueError` if it is damaged."""
    try:
        content = _unsealed(json_of(data), data)
        if schema is not None:
            schema.model_validate(content)
    except RecursionError:  # of the checksum
        raise ValueError("it is nested too deeply") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the document"
        raise ValueError(f"{field}: {first['msg']}") from None
    return content


def read_document(store: Store, key: str, schema: type[BaseModel]) -> dict[str, Any]:
    """Return the fields of a stored document; raise `Missing`, or `Damaged` naming the key."""
    return checked(key, lambda: parse(store.read(key), schema))


def checked(key: str, read: Callable[[], T]) -> T:
    """Return what `read` returns; turn its `ValueError` into `Damaged`, which names the key."""
    try:
        return read()
    except ValueError as error:
        raise Damaged(key, str(error)) from error


def discard(store: Store, damaged: Damaged) -> None:
    """Delete a damaged object, so that it is made again, and log a warning."""
    LOG.warning("%s is damaged (%s); it counts as missing and is made again", damaged.key, damaged.why)
    store.delete(damaged.keys)


def _unsealed(content: Any, data: bytes) -> dict[str, Any]:
    """Return a document, read from `data`, without its checksum; raise `ValueError` if it does not match."""
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004 - the file is wrong, not the caller
    stated = content.pop(CHECKSUM, None)
    if stated is not None and not _is_canonical(data, stated) and stated != _checksum(content):
        raise ValueError("its checksum does not match")
    return content


_OPENING = f'{{"{CHECKSUM}":"'.encode()


def _is_canonical(data: bytes, checksum: Any) -> bool:
    """Return whether `data` is canonical JSON that begins with its checksum, and the checksum matches the rest.

    So are labels, and they need not be written once more to be compared.
    """
    rest = len(_OPENING) + 64
    if not (isinstance(checksum, str) and data.startswith(_OPENING) and data[rest : rest + 2] == b'",'):
        return False
    digest = hashlib.sha256(b"{")
    digest.update(data[rest + 2 :].rstrip(b"\n"))
    return digest.hexdigest() == checksum


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(content)).hexdigest()
