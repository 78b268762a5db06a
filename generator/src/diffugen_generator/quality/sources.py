"""Decides whether a stage draws from a source: the source must be accepted and must have the object to replace.

A source is accepted by its own labels and `spec.quality`, if its own source is accepted too. The plan, the worker and
publish each read this from the labels in the store. The decision is stored nowhere, so a change of `quality` applies to
all samples at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

from diffugen_api import layout
from diffugen_api.plan import Source
from diffugen_api.v1alpha1 import Quality
from diffugen_generator.failures import Incomplete, Missing
from diffugen_generator.quality.verdicts import Verdict, verdict_on
from diffugen_generator.samples import labels
from diffugen_generator.samples.shards import Origin
from diffugen_generator.store.protocol import Store

REJECTED = "SourceRejected"
"""Reason of a sample whose source is not in the dataset."""
UNLABELED = "SourceWithoutLabel"
"""Reason of a sample whose source has no object of the class that is to be replaced."""

_KEPT = 4096
"""Verdicts that are kept in memory: samples of one source come one after the other."""


class Sources:
    """The samples that a stage draws from. Safe to share between threads."""

    def __init__(self, store: Store, origins: Sequence[Origin], size: tuple[int, int], quality: Quality) -> None:
        """Judge the samples of `origins`, the nearest first, whose images are of `size`: height and width."""
        self._store = store
        self._origins = origins
        self._size = size
        self._quality = quality
        self._verdicts: OrderedDict[str, Verdict] = OrderedDict()
        self._lock = Lock()

    def refusal(self, source: Source) -> str:
        """Return why nothing is drawn from `source`, in CamelCase; empty where it is accepted.

        Raises `Incomplete` if its label, or the label of one of its own sources, is not in the store. Raises `Damaged`
        if such a label is damaged.
        """
        line = list(source.line())
        for number in reversed(range(len(line))):  # from the root: below a rejected source there are no labels to read
            why = self._fault(number, line[number])
            if why:
                return why if number == 0 else REJECTED
        return ""

    def label(self, source: Source) -> labels.Label:
        """Return all labels of `source`, accepted or not."""
        return self._read(0, source)

    def _fault(self, number: int, source: Source) -> str:
        verdict = self._verdict(number, source)
        if not verdict.accepted:
            return REJECTED
        if source.replaced and all(each.class_name != source.replaced for each in verdict.instances):
            return UNLABELED
        return ""

    def _verdict(self, number: int, source: Source) -> Verdict:
        with self._lock:
            if (known := self._verdicts.get(source.id)) is not None:
                self._verdicts.move_to_end(source.id)
                return known
        verdict = verdict_on(self._read(number, source), self._size, self._quality)
        with self._lock:
            self._verdicts[source.id] = verdict
            if len(self._verdicts) > _KEPT:
                self._verdicts.popitem(last=False)
        return verdict

    def _read(self, number: int, source: Source) -> labels.Label:
        origin = self._origins[number]
        key = layout.label(origin.stage, origin.label_id, source.id)
        try:
            return labels.read_label(self._store, key, source.id, size=self._size)
        except Missing:
            raise Incomplete(
                f"stage {origin.stage!r} is not finished: sample {source.id} has no labels, and others are drawn "
                "from it; plan again to have it done"
            ) from None
