"""`report.html`: a page on the dataset, for people, that works from a bucket and from a folder.

    report.html, report/*.js, report/*.css      the page, the same for every dataset
    report/summary.js                           counts, classes, stages, settings
    report/index/00000.js                       for 4,096 samples: what the page filters by and counts
    report/samples/00000.js                     for 64 samples: their labels
    report/maps/00000.js                        the attention maps of the same samples
    report/thumbnails/00000.jpg                 their thumbnails

Memory: one block and one chunk, and the previews of the images that are read ahead. Above `MOST` samples, the report
has a part of them: whole families, chosen by a hash, so that it is the same part at each try.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files

from diffugen_api.orders import WorkOrder
from diffugen_api.plan import StageRecipe
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.release import Release
from diffugen_generator.publishing.report.blocks import SAMPLES, maps_of, rows_of, sprite_of
from diffugen_generator.publishing.report.data_files import JAVASCRIPT, data_file
from diffugen_generator.publishing.report.index_columns import ROWS, IndexColumns
from diffugen_generator.publishing.report.previews import LARGEST, Preview, preview_of
from diffugen_generator.publishing.report.summary import summary_of
from diffugen_generator.publishing.stored_images import StoredImage
from diffugen_generator.publishing.tally import Tally

PATH = "report.html"
FOLDER = "report/"
MOST = 100_000
"""The most samples in a report, about: its parts are chosen by a hash."""

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": JAVASCRIPT,
    "svg": "image/svg+xml",
}


class Report:
    """Writes the report while samples are published; its last files when all are counted."""

    def __init__(
        self, order: WorkOrder, release: Release, tally: Tally, recipes: Sequence[StageRecipe], *, expected: int
    ) -> None:
        """Begin an empty report.

        Args:
            order: the dataset.
            release: the folder that is filled.
            tally: counts the same samples.
            recipes: the recipes of all stages.
            expected: how many samples there are, at most.
        """
        self._order, self._release, self._tally = order, release, tally
        self._recipes = {recipe.stage: recipe for recipe in recipes}
        self._share = MOST / max(expected, MOST)
        size = order.spec.image
        self._cell = min(LARGEST, max(size.width, size.height))
        self._previews: dict[str, Preview] = {}
        self._block: list[tuple[LabeledSample, Preview]] = []
        self._blocks = self._chunks = self._shown = 0
        self._has_maps = False
        self._stages = {name: number for number, name in enumerate(self._recipes)}
        self._splits = {name: number for number, name in enumerate(release.splits)}
        self._index = self._new_index()

    def look(self, sample: LabeledSample, image: StoredImage) -> None:
        """Make the preview of a sample, in any thread, before `add` takes it."""
        if sample.damaged is None and image.fault is None and self._shows(sample):
            preview = preview_of(sample, image, self._recipes, self._release.store, self._cell)
            self._previews[sample.sample.id] = preview

    def add(self, sample: LabeledSample) -> None:
        """Take a sample, accepted or not, in the order of the manifest."""
        if not self._shows(sample):
            return
        self._shown += 1
        self._index.add(sample)
        self._block.append((sample, self._previews.pop(sample.sample.id, Preview())))
        if len(self._block) == SAMPLES:
            self._write_block()
        if len(self._index) == ROWS:
            self._write_index()

    def finish(self, models: Mapping[str, str], side_models: Mapping[str, str], *, drawn: bool) -> None:
        """Write what is left, and the page.

        Args:
            models: each stage's model as the spec names it.
            side_models: the digests of the models that label beside the diffusion model, by kind.
            drawn: whether a model drew the images.
        """
        if self._block:
            self._write_block()
        if len(self._index):
            self._write_index()
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
        if self._share == 1:
            return True
        place = hashlib.sha256(f"report:{sample.sample.root}".encode()).digest()[:8]
        return int.from_bytes(place, "big") < self._share * 2**64

    def _new_index(self) -> IndexColumns:
        return IndexColumns(self._stages, self._splits, self._release.class_ids)

    def _write_index(self) -> None:
        name = f"index/{self._chunks:05d}"
        self._release.write(f"{FOLDER}{name}.js", data_file(name, self._index.content()), JAVASCRIPT)
        self._index = self._new_index()
        self._chunks += 1

    def _write_block(self) -> None:
        samples, previews = [sample for sample, _ in self._block], [preview for _, preview in self._block]
        number, put = f"{self._blocks:05d}", self._release.put
        put(f"{FOLDER}samples/{number}.js", data_file(f"samples/{number}", rows_of(samples, previews)), JAVASCRIPT)
        put(f"{FOLDER}thumbnails/{number}.jpg", sprite_of(previews, self._cell), "image/jpeg")
        maps = maps_of(previews)
        self._has_maps = self._has_maps or maps is not None
        put(f"{FOLDER}maps/{number}.js", data_file(f"maps/{number}", maps), JAVASCRIPT)
        self._block = []
        self._blocks += 1


def page_files() -> dict[str, bytes]:
    """Return the files of the page by name, the same for every dataset."""
    folder = files("diffugen_generator.publishing.report") / "page"
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir(), key=lambda file: file.name)}
