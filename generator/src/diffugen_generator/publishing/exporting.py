"""Writes published samples once more: in other formats, or several datasets as one. Nothing is drawn or labeled.

The samples come from the manifests of published revisions, and the images from where these have them. The result is a
folder like that of a revision, with its report and with `dataset.json` last, so everything that reads published
revisions reads it, too. The report has no attention maps: they are in the store of the dataset, not in the revision.
Classes are joined by name. A sample that several revisions have is written once, as the first of them has it. A family
of images that several revisions have is in the split of the first, so no split gets an image drawn from another's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from pydantic import ValidationError

from diffugen_api import layout
from diffugen_api.faults import faults_of, first_of
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import SpecError, StageRecipe, address
from diffugen_api.v1alpha1 import LabeledDatasetSpec, in_graph_order, normalized
from diffugen_generator.bounded_pool import BoundedPool, in_order
from diffugen_generator.failures import Damaged, FilesDamaged, Interrupted
from diffugen_generator.publishing.format_registry import check_formats
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.manifest import PATH as MANIFEST
from diffugen_generator.publishing.models import Models
from diffugen_generator.publishing.reading import PublishedDataset
from diffugen_generator.publishing.release import Release
from diffugen_generator.publishing.revision_writer import RevisionWriter
from diffugen_generator.publishing.stored_images import StoredImage
from diffugen_generator.publishing.tally import Tally
from diffugen_generator.samples.documents import indented, sealed
from diffugen_generator.scratch import scratch_folder
from diffugen_generator.store.clearing import clear
from diffugen_generator.store.folder import FolderStore
from diffugen_generator.store.protocol import JSON

_IMAGES = "images/"
"""Folder in the target for image files, which the formats link; deleted at the end."""
_READERS = 16
_WINDOW = 32
_WRITERS = 16

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of a manifest, and whose it is."""

    published: PublishedDataset
    line: Mapping[str, Any]
    sample: LabeledSample


def write_again(
    name: str,
    sources: Sequence[PublishedDataset],
    formats: Sequence[str],
    target: FolderStore,
    on_progress: Progress,
    *,
    stop: Callable[[], bool],
) -> dict[str, Any]:
    """Write the samples of `sources` to the folder `target` in `formats`; return the content of its `dataset.json`.

    Raises `SpecError` for an unknown format or differing classes, `FilesDamaged` where an image is in no folder, and a
    `Failure` of a store. `target` must be empty.
    """
    spec = joined_spec(sources, formats)
    check_formats(formats)
    revision = address([[str(each.dataset["revision"]), each.name] for each in sources], 10)
    order = WorkOrder(namespace="default", name=name, revision=revision, spec=spec)
    expected = sum(int(each.dataset["samples"]) + int(each.dataset["rejected"]) for each in sources)
    with scratch_folder() as scratch, ExitStack() as files, BoundedPool(_WRITERS) as pool:
        release = Release(target, "", scratch, pool, spec, files, revision)
        stages = _Stages(sources)
        writer = RevisionWriter(order, release, stages.recipes, stages.models, expected=expected)

        def fetched(row: _Row) -> tuple[_Row, StoredImage]:
            accepted = row.sample.verdict.accepted
            sample = replace(row.sample, image=f"{_IMAGES}{row.sample.file_name}" if accepted else "")
            image = StoredImage(target, sample)
            if accepted:
                data = row.published.image(row.sample)
                image.take(data, keep=True)
                if row.line.get("imageSha256", image.sha256) != image.sha256:
                    raise FilesDamaged(
                        f"{row.published.uri}: the image of sample {sample.sample.id} differs from its SHA-256 in the "
                        "manifest; pull the dataset again, or see `diffugen verify`"
                    )
                target.write(sample.image, data)
            writer.look(sample, image)
            if not writer.reads_images:
                image.forget()
            return replace(row, sample=sample), image

        drawn = True
        rows = in_order(fetched, _rows(sources), workers=_READERS, window=_WINDOW)
        for done, (row, image) in enumerate(rows, start=1):
            drawn = drawn and not row.sample.given
            stages.add(row.sample)
            writer.add(row.sample, image, {**row.line, "split": row.sample.split})
            on_progress(done, max(done, expected))
            if stop():
                raise Interrupted("writing was stopped; nothing was put in place")
        writer.finish_samples()
        licenses = {digest: stated for row in stages.rows for digest, stated in row.get("licenses", {}).items()}
        models = Models((), {}, licenses)
        writer.finish(models, lambda loading: _card(order, sources, writer.tally, loading, licenses), drawn=drawn)
        dataset = {
            "namespace": order.namespace,
            "name": name,
            "revision": revision,
            **writer.tally.row(),
            "formats": list(formats),
            "classIds": release.class_ids,
            "stages": stages.rows,
            "sources": [_source(each) for each in sources],
            **release.files.row(),
            "spec": normalized(spec),
            "generator": {"diffugen": version("diffugen")},
        }
        clear(target, target.list(_IMAGES))
        target.write(layout.dataset_card(""), indented(sealed(dataset)), JSON)
    return dataset


