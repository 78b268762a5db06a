"""The dataset as a stream: every sample that the spec asks for, in the spec's order, with its label and verdict.

The order comes from the spec and the labels from the store, so each try of publishing reads the same stream. Labels
are read ahead by a bounded number of threads, and once: where splits or duplicates need all of them first, they are
kept in a local file. Memory does not grow with the dataset, except for the fingerprints of prompts in `samples_of`, for
the places of families in their order (24 bytes a sample), and for the hashes of images where duplicates are rejected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

from diffugen_api import layout
from diffugen_api.plan import Expansion, Sample, StageRecipe, stage_recipe
from diffugen_api.prompt_weights import Piece
from diffugen_api.samples import Source, weights_row
from diffugen_api.v1alpha1 import LabeledDatasetSpec, in_graph_order
from diffugen_generator.bounded_pool import in_order
from diffugen_generator.failures import Damaged, Incomplete, Missing
from diffugen_generator.planning.summary import calibrations_in, digests_of, loras_in, side_models_in, words_in
from diffugen_generator.publishing.placing import Accepted, Placing
from diffugen_generator.publishing.spool import Spool
from diffugen_generator.quality.sources import Sources
from diffugen_generator.quality.verdicts import Verdict, verdict_on
from diffugen_generator.samples import labels
from diffugen_generator.samples.image_files import CONTENT_TYPES
from diffugen_generator.samples.labels import Instance, Label, MarkedInstance, Region, Rle, rounded
from diffugen_generator.samples.shards import origins_of
from diffugen_generator.store.protocol import Store

DAMAGED = "Damaged"
"""Reason of a sample with a damaged label; a dataset with such a sample is not published."""

_ID = re.compile(r"[0-9a-f]{8,64}")
_READERS = 32
"""Labels being read at once."""
_WINDOW = 256
"""Labels read ahead of the writers."""
_BATCH = 8
"""Labels that a thread reads one after another."""
_IN_MEMORY = 32 << 20
"""Bytes of samples that stay in memory between the two passes: a dataset of some 10,000 samples needs no file."""
_SAMPLE_BYTES = 2000
"""Bytes of a sample without its regions, as measured."""
_REGION_BYTES = 700
"""Bytes of an instance or region without its run lengths, as measured."""


def _names_in(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return the id and the image's key of a line of a manifest, checked: names of files are made of them."""
    sample_id, image = str(row["id"]), str(row["image"])
    if not _ID.fullmatch(sample_id) or (image and image.rpartition(".")[2] not in CONTENT_TYPES):
        raise ValueError(f"the id {sample_id!r} or the image {image!r} is not one")
    return sample_id, image


