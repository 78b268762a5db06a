"""`diffugen export` and `diffugen merge`: published datasets in other formats, or several as one, in a new folder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, get_args

from diffugen_api.plan import SpecError
from diffugen_api.v1alpha1.output import Format
from diffugen_generator.publishing.exporting import write_again
from diffugen_generator.publishing.reading import PublishedDataset
from diffugen_generator.store.folder import FolderStore
from diffugen_generator.telemetry.reporter import Reporter


@dataclass(frozen=True, slots=True)
class WrittenResult:
    """A dataset that was written."""

    folder: Path
    formats: list[str]
    dataset: dict[str, Any]
    duplicates: int
    """Samples that came more than once and were written once."""

    def row(self) -> dict[str, Any]:
        """Return the result as JSON data."""
        counts = ("name", "revision", "samples", "rejected", "instances", "splits", "classes", "sources")
        return {
            "folder": str(self.folder),
            "formats": self.formats,
            "duplicates": self.duplicates,
            **{name: self.dataset[name] for name in counts},
        }


def write(
    name: str,
    sources: Sequence[PublishedDataset],
    formats: Sequence[str],
    output: Path,
    display: Reporter,
    *,
    stop: Event,
) -> WrittenResult:
    """Write `sources` as one dataset to the folder `output`, which must not exist or be empty.

    The folder gets its name when it is complete. Raises `SpecError` and a `Failure`.
    """
    check_known(formats)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise SpecError("OutputExists", f"--output: {output} is there already and not empty; name another folder.")
    part = output.absolute().with_name(f".{output.absolute().name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        with display.task("writing", "samples") as advance:
            dataset = write_again(name, sources, formats, FolderStore(part), advance, stop=stop.is_set)
        if output.exists():
            output.rmdir()
        part.replace(output)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    before = sum(int(each.dataset["samples"]) + int(each.dataset["rejected"]) for each in sources)
    return WrittenResult(output, list(formats), dataset, before - int(dataset["samples"]) - int(dataset["rejected"]))


def check_known(formats: Sequence[str]) -> None:
    """Raise `SpecError` if a format is unknown, or none is given."""
    known = get_args(Format)
    if not formats:
        raise SpecError("NoFormat", f"--format: none is given; there are {', '.join(known)}.")
    for each in formats:
        if each not in known:
            raise SpecError("UnknownFormat", f"--format: {each!r} is unknown; there are {', '.join(known)}.")