class _Stages:
    """The stages of the sources, for the report; of stages with one name, the first."""

    def __init__(self, sources: Sequence[PublishedDataset]) -> None:
        self.rows = [row for each in sources for row in each.dataset.get("stages", ())]
        """As each source's `dataset.json` has them."""
        self.models: dict[str, str] = {}
        """The URI of each stage's model; empty where it is not known."""
        self._drawings: dict[str, dict[str, Any]] = {}
        self._seen: set[str] = set()
        recipes: dict[str, StageRecipe] = {}
        for source in sources:
            rows = {str(row["name"]): row for row in source.dataset.get("stages", ())}
            known = {stage.name: stage for stage in in_graph_order(source.spec.drawing_stages)}
            counted = (*source.dataset["acceptedByStage"], *source.dataset["rejectedByStage"])
            for name in dict.fromkeys((*known, *rows, *counted)):
                if name in recipes:
                    continue
                row, stage = rows.get(name, {}), known.get(name)
                drawing = self._drawings[name] = {"model": str(row.get("modelDigest", "")), "settings": {}}
                origin = recipes.get(stage.source) if stage is not None and stage.source is not None else None
                replaces = stage is not None and (stage.task.inpaints or (origin is not None and origin.replaces))
                kind = stage.kind if stage is not None else ""
                recipes[name] = StageRecipe(name, kind, drawing, "", "", {}, origin, replaces)
                self.models[name] = str(row.get("model", ""))
        self.recipes = list(recipes.values())
        """A stage's drawing has its settings once `add` took a sample of it."""

    def add(self, sample: LabeledSample) -> None:
        """Take the settings of a stage from its first sample."""
        if sample.stage not in self._seen:
            self._seen.add(sample.stage)
            self._drawings[sample.stage].update(sample.drawing)


def joined_spec(sources: Sequence[PublishedDataset], formats: Sequence[str]) -> LabeledDatasetSpec:
    """Return the spec of the first source with the classes of all, by name, and with `formats`."""
    first = sources[0].spec
    classes = {each.name: each for source in reversed(sources) for each in source.spec.classes}
    names = dict.fromkeys(name for source in sources for name in source.class_ids)
    counts = {
        split: sum(int(source.dataset["splits"].get(split, 0)) for source in sources)
        for split in ("train", "val", "test")
    }
    total = sum(counts.values())
    options = {name: getattr(first.output, name) for name in ("coco", "yolo") if name in formats}
    data = first.model_dump(mode="json", by_alias=True, exclude_none=True)
    # the labels are joined by the classes' names; synonyms may be words of another dataset's class
    extra = {"synonyms", "detector_class"} if len(sources) > 1 else set()
    data["classes"] = [
        classes[name].model_dump(mode="json", by_alias=True, exclude_none=True, exclude=extra) for name in names
    ]
    data["output"] = {
        "formats": list(formats),
        "splits": {split: count / total for split, count in counts.items() if count} if total else {"train": 1},
        **{name: each.model_dump(mode="json", by_alias=True) for name, each in options.items() if each is not None},
    }
    try:
        return LabeledDatasetSpec.model_validate(data)
    except ValidationError as error:
        fault = first_of(faults_of(error, LabeledDatasetSpec, data, path="spec"))
        raise SpecError("CannotJoin", f"these datasets cannot be one: {fault}") from None