@dataclass(frozen=True, slots=True)
class LabeledSample:
    """One sample of the dataset with its label and its verdict, accepted or not."""

    sample: Sample
    stage: str
    split: str
    """train, val or test; empty as long as not all samples are judged (`judged_together`)."""
    image: str
    """The image's key in the store; empty where none was drawn because its source is rejected."""
    extension: str
    width: int
    height: int
    verdict: Verdict
    label: Label
    given: Mapping[str, Any] = field(default_factory=dict)
    """For an image of the user: `file`, `sha256`, `caption`, and `converted` if another format is stored."""
    drawing: Mapping[str, Any] = field(default_factory=dict)
    """What all images of the stage were drawn with: the model's digest, the settings, the negative prompt; empty for
    the user's own images."""
    damaged: Damaged | None = None
    """A damaged label, of the sample or of what it is drawn from; such a sample is not accepted."""

    @property
    def title(self) -> str:
        """The text below the image: its prompt, or the file name of the user's image."""
        if not self.given:
            return self.sample.prompt
        return ": ".join(filter(None, (self.given["file"], self.given.get("caption", ""))))

    @property
    def file_name(self) -> str:
        """The image's name in the formats' folders."""
        return f"{self.sample.id}.{self.extension}"

    def placed(self, verdict: Verdict, split: str) -> LabeledSample:
        """Return the sample with a verdict and a split: as `dataclasses.replace`, which takes four times as long."""
        return LabeledSample(
            self.sample,
            self.stage,
            split,
            self.image,
            self.extension,
            self.width,
            self.height,
            verdict,
            self.label,
            self.given,
            self.drawing,
            self.damaged,
        )

    def as_accepted(self) -> Accepted:
        """Return what an accepted sample contributes to the splits and to the search for duplicates."""
        statistics = self.label.statistics
        return Accepted(self.sample.id, self.sample.root, str(statistics["hash"]) if statistics else "")

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> LabeledSample:
        """Read what `row` wrote; raise `ValueError` if it is not valid."""
        try:
            sample_id, image = _names_in(row)
            instances = tuple(Instance.from_row(each) for each in row["instances"])
            marked = tuple(MarkedInstance.from_row(each) for each in row.get("marked", ()))
            ignored = tuple(Region.from_row(each) for each in row.get("ignore", ()))
            source = Source(row["source"], row.get("replaced", "")) if "source" in row else None
            return cls(
                sample=Sample(
                    sample_id,
                    str(row["prompt"]),
                    int(row["seed"]),
                    int(row["template"]),
                    dict(row["variables"]),
                    tuple(Piece(text, float(weight)) for text, weight in row.get("weights", ())),
                    source,
                    {name: tuple(words) for name, words in row.get("words", {}).items()},
                ),
                stage=str(row["stage"]),
                split=str(row["split"]),
                image=image,
                extension=image.rpartition(".")[2],
                width=int(row["width"]),
                height=int(row["height"]),
                verdict=Verdict(instances, str(row["reason"]), dict(row["dropped"]), row.get("duplicateOf", "")),
                label=Label(
                    sample_id, instances, marked, dict(row.get("looks", {})), dict(row.get("scores", {})), ignored
                ),
                given=dict(row.get("given", {})),
                drawing=dict(row.get("drawing", {})),
            )
        except KeyError as error:
            raise ValueError(f"not a line of a manifest: it has no {error}") from error
        except (AttributeError, OverflowError, TypeError, ValueError) as error:
            raise ValueError(f"not a line of a manifest: {error}") from error

    def row(self) -> dict[str, Any]:
        """Return the sample as a line of the manifest."""
        return {
            "id": self.sample.id,
            "stage": self.stage,
            "split": self.split,
            "image": self.image,
            "width": self.width,
            "height": self.height,
            "prompt": self.sample.prompt,
            "template": self.sample.template,
            "variables": dict(self.sample.variables),
            "seed": self.sample.seed,
            **weights_row(self.sample.pieces),
            **(
                {"words": {name: list(words) for name, words in self.sample.words.items()}} if self.sample.words else {}
            ),
            **({"drawing": dict(self.drawing)} if self.drawing else {}),
            "accepted": self.verdict.accepted,
            "reason": self.verdict.reason,
            "dropped": self.verdict.dropped,
            "instances": [instance.row() for instance in self.verdict.instances],
            **_source_row(self.sample),
            **({"given": dict(self.given)} if self.given else {}),
            **labels.ignore_rows(self.label.ignored),
            **({"duplicateOf": self.verdict.duplicate_of} if self.verdict.duplicate_of else {}),
            **({"marked": [each.row() for each in self.label.marked]} if self.label.marked else {}),
            **({"looks": dict(self.label.statistics)} if self.label.statistics else {}),
            **({"scores": rounded(self.label.scores)} if self.label.scores else {}),
        }


def _source_row(sample: Sample) -> dict[str, Any]:
    """Return the part of a manifest line about the sample that an image was drawn from."""
    if sample.source is None:
        return {}
    return {"source": sample.source.id, **({"replaced": sample.source.replaced} if sample.source.replaced else {})}


def recipes_of(spec: LabeledDatasetSpec, plan_summary: Mapping[str, Any]) -> list[StageRecipe]:
    """Return the recipe of every stage, with the models' digests as the plan found them."""
    digests, words, beside = digests_of(plan_summary), words_in(plan_summary), side_models_in(plan_summary)
    loras = loras_in(plan_summary)
    calibrations = calibrations_in(plan_summary)
    recipes: dict[str, StageRecipe] = {}
    try:
        for stage in in_graph_order(spec.drawing_stages):
            name, source = stage.name, recipes[stage.source] if stage.source is not None else None
            recipes[name] = stage_recipe(
                spec,
                stage,
                digests[name],
                words[name],
                loras=loras[name],
                source=source,
                side_models=beside[name],
                calibration=calibrations[name],
            )
    except KeyError as error:
        raise Incomplete(f"the plan knows no stage {error}; plan again") from None
    return [recipes[stage.name] for stage in spec.drawing_stages]


def labeled_samples(expansion: Expansion, recipes: list[StageRecipe], store: Store) -> Iterator[LabeledSample]:
    """Yield the dataset's samples; raise `Incomplete` at the first one without labels."""
    return judged_together(lambda: _judged(expansion, recipes, store), expansion.spec)


def judged_together(judged: Callable[[], Iterator[LabeledSample]], spec: LabeledDatasetSpec) -> Iterator[LabeledSample]:
    """Yield the samples of `judged` after the steps that need all of them: reject near duplicates, set splits.

    `judged` starts the pass over the samples. Its results are kept in a local file while hashes of images are read and
    families are counted. If there is only one split and duplicates are accepted, they are yielded at once.
    """
    asked = _asked(spec)
    if spec.quality.duplicates is None and len(asked) == 1:
        [split] = asked
        yield from (each.placed(each.verdict, split) for each in judged())
        return
    parts = (LabeledSample, Sample, Source, Verdict, Label, Instance, MarkedInstance, Region, Rle)
    with Spool(*parts, size_of=_size_of, in_memory=_IN_MEMORY) as spool:
        yield from _with_splits(judged(), spec, spool)


