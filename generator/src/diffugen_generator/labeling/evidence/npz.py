"""Reading back the npz files in which what models saw is kept. Without torch."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray


@contextmanager
def arrays_in(data: bytes, what: str) -> Iterator[Mapping[str, NDArray[Any]]]:
    """Open an npz file: its arrays by name, which are read in the block.

    Raises `ValueError`, "not `what`", where the file is none, or the block does not find in it what it looks for.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            yield arrays
    except (KeyError, OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"not {what}: {error}") from error
