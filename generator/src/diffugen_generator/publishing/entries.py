"""The dataset as a stream: every sample that the spec asks for, in the spec's order, with the verdict on it.

The order is the spec's and the labels are the store's, so the stream is the same however often it is begun and
whoever died in between. Labels are read ahead by a bounded number of threads; memory does not grow with the
dataset (but for the fingerprints of prompts in `samples_of`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

from diffugen_api import layout
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import Sample, StageRecipe, samples_of, split_of, stage_recipe
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_generator import records
from diffugen_generator.failures import Incomplete, Missing
from diffugen_generator.flow import in_order
from diffugen_generator.planning import digests_of
from diffugen_generator.quality import Verdict, judge
from diffugen_generator.records import Region
from diffugen_generator.store import Store

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
    """The picture's key in the store."""
    extension: str
    width: int
    height: int
    verdict: Verdict
    ignored: tuple[Region, ...] = ()
    """Pixels that are neither an object's nor background."""

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
            **records.ignore_rows(self.ignored),
        }


def recipes_of(spec: LabeledDatasetSpec, plan_summary: Mapping[str, Any]) -> list[StageRecipe]:
    """Return the recipe of every stage, with the models' digests as the plan found them."""
    digests = digests_of(plan_summary)
    try:
        return [stage_recipe(spec, stage, digests[stage.name]) for stage in spec.stages]
    except KeyError as error:
        raise Incomplete(f"the plan knows no stage {error}; plan again") from None


def entries_of(order: WorkOrder, recipes: list[StageRecipe], store: Store) -> Iterator[Entry]:
    """Yield the dataset's entries; raise `Incomplete` at the first sample without labels."""
    spec = order.spec
    lines: Iterator[Callable[[], Entry]] = chain.from_iterable(
        (partial(_entry, spec, recipe, sample, store) for sample in samples_of(spec, recipe)) for recipe in recipes
    )
    return in_order(lambda line: line(), lines, workers=_READERS, window=_WINDOW)


def _entry(spec: LabeledDatasetSpec, recipe: StageRecipe, sample: Sample, store: Store) -> Entry:
    key = layout.label(recipe.stage, recipe.label_id, sample.id)
    try:
        label = records.loads(store.read(key))
    except Missing:
        raise Incomplete(
            f"stage {recipe.stage!r} is not finished: sample {sample.id} has no labels; plan again to have it done"
        ) from None
    except ValueError as error:
        raise Incomplete(f"{key} is broken ({error}); delete it and plan again") from error
    width, height = spec.image.width, spec.image.height
    return Entry(
        sample=sample,
        stage=recipe.stage,
        split=split_of(spec, sample.id),
        image=layout.image(recipe.stage, sample.id, recipe.extension),
        extension=recipe.extension,
        width=width,
        height=height,
        verdict=judge(label.instances, width * height, spec.quality),
        ignored=label.ignored,
    )
