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
from diffugen_generator.failures import Missing
from diffugen_generator.publishing.contact_sheet import ContactSheet
from diffugen_generator.publishing.croissant import PATH as CROISSANT
from diffugen_generator.publishing.croissant import croissant
from diffugen_generator.publishing.dataset_format import FormatFolder
from diffugen_generator.publishing.format_registry import format_named
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.manifest import Manifest
from diffugen_generator.publishing.models import Models
from diffugen_generator.publishing.release import Release
from diffugen_generator.publishing.report.report import Report
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
    ) -> None:
        """Begin with no sample.

        Args:
            order: the dataset; its spec names the formats.
            release: the folder that is filled.
            recipes: the recipes of all stages.
            stage_models: the URI of each stage's model, with the commit of a repository.
            expected: how many samples there are, at most.
        """
        self.tally = Tally(release)
        self._order, self._release, self._stage_models = order, release, stage_models
        self._manifest = Manifest(release, stage_models)
        self._sheet = ContactSheet(release, self.tally, order.name)
        self._formats = [format_named(name)(FormatFolder(release, name)) for name in order.spec.output.formats]
        self._report = Report(order, release, self.tally, recipes, expected=expected)

    @property
    def reads_images(self) -> bool:
        """Whether a format reads the bytes of every image."""
        return any(each.reads_images for each in self._formats)

    def look(self, sample: LabeledSample, image: StoredImage) -> None:
        """Prepare what the report shows of a sample, in any thread, before `add` takes it."""
        self._report.look(sample, image)

    def add(self, sample: LabeledSample, image: StoredImage, line: Mapping[str, Any] | None = None) -> None:
        """Take a sample, accepted or not; `line` is its line of the manifest, where that is known already."""
        self.tally.add(sample)
        if line is None:
            self._manifest.add(sample, image)
        else:
            self._manifest.add_row(line)
        self._sheet.add(sample)
        self._report.add(sample)
        if not sample.verdict.accepted:
            return
        try:
            for each in self._formats:
                each.add(sample, image)
        except Missing as missing:
            self._release.report(sample, missing)

    def finish_samples(self) -> None:
        """Write the manifest, and what the formats could not write before all samples were known."""
        self._manifest.finish()
        for each in self._formats:
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
        release.write(CARD, card([each.loading() for each in self._formats]).encode(), "text/markdown")
        release.finish()
        described = croissant(self._order, release, self.tally, models, drawn=drawn)
        release.write(CROISSANT, indented(described), "application/ld+json")
        release.write_file_list()
