"""`report.html`: a page on the dataset, for people, that works from a bucket and from a folder.

    report.html, report/*.js, report/*.css      the page, the same for every dataset
    report/summary.js                           counts, classes, stages, settings
    report/index/00000.js                       for 4,096 samples: what the page filters by and counts
    report/samples/00000.js                     for 64 samples: their labels
    report/maps/00000.js                        the attention maps of the same samples
    report/thumbnails/00000.jpg                 their thumbnails

Memory: a few blocks and one chunk, and the previews of the images that are read ahead. Above `MOST` samples, the report
has a part of them: whole families, chosen by a hash, so that it is the same part at each try.
"""

from __future__ import annotations

import hashlib
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from diffugen_api.orders import WorkOrder
from diffugen_api.plan import Sample, StageRecipe
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.published import PublishedFile
from diffugen_generator.publishing.release import Release
from diffugen_generator.publishing.report.blocks import SAMPLES, maps_of, row_of
from diffugen_generator.publishing.report.data_files import JAVASCRIPT, data_file
from diffugen_generator.publishing.report.index_columns import ROWS, IndexColumns
from diffugen_generator.publishing.report.previews import Preview, evidence_of, preview_of
from diffugen_generator.publishing.report.summary import summary_of
from diffugen_generator.publishing.report.thumbnails import LARGEST, Sprite, sprite_of
from diffugen_generator.publishing.stored_images import StoredImage
from diffugen_generator.publishing.tally import Tally

PATH = "report.html"
FOLDER = "report/"
MOST = 100_000
"""The most samples in a report, about: its parts are chosen by a hash."""

