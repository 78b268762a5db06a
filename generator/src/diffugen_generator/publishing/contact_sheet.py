"""`contact-sheet.png`: up to 32 accepted images of the dataset with their labels drawn on them.

For each class in turn, the sheet takes the images whose sample ids have the lowest hashes. So the classes are even,
the choice does not depend on what the images show, and each try of publishing makes the same choice. Images of
64 pixels are drawn four times as large; larger ones are scaled to the cell. Each keeps its proportions; of a very tall
or wide one, the shorter side has at least one pixel.
"""

from __future__ import annotations

import hashlib
import heapq
import io
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from diffugen_generator.failures import Incomplete, Missing
from diffugen_generator.publishing.fonts import writable
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.palette import Color, color_of
from diffugen_generator.publishing.release import Release
from diffugen_generator.publishing.tally import Tally
from diffugen_generator.samples import image_files
from diffugen_generator.samples.documents import checked
from diffugen_generator.samples.labels import Instance

PATH = "contact-sheet.png"
IMAGES = 32
COLUMNS = 8

_CELL = 256
"""Longest side of an image on the sheet, in pixels."""
_LEAST_WIDTH = 128
"""Least width of a cell, so that captions can be read below narrow images."""
_GAP = 16
_CAPTION = 46
_MARGIN = 40
_HEAD = 128

_BACKGROUND: Color = (18, 21, 28)
_TEXT: Color = (236, 239, 244)
_FAINT_TEXT: Color = (139, 148, 163)
_TINT = 0.2
"""Opacity of a class's color over its objects, in 0..1."""

Pixels = NDArray[np.uint8]
"""[h, w, 3], RGB."""


class _Chosen(NamedTuple):
    rank: str
    sample: LabeledSample