def _size_of(sample: LabeledSample) -> int:
    """Return how many bytes a sample takes in memory, roughly."""
    label = sample.label
    masks = [each.segmentation for each in label.instances]
    masks += [each.instance.segmentation for each in label.marked]
    masks += [each.segmentation for each in label.ignored]
    return _SAMPLE_BYTES + sum(_REGION_BYTES + len(mask.counts) for mask in masks)


def _with_splits(
    judged: Iterator[LabeledSample], spec: LabeledDatasetSpec, spool: Spool[LabeledSample]
) -> Iterator[LabeledSample]:
    damaged: list[LabeledSample] = []

    def accepted() -> Iterator[Accepted]:
        for each in judged:
            spool.add(each)
            if each.damaged is not None:
                damaged.append(each)
            if each.verdict.accepted:
                yield each.as_accepted()

    placing = placing_of(spec, accepted())
    if damaged:  # without their labels the splits are not known, so nothing else is written
        yield from damaged
        return
    for each in spool:
        yield placed(each, placing)


def placing_of(spec: LabeledDatasetSpec, accepted: Iterable[Accepted]) -> Placing:
    """Return what all accepted samples of a dataset decide together."""
    duplicates = spec.quality.duplicates
    return Placing(_asked(spec), duplicates.max_distance if duplicates is not None else None, accepted)


def _asked(spec: LabeledDatasetSpec) -> dict[str, float]:
    return {name: fraction for name, fraction in spec.output.splits if fraction > 0}


def placed(sample: LabeledSample, placing: Placing) -> LabeledSample:
    """Return a sample, judged by its own label, with its split and with its final verdict."""
    original = placing.original_of(sample.sample.id) if sample.verdict.accepted else ""
    verdict = sample.verdict.as_duplicate(original) if original else sample.verdict
    return sample.placed(verdict, placing.split_of(sample.sample.root))


def _judged(expansion: Expansion, recipes: list[StageRecipe], store: Store) -> Iterator[LabeledSample]:
    """Yield the dataset's samples, each judged by its own label."""
    return read_ahead(read for _, read in reads_of(expansion, recipes, store))


Read = Callable[[], LabeledSample]
"""Reads a sample's label, and judges the sample by it."""


def read_ahead(reads: Iterable[Read]) -> Iterator[LabeledSample]:
    """Yield the samples of `reads`, in order; a bounded number of threads reads ahead."""
    return in_order(lambda read: read(), reads, workers=_READERS, window=_WINDOW, batch=_BATCH)


def reads_of(expansion: Expansion, recipes: list[StageRecipe], store: Store) -> Iterator[tuple[Sample, Read]]:
    """Yield each sample of the dataset, in the spec's order, with what reads its label."""
    return chain.from_iterable(_reads(expansion, each, store) for each in recipes)


def _reads(expansion: Expansion, recipe: StageRecipe, store: Store) -> Iterator[tuple[Sample, Read]]:
    spec = expansion.spec
    sources = Sources(store, origins_of(recipe), (spec.image.height, spec.image.width), spec.quality)
    classes = frozenset(each.name for each in spec.classes)
    return (
        (sample, partial(_labeled, spec, classes, recipe, sources, sample, store))
        for sample in expansion.samples_of(recipe)
    )


def _labeled(  # noqa: PLR0917 - the first four are the same for all samples of a stage
    spec: LabeledDatasetSpec,
    classes: frozenset[str],
    recipe: StageRecipe,
    sources: Sources,
    sample: Sample,
    store: Store,
) -> LabeledSample:
    image = layout.image(recipe.stage, sample.id, recipe.extension)
    size = (spec.image.height, spec.image.width)
    refusal, damaged, label = "", None, Label(sample.id, ())
    try:
        refusal = sources.refusal(sample.source) if sample.source is not None else ""
        if not refusal:
            label = _label(recipe, sample, store, size, classes)
    except Damaged as fault:
        refusal, damaged = DAMAGED, fault
    return LabeledSample(
        sample=sample,
        stage=recipe.stage,
        split="",
        image="" if refusal else image,
        extension=recipe.extension,
        width=spec.image.width,
        height=spec.image.height,
        verdict=Verdict((), refusal) if refusal else verdict_on(label, size, spec.quality),
        label=label,
        drawing=recipe.drawing,
        damaged=damaged,
    )


def _label(recipe: StageRecipe, sample: Sample, store: Store, size: tuple[int, int], classes: Collection[str]) -> Label:
    key = layout.label(recipe.stage, recipe.label_id, sample.id)
    try:
        return labels.read_label(store, key, sample.id, size=size, classes=classes)
    except Missing:
        raise Incomplete(
            f"stage {recipe.stage!r} is not finished: sample {sample.id} has no labels; plan again to have it done"
        ) from None