_AHEAD = 4
"""Blocks that wait for their sprites while the next ones are filled."""

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": JAVASCRIPT,
    "svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class ShownSpan:
    """Consecutive samples of those that a report shows, by their numbers from 0."""

    first: int = 0
    end: int = sys.maxsize
    """The number after the last one."""

    @property
    def after_blocks(self) -> int:
        """How many samples after the end belong to a block that begins in the span; fewer if there are no more."""
        return self._after(SAMPLES)

    @property
    def after_chunks(self) -> int:
        """How many samples after the end belong to a chunk that begins in the span; fewer if there are no more."""
        return self._after(ROWS)

    def _after(self, size: int) -> int:
        begins = -(-self.first // size) * size < self.end
        return -self.end % size if begins else 0


def is_shown(sample: Sample, expected: int) -> bool:
    """Return whether the report of a dataset with `expected` samples, at most, shows a sample."""
    share = MOST / max(expected, MOST)
    if share == 1:
        return True
    place = hashlib.sha256(f"report:{sample.root}".encode()).digest()[:8]
    return int.from_bytes(place, "big") < share * 2**64


class Report:
    """Writes the report while samples are published; its last files when all are counted."""

    def __init__(
        self,
        order: WorkOrder,
        release: Release,
        tally: Tally,
        recipes: Sequence[StageRecipe],
        *,
        expected: int,
        span: ShownSpan | None = None,
    ) -> None:
        """Begin an empty report.

        Args:
            order: the dataset.
            release: the folder that is filled.
            tally: counts the same samples.
            recipes: the recipes of all stages.
            expected: how many samples there are, at most.
            span: which samples this part of the dataset has, of those that the report shows; all if absent. Blocks and
                chunks that begin there are written here, with the samples after the span that they need.
        """
        span = span or ShownSpan()
        self._order, self._release, self._tally = order, release, tally
        self._recipes = {recipe.stage: recipe for recipe in recipes}
        self._expected = expected
        size = order.spec.image
        self._cell = min(LARGEST, max(size.width, size.height))
        self._previews: dict[str, Preview] = {}
        self._block: list[tuple[LabeledSample, Mapping[str, Any], Preview]] = []
        self._begun = self._shown = span.first
        self._end = span.end
        self._blocks, self._chunks = -(-span.first // SAMPLES), -(-span.first // ROWS)
        self._late: list[PublishedFile] = []
        self._has_maps = False
        self._stages = {name: number for number, name in enumerate(self._recipes)}
        self._splits = {name: number for number, name in enumerate(release.splits)}
        self._index = self._new_index()
        if release.second is not None:
            release.second.call(sprite_of, [None], self._cell)  # it imports its libraries meanwhile
        self._waiting: deque[tuple[list[tuple[LabeledSample, Mapping[str, Any], Preview]], Future[Sprite]]] = deque()

    def beside(self, sample: LabeledSample) -> str:
        """Return the key of an object that `look` reads beside the image; empty if there is none."""
        return evidence_of(sample, self._recipes) if self._shows(sample) else ""

    def look(self, sample: LabeledSample, image: StoredImage) -> None:
        """Make the preview of a sample, in any thread, before `add` takes it."""
        if sample.damaged is None and image.fault is None and self._shows(sample):
            preview = preview_of(sample, image, self._recipes, self._cell)
            self._previews[sample.sample.id] = preview

    def add(self, sample: LabeledSample, row: Mapping[str, Any]) -> None:
        """Take a sample and its `row`, accepted or not, in the order of the manifest."""
        if not self._shows(sample):
            return
        place = self._shown
        self._shown += 1
        preview = self._previews.pop(sample.sample.id, Preview())
        if len(self._index) or self._begins(place, ROWS):
            self._index.add(sample)
        if self._block or self._begins(place, SAMPLES):
            self._block.append((sample, row, preview))
        if len(self._block) == SAMPLES:
            self._end_block()
        if len(self._index) == ROWS:
            self._write_index()

    def part(self) -> dict[str, Any]:
        """Write what is left of a part of the samples; return JSON data for `join`."""
        shown = min(self._shown, self._end) - self._begun
        self._write_blocks()
        # without parts, a chunk that is not full is written at the end, and listed there
        late = self._write_index() if len(self._index) else None
        return {"shown": shown, "maps": self._has_maps, "late": [late] if late else []}

    def join(self, part: Mapping[str, Any], late: Sequence[PublishedFile]) -> None:
        """Take a part, in the order of the samples; `late` are the files that its `late` names."""
        self._shown += int(part["shown"])
        self._chunks = -(-self._shown // ROWS)
        self._has_maps = self._has_maps or bool(part["maps"])
        self._late += late

    def finish(self, models: Mapping[str, str], side_models: Mapping[str, str], *, drawn: bool) -> None:
        """Write what is left, and the page.

        Args:
            models: each stage's model as the spec names it.
            side_models: the digests of the models that label beside the diffusion model, by kind.
            drawn: whether a model drew the images.
        """
        self._write_blocks()
        if len(self._index):
            self._write_index()
        for file in self._late:
            self._release.files.add(file, index=True)
        summary = summary_of(
            self._order,
            self._tally,
            list(self._recipes.values()),
            models,
            side_models,
            shown=self._shown,
            chunks=self._chunks,
            cell=self._cell,
            maps=self._has_maps,
            drawn=drawn,
        )
        self._release.write(f"{FOLDER}summary.js", data_file("summary", summary), JAVASCRIPT)
        for name, data in page_files().items():
            path = name if name == PATH else f"{FOLDER}{name}"
            self._release.write(path, data, _TYPES[name.rpartition(".")[2]])

    def _shows(self, sample: LabeledSample) -> bool:
        return is_shown(sample.sample, self._expected)

    def _begins(self, place: int, size: int) -> bool:
        """Return whether the shown sample number `place` begins a group of `size` that is written here."""
        return place % size == 0 and place < self._end

    def _new_index(self) -> IndexColumns:
        return IndexColumns(self._stages, self._splits, self._release.class_ids)

    def _write_index(self) -> str:
        """Write a chunk, and return its path."""
        name = f"index/{self._chunks:05d}"
        path = f"{FOLDER}{name}.js"
        self._release.write(path, data_file(name, self._index.content()), JAVASCRIPT)
        self._index = self._new_index()
        self._chunks += 1
        return path

    def _end_block(self) -> None:
        """Ask for the sprite of a block, and write the block that is `_AHEAD` before it.

        Which block that is does not depend on time, so the order of the files is always the same.
        """
        thumbnails = [preview.thumbnail for _, _, preview in self._block]
        sprite: Future[Sprite]
        if self._release.second is not None:
            sprite = self._release.second.call(sprite_of, thumbnails, self._cell)
        else:
            sprite = Future()
            sprite.set_result(sprite_of(thumbnails, self._cell))
        self._waiting.append((self._block, sprite))
        self._block = []
        if len(self._waiting) > _AHEAD:
            self._write_block()

    def _write_blocks(self) -> None:
        """Write all blocks that are begun."""
        if self._block:
            self._end_block()
        while self._waiting:
            self._write_block()

    def _write_block(self) -> None:
        block, made = self._waiting.popleft()
        sprite = made.result()
        rows = [
            row_of(sample, row, with_thumbnail)
            for (sample, row, _), with_thumbnail in zip(block, sprite.shown, strict=True)
        ]
        number, put = f"{self._blocks:05d}", self._release.put
        put(f"{FOLDER}samples/{number}.js", data_file(f"samples/{number}", rows), JAVASCRIPT)
        put(f"{FOLDER}thumbnails/{number}.jpg", sprite.jpeg, "image/jpeg")
        maps = maps_of([preview for _, _, preview in block])
        self._has_maps = self._has_maps or maps is not None
        put(f"{FOLDER}maps/{number}.js", data_file(f"maps/{number}", maps), JAVASCRIPT)
        self._blocks += 1


def page_files() -> dict[str, bytes]:
    """Return the files of the page by name, the same for every dataset."""
    folder = files("diffugen_generator.publishing.report") / "page"
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir(), key=lambda file: file.name)}