class ContactSheet:
    """Chooses images while samples are published, and draws the sheet last."""

    def __init__(self, release: Release, tally: Tally, title: str) -> None:
        """Begin with an empty sheet; `tally` counts the same samples."""
        self._release = release
        self._tally = tally
        self._title = title
        self._by_class: dict[str, list[_Chosen]] = {name: [] for name in ("", *release.class_ids)}
        self._each = max(2, -(-IMAGES // len(release.class_ids)) * 2)
        self._any: list[_Chosen] = []
        """The first of all, for the places that are left."""

    def add(self, sample: LabeledSample) -> None:
        """Keep an accepted sample if it is among the first of a class that it shows, or of all."""
        if not sample.verdict.accepted:
            return
        each = _Chosen(hashlib.sha256(f"sheet:{sample.sample.id}".encode()).hexdigest(), sample)
        shown = dict.fromkeys(instance.class_name for instance in sample.verdict.instances) or {"": None}
        for chosen, most in ((self._any, IMAGES), *((self._by_class[name], self._each) for name in shown)):
            chosen.append(each)
            if len(chosen) > 4 * most:
                chosen[:] = _first(chosen, most)

    def part(self) -> list[dict[str, Any]]:
        """Return the first samples of a part, as lines of a manifest for `join`."""
        chosen = [*_first(self._any, IMAGES)]
        for each in self._by_class.values():
            chosen += _first(each, self._each)
        return [each.sample.row() for each in {each.rank: each for each in chosen}.values()]

    def join(self, part: Sequence[Mapping[str, Any]]) -> None:
        """Add the first samples of a part; raise `ValueError` if one cannot be read."""
        for row in part:
            self.add(LabeledSample.from_row(row))

    def finish(self) -> None:
        """Draw the sheet and write it."""
        samples = self._chosen()
        images = [self._pixels(sample) for sample in samples]
        sheet = draw_sheet(self._title, self._legend(), self._summary(), samples, images)
        buffer = io.BytesIO()
        sheet.save(buffer, "png", compress_level=6)
        self._release.write(PATH, buffer.getvalue(), "image/png")

    def _chosen(self) -> list[LabeledSample]:
        """Return the images: the classes take turns, and what is left is filled with any."""
        queues = [_first(chosen, self._each) for chosen in self._by_class.values()]
        in_turn = [chosen for turn in zip_longest(*queues) for chosen in turn if chosen is not None]
        found = {each.rank: each.sample for each in (*in_turn, *_first(self._any, IMAGES))}
        return list(found.values())[:IMAGES]

    def _pixels(self, sample: LabeledSample) -> Pixels:
        try:
            data = self._release.store.read(sample.image)
        except Missing as missing:
            raise Incomplete(f"the image {missing.key} is gone from the store; plan again") from None
        return checked(sample.image, lambda: image_files.decode(data))

    def _legend(self) -> list[tuple[str, Color]]:
        return [
            (f"{name}  {self._tally.of_class(name):,}", color_of(number))
            for name, number in self._release.class_ids.items()
        ]

    def _summary(self) -> str:
        counts = self._tally.row()
        splits = ", ".join(f"{split} {count:,}" for split, count in counts["splits"].items())
        return f"{counts['samples']:,} images ({splits}), {counts['instances']:,} objects"


def _first(chosen: Sequence[_Chosen], most: int) -> list[_Chosen]:
    return heapq.nsmallest(most, chosen, key=lambda each: each.rank)


def draw_sheet(
    title: str,
    legend: Sequence[tuple[str, Color]],
    summary: str,
    samples: Sequence[LabeledSample],
    images: Sequence[Pixels],
) -> Image.Image:
    """Return the sheet: a head with a legend, and a grid of images with their prompts (or files) below them."""
    columns = max(4, min(COLUMNS, len(samples)))
    rows = -(-len(samples) // columns)
    sizes = [_fitted(image.shape[1], image.shape[0]) for image in images]
    width = max((_LEAST_WIDTH, *(each for each, _ in sizes)))
    height = max((each for _, each in sizes), default=_CELL)
    across = 2 * _MARGIN + columns * width + (columns - 1) * _GAP
    down = _HEAD + rows * (height + _CAPTION) + (rows - 1) * _GAP + _MARGIN
    sheet = Image.new("RGB", (across, max(down, _HEAD)), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    write(draw, (_MARGIN, 26), title, _TEXT, 34)
    write(draw, (_MARGIN, 76), summary, _FAINT_TEXT, 20)
    _draw_legend(draw, legend, across)
    class_colors = {label.rpartition("  ")[0]: color for label, color in legend}
    for number, (sample, image, size) in enumerate(zip(samples, images, sizes, strict=True)):
        x = _MARGIN + number % columns * (width + _GAP)
        y = _HEAD + number // columns * (height + _CAPTION + _GAP)
        sheet.paste(with_labels(image, sample.verdict.instances, class_colors.__getitem__, size), (x, y))
        for line, text in enumerate(_wrapped(sample.title, width)):
            write(draw, (x, y + height + 5 + 19 * line), text, _FAINT_TEXT, 15)
    return sheet


def _fitted(width: int, height: int) -> tuple[int, int]:
    """Return the width and height of an image on the sheet: the longer side is that of a cell."""
    scale = _CELL / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def with_labels(
    image: Pixels, instances: Sequence[Instance], color: Callable[[str], Color], size: tuple[int, int]
) -> Image.Image:
    """Return an image scaled to `size` (width, height) with masks, outlines, boxes and names drawn on it."""
    width, height = size
    # Not by OpenCV, whose builds round differently: all images of the project publish the same bytes.
    large = np.array(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    for instance in instances:
        mask = _scaled(instance.segmentation.mask(), size)
        tint = np.array(color(instance.class_name), np.float32)
        large[mask] = (large[mask] * (1 - _TINT) + tint * _TINT).round().astype(np.uint8)
        outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        # a wide dark line below a narrow bright one is visible on any color
        cv2.drawContours(large, outlines, -1, _BACKGROUND, 4, cv2.LINE_AA)
        cv2.drawContours(large, outlines, -1, color(instance.class_name), 2, cv2.LINE_AA)
    labeled = Image.fromarray(large)
    draw = ImageDraw.Draw(labeled)
    for instance in instances:
        rows, columns = instance.segmentation.size
        x, y, w, h = instance.bbox
        left, top = round(x * width / columns), round(y * height / rows)
        right, bottom = round((x + w) * width / columns) - 1, round((y + h) * height / rows) - 1
        # an object of one pixel in a large image is narrower than a pixel of the sheet
        draw.rectangle((left, top, max(left, right), max(top, bottom)), outline=color(instance.class_name), width=1)
        _draw_name(draw, f"{instance.class_name} {instance.score:.2f}", (left, top), size, color(instance.class_name))
    return labeled


def _scaled(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    # blurred by less than a pixel and cut at one half: the outline of a small mask becomes a curve, not stairs
    larger = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.GaussianBlur(larger, (0, 0), 0.1 + 0.6 * size[0] / mask.shape[1]) > 0.5)


def _draw_name(
    draw: ImageDraw.ImageDraw, text: str, corner: tuple[int, int], size: tuple[int, int], color: Color
) -> None:
    width, height = round(_length(text, 15)) + 8, 20
    x = max(0, min(corner[0], size[0] - width))
    y = corner[1] - height if corner[1] >= height else corner[1]
    draw.rectangle((x, y, x + width, y + height), fill=color)
    write(draw, (x + 4, y + 1), text, _BACKGROUND, 15)


def _draw_legend(draw: ImageDraw.ImageDraw, legend: Sequence[tuple[str, Color]], across: int) -> None:
    """Draw the classes in the upper right corner, as many as fit."""
    x = across - _MARGIN
    for label, color in reversed(legend):
        width = round(_length(label, 20))
        x -= width
        if x - 28 < across * 0.45:
            return
        write(draw, (x, 32), label, _TEXT, 20)
        x -= 28
        draw.rounded_rectangle((x, 34, x + 18, 52), 4, fill=color)
        x -= 26


def _wrapped(text: str, width: int, lines: int = 2) -> list[str]:
    """Break a text into lines of at most `width` pixels; what does not fit ends in an ellipsis."""
    out, words = [""], text.split()
    for word in words:
        longer = f"{out[-1]} {word}".strip()
        if _length(longer, 15) <= width:
            out[-1] = longer
        elif len(out) < lines:
            out.append(word)
        else:
            out[-1] = f"{out[-1]} …"
            break
    return [_cut(line, width) for line in out]


def _cut(line: str, width: int) -> str:
    """Return a line of at most `width` pixels, shortened if necessary; the time is logarithmic in its length."""
    if _length(line, 15) <= width:
        return line
    kept = bisect_left(range(1, len(line)), True, key=lambda end: _length(f"{line[:end]}…", 15) > width)
    return f"{line[:kept]}…"


def write(draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, color: Color, size: int) -> None:
    """Draw a line of text with its upper left corner at `corner`; `size` is in pixels."""
    text, font = writable(text, size)
    draw.text(corner, text, color, font)


def _length(text: str, size: int) -> float:
    """Return the width of a text in pixels."""
    text, font = writable(text, size)
    return font.getlength(text)