def _rows(sources: Sequence[PublishedDataset]) -> Iterator[_Row]:
    """Yield the lines of all manifests; samples that came before are left out."""
    seen: set[str] = set()
    splits: dict[str, str] = {}
    for number, published in enumerate(sources):
        parents: dict[str, str] = {}
        for line in published.rows():
            sample = published.sample_of(line)
            _check_counted(sample, published)
            if sample.sample.source is not None:
                parents[sample.sample.id] = sample.sample.source.id
            if sample.sample.id in seen:
                continue
            if len(sources) > 1:
                seen.add(sample.sample.id)
                root = sample.sample.id
                while root in parents:
                    root = parents[root]
                if number == 0:
                    splits.setdefault(root, sample.split)
                else:
                    sample = replace(sample, split=splits.setdefault(root, sample.split))
            yield _Row(published, line, sample)


def _check_counted(sample: LabeledSample, published: PublishedDataset) -> None:
    """Raise `Damaged` if a sample has a stage, a split or a class that its `dataset.json` does not have."""
    dataset, names = published.dataset, {each.class_name for each in sample.verdict.instances}
    names |= {each.instance.class_name for each in sample.label.marked}
    names |= {each.class_name for each in sample.label.ignored}
    stages = {**dataset["acceptedByStage"], **dataset["rejectedByStage"]}
    unknown = {
        "stage": {sample.stage} - stages.keys(),
        "split": {sample.split} - dataset["splits"].keys() if sample.verdict.accepted else set(),
        "class": names - dataset["classIds"].keys(),
    }
    for what, some in unknown.items():
        if some:
            raise Damaged(
                published.folder + MANIFEST,
                f"sample {sample.sample.id} has the {what} {min(some)!r}, which dataset.json does not have",
            )


def _source(published: PublishedDataset) -> dict[str, Any]:
    return {
        "uri": published.uri,
        "name": published.dataset.get("name", ""),
        "revision": published.dataset["revision"],
        "samples": published.dataset["samples"],
    }


def _card(
    order: WorkOrder,
    sources: Sequence[PublishedDataset],
    tally: Tally,
    loading: Sequence[str],
    licenses: Mapping[str, str],
) -> str:
    counts = tally.row()
    stated = ", ".join(sorted(set(licenses.values()))) or "none; see the cards of the datasets"
    lines = [
        f"# {order.name}",
        "",
        (
            f"{counts['samples']:,} images with {counts['instances']:,} labeled objects. Written again from published "
            "datasets; their own cards say how the images were made, what they are for, and where their limits are."
        ),
        "",
        "| dataset | revision | images |",
        "| --- | --- | --- |",
        *(
            f"| {each.dataset.get('name', '')} | `{each.dataset['revision']}` | {each.dataset['samples']:,} |"
            for each in sources
        ),
        "",
        "| class | id | objects |",
        "| --- | --- | --- |",
        *(f"| {name} | {number} | {tally.of_class(name):,} |" for name, number in tally.release.class_ids.items()),
        "",
        "## License",
        "",
        f"Licenses that the cards of the models state: {stated}.",
        "",
        "## Loading",
        "",
        *loading,
    ]
    return "\n".join(lines) + "\n"
