"""`diffugen verify`: every published file against its SHA-256, and every sample against its schema, id and image.

It repairs nothing and names everything. Where the dataset was published, with its samples and labels beside it, these
are checked, too; in a folder that was pulled, only the published files are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import Any

from diffugen_api import layout
from diffugen_generator.bounded_pool import in_order
from diffugen_generator.failures import Damaged, Interrupted, Missing
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.manifest import PATH as MANIFEST
from diffugen_generator.publishing.published import PublishedFile
from diffugen_generator.publishing.reading import PublishedDataset
from diffugen_generator.samples.labels import read_label
from diffugen_generator.samples.recipes import read_image_file
from diffugen_generator.telemetry.reporter import Reporter

_READERS = 16
_WINDOW = 64


@dataclass(frozen=True, slots=True)
class FoundFault:
    """Something that is not as it should be."""

    key: str
    """The object, relative to the dataset's location."""
    why: str

    def row(self) -> dict[str, str]:
        """Return the fault as JSON data."""
        return {"key": self.key, "why": self.why}


@dataclass
class VerifyResult:
    """What was checked, and every fault."""

    uri: str
    revision: str
    files: int = 0
    samples: int = 0
    unchecked: int = 0
    """Files without a SHA-256, of revisions of earlier versions."""
    not_pulled: list[str] = field(default_factory=list)
    """Formats, and the report, that a folder does not have because they were not pulled."""
    faults: list[FoundFault] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """Return the result as JSON data."""
        return {
            "uri": self.uri,
            "revision": self.revision,
            "files": self.files,
            "samples": self.samples,
            "unchecked": self.unchecked,
            "notPulled": self.not_pulled,
            "faults": [fault.row() for fault in self.faults],
        }


def verify(published: PublishedDataset, display: Reporter, *, stop: Event) -> VerifyResult:
    """Check a revision; raise a `Failure` of the store."""
    result = VerifyResult(published.uri, str(published.dataset["revision"]))
    try:
        result.not_pulled = _not_pulled(published)
        count = sum(1 for _ in _here(published, result.not_pulled))
    except (Damaged, Missing) as fault:
        result.faults.append(_fault_of(fault))
        return result
    with display.task("files", "files") as advance:
        checked = in_order(
            partial(_check_file, published), _here(published, result.not_pulled), workers=_READERS, window=_WINDOW
        )
        for file, why in _stopping(checked, stop):
            result.files += 1
            result.unchecked += not file.sha256
            if why:
                result.faults.append(FoundFault(published.folder + file.path, why))
            advance(result.files, count)
    count = int(published.dataset["samples"]) + int(published.dataset["rejected"])
    accepted = 0
    with display.task("samples", "samples") as advance:
        looked_at = in_order(partial(_check_row, published), _rows(published, result), workers=_READERS, window=_WINDOW)
        for is_accepted, faults in _stopping(looked_at, stop):
            result.samples += 1
            accepted += is_accepted
            result.faults += faults
            advance(result.samples, max(count, result.samples))
    told = int(published.dataset["samples"])
    if (result.samples, accepted) != (count, told) and not any(f.key.endswith(MANIFEST) for f in result.faults):
        why = f"it has {result.samples:,} samples, {accepted:,} accepted; dataset.json says {count:,} and {told:,}"
        result.faults.append(FoundFault(published.folder + MANIFEST, why))
    return result


def _not_pulled(published: PublishedDataset) -> list[str]:
    """Return the parts that are wholly absent from a folder, as after `diffugen pull --format`."""
    if published.in_store:
        return []
    there = set(published.store.folders(published.folder))
    listed = {part for file in published.files() if (part := _part_of(file))}
    return sorted(listed - there)


def _here(published: PublishedDataset, not_pulled: list[str]) -> Iterator[PublishedFile]:
    return (file for file in published.files() if _part_of(file) not in not_pulled)


def _part_of(file: PublishedFile) -> str:
    """Return the format of a file, or `report`; empty for a file of the whole dataset."""
    top, slash, _ = file.path.partition("/")
    if top == "report.html":
        return "report"
    return top if slash else ""


def _stopping(values: Iterator[Any], stop: Event) -> Iterator[Any]:
    for value in values:
        if stop.is_set():
            raise Interrupted("verifying was stopped; nothing was changed")
        yield value


def _check_file(published: PublishedDataset, file: PublishedFile) -> tuple[PublishedFile, str]:
    digest, size = hashlib.sha256(), 0
    try:
        for chunk in published.store.stream(published.folder + file.path):
            digest.update(chunk)
            size += len(chunk)
    except Missing:
        return file, "it is missing"
    if file.size not in {-1, size}:
        return file, f"it has {size:,} bytes, and dataset.json says {file.size:,}"
    if file.sha256 not in {"", digest.hexdigest()}:
        return file, f"its SHA-256 is {digest.hexdigest()[:12]}…, and dataset.json says {file.sha256[:12]}…"
    return file, ""


def _rows(published: PublishedDataset, result: VerifyResult) -> Iterator[dict[str, Any]]:
    try:
        yield from published.rows()
    except (Damaged, Missing) as fault:
        result.faults.append(_fault_of(fault))


def _check_row(published: PublishedDataset, row: dict[str, Any]) -> tuple[bool, list[FoundFault]]:
    """Return whether a line of the manifest is that of an accepted sample, and its faults."""
    try:
        sample = published.sample_of(row)
    except Damaged as damaged:
        return bool(row.get("accepted")), [FoundFault(damaged.key, f"sample {row.get('id')}: {damaged.why}")]
    faults = []
    for each in sample.verdict.instances:
        if each.class_name not in published.class_ids:
            why = f"sample {sample.sample.id}: there is no class {each.class_name!r} in dataset.json"
            faults.append(FoundFault(published.folder + MANIFEST, why))
        if each.segmentation.size != (sample.height, sample.width):
            why = f"sample {sample.sample.id}: a mask has another size than the image"
            faults.append(FoundFault(published.folder + MANIFEST, why))
    if published.in_store and sample.image and (sample.verdict.accepted or row.get("imageSha256")):
        faults += _check_stored(published, sample, row)
    return sample.verdict.accepted, faults


def _check_stored(published: PublishedDataset, sample: LabeledSample, row: dict[str, Any]) -> list[FoundFault]:
    """Return the faults of a sample's image, recipe and label in the store."""
    faults = []
    try:
        file = read_image_file(published.store, sample.stage, sample.sample.id, sample.extension)
        if row.get("imageSha256", file.sha256) != file.sha256:
            why = f"its SHA-256 is {file.sha256[:12]}…, and the manifest says {row['imageSha256'][:12]}…"
            faults.append(FoundFault(sample.image, why))
    except (Damaged, Missing) as fault:
        faults.append(_fault_of(fault))
    stages = {stage["name"]: stage for stage in published.dataset.get("stages", ())}
    label_id = stages.get(sample.stage, {}).get("labelId")
    if label_id:
        key = layout.label(sample.stage, label_id, sample.sample.id)
        try:
            size = (sample.height, sample.width)
            read_label(published.store, key, sample.sample.id, size=size, classes=published.class_ids)
        except (Damaged, Missing) as fault:
            faults.append(_fault_of(fault))
    return faults


def _fault_of(fault: Damaged | Missing) -> FoundFault:
    return FoundFault(fault.key, fault.why if isinstance(fault, Damaged) else "it is missing")
