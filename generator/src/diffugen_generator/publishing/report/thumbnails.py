"""The thumbnails of a block of the report, in one JPEG (a sprite).

Decoding small images and encoding sprites is a quarter of the work of publishing them, and the rest is Python, which
runs on one core. So where a report has many blocks, a second process makes the sprites:
`python -m diffugen_generator.publishing.report.thumbnails FD` reads pickled blocks from the socket FD, and answers each
with its sprite. A sprite is the same whichever process makes it.
"""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

LARGEST = 128
"""Longest side of a thumbnail in pixels."""
ACROSS = 8
"""Thumbnails in a row of a sprite."""

_EMPTY = 128
"""The gray of a cell without a thumbnail."""
_QUALITY = 88

Thumbnail: TypeAlias = NDArray[np.uint8] | bytes | None
"""[h, w, 3] sRGB; or a PNG file of a small image, which is decoded with its block; None where there is no image."""


@dataclass(frozen=True, slots=True)
class Sprite:
    """The thumbnails of a block."""

    jpeg: bytes
    shown: list[bool]
    """For each place of the block, whether it has a thumbnail: an image may be missing, or cannot be decoded."""


def thumbnail_of(data: bytes, cell: int) -> NDArray[np.uint8] | bytes:
    """Return the thumbnail of an image file, at most `cell` on the longest side; raise `ValueError`.

    A PNG of 8 bits RGB that is no larger than that is returned as it is.
    """
    return data if _is_small_png(data, cell) else _decoded(data, cell)


def sprite_of(thumbnails: Sequence[Thumbnail], cell: int) -> Sprite:
    """Return the thumbnails, each in the upper left of a cell of `cell` x `cell` pixels, row by row."""
    rows = -(-len(thumbnails) // ACROSS)
    sprite = np.full((rows * cell, ACROSS * cell, 3), _EMPTY, np.uint8)
    shown = [False] * len(thumbnails)
    for number, thumbnail in enumerate(thumbnails):
        if (pixels := _pixels(thumbnail, cell)) is None:
            continue
        top, left = number // ACROSS * cell, number % ACROSS * cell
        height, width = pixels.shape[:2]
        sprite[top : top + height, left : left + width] = pixels
        shown[number] = True
    stream = io.BytesIO()
    Image.fromarray(sprite).save(stream, "jpeg", quality=_QUALITY, subsampling=0)
    return Sprite(stream.getvalue(), shown)


class SpriteMaker:
    """Makes sprites one after another: in a second process, or at once by the caller."""

    def __init__(self, *, second_process: bool) -> None:
        """Start no process yet."""
        self._thread = ThreadPoolExecutor(1) if second_process else None
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def make(self, thumbnails: Sequence[Thumbnail], cell: int) -> Future[Sprite]:
        """Return the sprite of a block as a future."""
        if self._thread is not None:
            return self._thread.submit(self._ask, thumbnails, cell)
        made: Future[Sprite] = Future()
        made.set_result(sprite_of(thumbnails, cell))
        return made

    def close(self) -> None:
        """End the second process; sprites that are not made yet are dropped."""
        if self._thread is None:
            return
        self._thread.shutdown(wait=True, cancel_futures=True)
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.wait()

    def _ask(self, thumbnails: Sequence[Thumbnail], cell: int) -> Sprite:
        """Have the second process make a sprite; make it here if that process cannot start or has ended."""
        with suppress(EOFError, OSError):
            if self._connection is None:
                self._connection, self._process = _second_process()
            self._connection.send((thumbnails, cell))
            return Sprite(*self._connection.recv())
        return sprite_of(thumbnails, cell)


def _second_process() -> tuple[Connection, subprocess.Popen[bytes]]:
    ours, theirs = Pipe()
    with theirs:
        fd = theirs.fileno()
        process = subprocess.Popen([sys.executable, "-m", __name__, str(fd)], pass_fds=[fd], stdin=subprocess.DEVNULL)
    return ours, process


def _pixels(thumbnail: Thumbnail, cell: int) -> NDArray[np.uint8] | None:
    if not isinstance(thumbnail, bytes):
        return thumbnail
    # OpenCV decodes a PNG of 8 bits RGB in a third of the time that PIL takes, to the same pixels.
    pixels = cv2.imdecode(np.frombuffer(thumbnail, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is not None:  # [h, w, 3] BGR
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
    try:
        return _decoded(thumbnail, cell)
    except ValueError:
        return None


def _decoded(data: bytes, cell: int) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(data)) as file:
            file.draft("RGB", (cell, cell))  # JPEG decodes to a smaller size at once
            small = file.convert("RGB")
            small.thumbnail((cell, cell), Image.Resampling.HAMMING, reducing_gap=2.0)
            return np.asarray(small)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"not an image: {error}") from error


_PNG = b"\x89PNG\r\n\x1a\n"
_RGB_8 = b"\x08\x02"
"""Bit depth and color type in the header of a PNG as this project writes it."""


def _is_small_png(data: bytes, cell: int) -> bool:
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    return data.startswith(_PNG) and max(width, height) <= cell and data[24:26] == _RGB_8


def _main(fd: int) -> None:
    """Answer each block with its sprite, until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, which sends it to both; the other end is closed then
    cv2.setNumThreads(1)
    with Connection(fd) as blocks, suppress(EOFError, OSError):
        while True:
            sprite = sprite_of(*blocks.recv())
            blocks.send((sprite.jpeg, sprite.shown))  # as a class, it would be one of `__main__`


if __name__ == "__main__":
    _main(int(sys.argv[1]))
