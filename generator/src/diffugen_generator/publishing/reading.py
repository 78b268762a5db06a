"""A published revision as its readers see it: files, samples, and images, from a store or from a folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pydantic import ValidationError

from diffugen_api import layout
from diffugen_api.faults import faults_of, first_of
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_generator.failures import Damaged, FilesDamaged, Missing
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.manifest import PATH as MANIFEST
from diffugen_generator.publishing.published import PublishedFile, files_of, rows_of
from diffugen_generator.samples.documents import checked
from diffugen_generator.store.protocol import Store

_IMAGES = (
    "coco/{split}/{id}.{extension}",
    "yolo/images/{split}/{id}.{extension}",
    "masks/images/{split}/{id}.{extension}",
    "voc/JPEGImages/{id}.{jpg}",
)
"""Where the formats have the image files of accepted samples."""


@dataclass(frozen=True)
class PublishedDataset:
    """One published revision."""

    store: Store
    folder: str
    """Key of the revision's folder in the store, with its closing slash; empty if the store is that folder."""
    dataset: Mapping[str, Any]
    """The content of `dataset.json`."""
    published_at: str = ""
    """When the pointer was moved to it; empty if it was not found by the pointer."""

    @property
    def uri(self) -> str:
        """The location of the revision's folder, for messages."""
        return f"{self.store.uri}/{self.folder}".rstrip("/")

    @property
    def name(self) -> str:
        """The name of the revision's folder: the revision, or another name if that was in use."""
        return PurePosixPath(self.folder).name if self.in_store else str(self.dataset["revision"])

    @property
    def in_store(self) -> bool:
        """Whether the images, labels and plans of the dataset are beside the revision, as where it was published."""
        return self.folder.startswith(layout.REVISIONS)

    @property
    def formats(self) -> list[str]:
        """The formats that it has."""
        return [str(name) for name in self.dataset.get("formats", ())]

    @property
    def class_ids(self) -> dict[str, int]:
        """Each class's id."""
        return dict(self.dataset["classIds"])

    @property
    def spec(self) -> LabeledDatasetSpec:
        """The spec without what does not change the content; raise `Damaged` if this version cannot read it."""
        data = self.dataset.get("spec", {})
        try:
            return LabeledDatasetSpec.model_validate(data)
        except ValidationError as error:
            fault = first_of(faults_of(error, LabeledDatasetSpec, data, path="spec"))
            raise Damaged(f"{self.folder}dataset.json", str(fault)) from None

    def files(self) -> Iterator[PublishedFile]:
        """Yield all files except `dataset.json`."""
        for file in files_of(self.store, self.folder, self.dataset):
            if not _is_safe(file.path):
                raise Damaged(f"{self.folder}dataset.json", f"it lists the path {file.path!r}")
            yield file

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of the manifest; raise `Damaged` or `Missing`."""
        key = self.folder + MANIFEST
        yield from rows_of(key, self.store.stream(key))

    def samples(self) -> Iterator[LabeledSample]:
        """Yield the samples of the manifest; raise `Damaged` or `Missing`."""
        for row in self.rows():
            yield self.sample_of(row)

    def sample_of(self, row: Mapping[str, Any]) -> LabeledSample:
        """Return a line of the manifest as a sample; raise `Damaged` if it is not valid."""
        return checked(self.folder + MANIFEST, lambda: LabeledSample.from_row(row))

    def image(self, sample: LabeledSample) -> bytes:
        """Return the image file of an accepted sample; raise `FilesDamaged` if no folder here has it."""
        jpg = "jpg" if sample.extension == "jpeg" else sample.extension
        fields = {"split": sample.split, "id": sample.sample.id, "extension": sample.extension, "jpg": jpg}
        keys = [self.folder + place.format(**fields) for place in _IMAGES if place.split("/")[0] in self.formats]
        for key in [*keys, *([sample.image] if self.in_store else [])]:
            try:
                return self.store.read(key)
            except Missing:
                continue
        raise FilesDamaged(
            f"{self.uri} has no image file of sample {sample.sample.id}; pull it with coco, yolo, masks or voc, which "
            "have image files, or give the dataset's own location"
        )


def _is_safe(path: str) -> bool:
    """Whether a path stays in the folder that it is relative to."""
    parts = path.split("/")
    return not any(part in {"", ".", ".."} or "\\" in part or "\0" in part for part in parts)
