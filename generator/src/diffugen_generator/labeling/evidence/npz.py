"""The npz files in which evidence is stored: written with the sample's id, read back with bounds. Without torch."""

from __future__ import annotations

import io
import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAMPLE = "sample"
"""The entry with the id of the sample; files of earlier versions do not have it."""
MOST_BYTES = 256 << 20
"""The largest array that is read: 1,000 maps of 512 x 512."""
MOST_ARRAYS = 32
MOST_TEXT = 300
"""The most characters of a library's message."""


def npz_of(arrays: Mapping[str, Any], sample_id: str, *, compressed: bool = False) -> bytes:
    """Return an npz file: the same bytes for the same arrays (`np.savez` gives all entries one fixed time)."""
    stream = io.BytesIO()
    entries = {**arrays, **({SAMPLE: np.array(sample_id, np.str_)} if sample_id else {})}
    (np.savez_compressed if compressed else np.savez)(stream, **entries)
    return stream.getvalue()


@contextmanager
def arrays_in(data: bytes, what: str, sample_id: str = "") -> Iterator[Mapping[str, NDArray[Any]]]:
    """Read an npz file of a sample: its arrays by name, which are used in the block.

    Raises `ValueError`, "not `what`", if the file is damaged or too large, if it belongs to another sample, or if an
    array that the block needs is missing or invalid.
    """
    try:
        arrays = _arrays(data)
        _check_owner(arrays, sample_id)
        yield arrays
    except KeyError as error:
        raise ValueError(f"not {what}: it has no {error}") from error
    except (
        AttributeError,
        EOFError,
        IndexError,
        NotImplementedError,  # of zipfile: a method or version that it does not know
        OSError,
        OverflowError,
        RuntimeError,  # of zipfile: an encrypted entry
        SyntaxError,
        TypeError,
        ValueError,
        tokenize.TokenError,  # of numpy's reader of headers
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        zlib.error,
    ) as error:
        raise ValueError(f"not {what}: {str(error)[:MOST_TEXT]}") from error


def _check_owner(arrays: Mapping[str, NDArray[Any]], sample_id: str) -> None:
    owner = str(arrays[SAMPLE]) if SAMPLE in arrays else ""
    if owner and sample_id and owner != sample_id:
        raise ValueError(f"it belongs to sample {owner[:40]}")


def _arrays(data: bytes) -> dict[str, NDArray[Any]]:
    with zipfile.ZipFile(io.BytesIO(data)) as entries:
        members = entries.infolist()
        if len(members) > MOST_ARRAYS:
            raise ValueError(f"{len(members)} arrays")
        return {member.filename.removesuffix(".npy"): _array(entries, member) for member in members}


def _array(entries: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    if member.file_size > MOST_BYTES:
        raise ValueError(f"{member.filename} has {member.file_size:,} bytes; the limit is {MOST_BYTES:,}")
    stream = io.BytesIO(entries.read(member))  # read to its end, so that the checksum of the entry is compared
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"{member.filename} has the format {version}")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    # numpy allocates by the header, before it reads
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != member.file_size - stream.tell():
        raise ValueError(f"{member.filename} is not an array of shape {shape} and type {dtype}")
    stream.seek(0)
    array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return array
