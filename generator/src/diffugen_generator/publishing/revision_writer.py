"""Writes everything that a revision's folder has, except `dataset.json`, from a stream of samples.

For each sample: a line of the manifest, its place in the report, the files of the formats. When all samples are known:
the indexes of the formats, the contact sheet, the report's page, the dataset card, the Croissant metadata, and the list
of all files. The order is always the same, and so is the list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diffugen_api.orders import WorkOrder
from diffugen_api.plan import StageRecipe
from diffugen_generator.failures import Damaged, Missing
from diffugen_generator.publishing.contact_sheet import ContactSheet
from diffugen_generator.publishing.croissant import PATH as CROISSANT
from diffugen_generator.publishing.croissant import croissant
from diffugen_generator.publishing.dataset_format import FormatFolder
from diffugen_generator.publishing.format_registry import format_named
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.manifest import Manifest
from diffugen_generator.publishing.models import Models
from diffugen_generator.publishing.parts import Part
from diffugen_generator.publishing.published import PublishedFile
from diffugen_generator.publishing.release import Release
from diffugen_generator.publishing.report.report import Report, ShownSpan
from diffugen_generator.publishing.stored_images import StoredImage
from diffugen_generator.publishing.tally import Tally
from diffugen_generator.samples.documents import indented

CARD = "README.md"


class RevisionWriter:
    """Writes one revision: `add` for each sample, then `finish_samples`, then `finish`."""

    def __init__(
        self,
        order: WorkOrder,
        release: Release,
        recipes: Sequence[StageRecipe],
        stage_models: Mapping[str, str],
        *,
        expected: int,
        span: ShownSpan | None = None,
    ) -> None:
        """Begin with no sample.

        Args:
            order: the dataset; its spec names the formats.
            release: the folder that is filled.
            recipes: the recipes of all stages.
            stage_models: the URI of each stage's model, with the commit of a repository.
            expected: how many samples there are, at most.
            span: of a part of the samples, which of those that the report shows; None for all samples.
        """
        self.tally = Tally(release)
        self._order, self._release, self._stage_models = order, release, stage_models
        self._manifest = Manifest(release, stage_models)
        self._sheet = ContactSheet(release, self.tally, order.name)
        self._folders = {name: FormatFolder(release, name) for name in order.spec.output.formats}
        self._formats = {name: format_named(name)(folder) for name, folder in self._folders.items()}
        self._report = Report(order, release, self.tally, recipes, expected=expected, span=span)

    @property
    def reads_images(self) -> bool:
        """Whether a format reads the bytes of every image."""
        return any(each.reads_images for each in self._formats.values())

    def beside(self, sample: LabeledSample) -> str:
        """Return the key of an object that `look` reads beside the image; empty if there is none."""
        return self._report.beside(sample)

    def look(self, sample: LabeledSample, image: StoredImage) -> None:
        """Prepare what the report shows of a sample, in any thread, before `add` takes it."""
        self._report.look(sample, image)

    def add(self, sample: LabeledSample, image: StoredImage, line: Mapping[str, Any] | None = None) -> None:
        """Take a sample, accepted or not; `line` is its line of the manifest, where that is known already."""
        self.tally.add(sample)
        row = sample.row()
        if line is None:
            self._manifest.add(sample, row, image)
        else:
            self._manifest.add_row(line)
        self._sheet.add(sample)
        self._report.add(sample, row)
        if not sample.verdict.accepted:
            return
        try:
            for each in self._formats.values():
                each.add(sample, image)
        except Missing as missing:
            self._release.report(sample, missing)

    def show(self, sample: LabeledSample) -> None:
        """Take a sample of the next part for the report alone, which needs it to fill a block or a chunk."""
        self._report.add(sample, sample.row())

    def pass_over(self, split: str, objects: int) -> None:
        """Count an accepted sample of an earlier part; `objects`: its objects and regions to ignore."""
        for each in self._formats.values():
            each.pass_over(split, objects)

    def part(self) -> dict[str, Any]:
        """Write what is left of a part of the samples, in place of `finish_samples`; return JSON data for `join`."""
        self._manifest.finish()
        formats = {name: each.part() for name, each in self._formats.items()}
        for folder in self._folders.values():
            folder.upload_texts()
        return {
            "tally": self.tally.part(),
            "formats": formats,
            "report": self._report.part(),
            "sheet": self._sheet.part(),
        }

    def join(self, part: Part) -> None:
        """Take a part in place of its samples, in their order; raise `Missing` or `Damaged`."""
        content = part.content
        try:
            self.tally.join(content["tally"])
            self._sheet.join(content["sheet"])
            for name, each in self._formats.items():
                self._folders[name].append_texts(part)
                each.join(content["formats"][name], part)
            self._manifest.join(part)
            index, late = set(content["index"]), set(content["report"]["late"])
            later: list[PublishedFile] = []
            for file in part.files():
                if file.path in late:
                    later.append(file)
                else:
                    self._release.files.add(file, index=file.path in index)
            self._report.join(content["report"], later)
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise Damaged(f"{part.folder}part.json", f"it cannot be joined: {error!r}") from error

    def finish_samples(self) -> None:
        """Write the manifest, and what the formats could not write before all samples were known."""
        self._manifest.finish()
        for each in self._formats.values():
            each.finish()

    def finish(self, models: Models, card: Callable[[Sequence[str]], str], *, drawn: bool) -> None:
        """Write all other files; raise `Incomplete` where an image or a label is gone.

        Args:
            models: the models that made the dataset.
            card: returns the dataset card; its argument are the formats' sections.
            drawn: whether a model drew the images.
        """
        release = self._release
        release.finish()
        self._sheet.finish()
        self._report.finish(self._stage_models, models.side_models, drawn=drawn)
        release.write(CARD, card([each.loading() for each in self._formats.values()]).encode(), "text/markdown")
        release.finish()
        described = croissant(self._order, release, self.tally, models, drawn=drawn)
        release.write(CROISSANT, indented(described), "application/ld+json")
        release.write_file_list()
