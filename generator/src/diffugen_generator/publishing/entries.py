"""The dataset as a stream: every sample that the spec asks for, in the spec's order, with the verdict on it.

The order is the spec's and the labels are the store's, so the stream is the same however often it is begun and
whoever died in between. Labels are read ahead by a bounded number of threads; memory does not grow with the
dataset (but for the fingerprints of prompts in `samples_of`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any

from diffugen_api import layout
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import Sample, StageRecipe, samples_of, split_of, stage_recipe
from diffugen_api.v1alpha1 import LabeledDatasetSpec, in_graph_order
from diffugen_generator.bounded_pool import in_order
from diffugen_generator.failures import Incomplete, Missing
from diffugen_generator.planning.plan import digests_of, judges_in, words_in
from diffugen_generator.quality.duplicates import Duplicates, Hashed
from diffugen_generator.quality.sources import Sources
from diffugen_generator.quality.verdicts import Verdict, judge
from diffugen_generator.samples import labels
from diffugen_generator.samples.labels import Label, rounded
from diffugen_generator.samples.shards import origins_of
from diffugen_generator.store.protocol import Store

_READERS = 32
"""Labels being read at once."""
_WINDOW = 256
"""Labels read ahead of the writers."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One sample of the dataset, accepted or not."""

    sample: Sample
    stage: str
    split: str
    """train, val or test."""
    image: str
    """The picture's key in the store; empty where none was drawn, as its source would not do."""
    extension: str
    width: int
    height: int
    verdict: Verdict
    label: Label
    given: Mapping[str, Any] = field(default_factory=dict)
    """Of a picture that was there already: `file`, `sha256`, `caption`, and `converted` if it is kept as another."""

    @property
    def title(self) -> str:
        """What to show below the picture: what it was drawn from, or which file it was."""
        if not self.given:
            return self.sample.prompt
        return ": ".join(filter(None, (self.given["file"], self.given.get("caption", ""))))

    @property
    def file_name(self) -> str:
        """The picture's name in the formats' folders."""
        return f"{self.sample.id}.{self.extension}"

    def row(self) -> dict[str, Any]:
        """Return the entry as a line of the manifest."""
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
            "accepted": self.verdict.accepted,
            "reason": self.verdict.reason,
            "dropped": self.verdict.dropped,
            "instances": [instance.row() for instance in self.verdict.instances],
            **_source_row(self.sample),
            **({"given": dict(self.given)} if self.given else {}),
            **labels.ignore_rows(self.label.ignored),
            **({"duplicateOf": self.verdict.duplicate_of} if self.verdict.duplicate_of else {}),
            **({"marked": [each.row() for each in self.label.marked]} if self.label.marked else {}),
            **({"looks": dict(self.label.looks)} if self.label.looks else {}),
            **({"scores": rounded(self.label.scores)} if self.label.scores else {}),
        }


def _source_row(sample: Sample) -> dict[str, Any]:
    """Return what a line of the manifest says of the sample that a picture was drawn from."""
    if sample.source is None:
        return {}
    return {"source": sample.source.id, **({"replaced": sample.source.replaced} if sample.source.replaced else {})}


def recipes_of(spec: LabeledDatasetSpec, plan_summary: Mapping[str, Any]) -> list[StageRecipe]:
    """Return the recipe of every stage, with the models' digests as the plan found them."""
    digests, words, judges = digests_of(plan_summary), words_in(plan_summary), judges_in(plan_summary)
    recipes: dict[str, StageRecipe] = {}
    try:
        for stage in in_graph_order(spec.stages):
            name, source = stage.name, recipes[stage.source] if stage.source is not None else None
            recipes[name] = stage_recipe(spec, stage, digests[name], words[name], source=source, judges=judges[name])
    except KeyError as error:
        raise Incomplete(f"the plan knows no stage {error}; plan again") from None
    return [recipes[stage.name] for stage in spec.stages]


def entries_of(order: WorkOrder, recipes: list[StageRecipe], store: Store) -> Iterator[Entry]:
    """Yield the dataset's entries; raise `Incomplete` at the first sample without labels.

    Where duplicates are to be told, all labels are read once before.
    """
    spec = order.spec
    if spec.quality.duplicates is None:
        yield from _judged(spec, recipes, store)
        return
    hashed = (
        Hashed(entry.sample.id, str(entry.label.looks["hash"]))
        for entry in _judged(spec, recipes, store)
        if entry.verdict.accepted and entry.label.looks
    )
    duplicates = Duplicates(hashed, spec.quality.duplicates.max_distance)
    for entry in _judged(spec, recipes, store):
        if entry.verdict.accepted and (original := duplicates.original_of(entry.sample.id)):
            yield replace(entry, verdict=entry.verdict.as_duplicate(original))
        else:
            yield entry


def _judged(spec: LabeledDatasetSpec, recipes: list[StageRecipe], store: Store) -> Iterator[Entry]:
    """Yield the dataset's entries, each judged by itself."""
    lines: Iterator[Callable[[], Entry]] = chain.from_iterable(_lines(spec, recipe, store) for recipe in recipes)
    yield from in_order(lambda line: line(), lines, workers=_READERS, window=_WINDOW)


def _lines(spec: LabeledDatasetSpec, recipe: StageRecipe, store: Store) -> Iterator[Callable[[], Entry]]:
    sources = Sources(store, origins_of(recipe), (spec.image.height, spec.image.width), spec.quality)
    return (partial(_entry, spec, recipe, sources, sample, store) for sample in samples_of(spec, recipe))


def _entry(spec: LabeledDatasetSpec, recipe: StageRecipe, sources: Sources, sample: Sample, store: Store) -> Entry:
    refusal = sources.refusal(sample.source) if sample.source is not None else ""
    image = layout.image(recipe.stage, sample.id, recipe.extension)
    size = (spec.image.height, spec.image.width)
    label = Label(sample.id, ()) if refusal else _label(recipe, sample, store)
    return Entry(
        sample=sample,
        stage=recipe.stage,
        split=split_of(spec, sample.root),
        image="" if refusal else image,
        extension=recipe.extension,
        width=spec.image.width,
        height=spec.image.height,
        verdict=Verdict((), refusal) if refusal else judge(label, size, spec.quality),
        label=label,
    )


def _label(recipe: StageRecipe, sample: Sample, store: Store) -> Label:
    key = layout.label(recipe.stage, recipe.label_id, sample.id)
    try:
        label = labels.loads(store.read(key))
    except Missing:
        raise Incomplete(
            f"stage {recipe.stage!r} is not finished: sample {sample.id} has no labels; plan again to have it done"
        ) from None
    except ValueError as error:
        raise Incomplete(f"{key} is broken ({error}); delete it and plan again") from error
    return label
