"""Measures the presence check: whether it finds absent classes, and how many of them still get a label.

The own prompt of each image names the present classes. Two false prompts name absent ones: the first replaces an
object's word by the word of an absent class, the second names one object more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from benchmarks.labels.drawing import MODEL, Drawn
from numpy.typing import NDArray

from diffugen_api.v1alpha1 import AttentionLabeling
from diffugen_api.words import Vocabulary
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.families.unet.components import load
from diffugen_generator.labeling.attention.posthoc import PosthocAttention
from diffugen_generator.labeling.attention.presence import PresenceCheck
from diffugen_generator.labeling.decide.from_attention import decision_of
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.labeling.labeler import LabelInput
from diffugen_generator.models.resolve import resolve
from generator.training import scenes

LEAST = 0.05
"""`minPresence`, as the guide recommends it for the built-in model."""
BATCH = 16


@dataclass(frozen=True, slots=True)
class Absence:
    """The results of the presence check."""

    present: int
    """Number of present objects."""
    absent: int
    """Number of classes that a prompt names but the image does not show."""
    auroc: float
    """AUROC of the share by which the words reduce the error, present against absent classes."""
    auroc_swapped: float
    auroc_added: float
    unchecked: float
    """Share of the absent classes that get a label without the check."""
    checked: float
    """Share of the absent classes that get a label with the check."""
    kept: float
    """Share of the present objects that keep their label with the check."""


@dataclass(frozen=True, slots=True)
class _Asked:
    drawn: Drawn
    prompt: str
    kind: str
    """The class to check."""
    case: str


def measure(drawn: Sequence[Drawn]) -> Absence:
    """Check present and absent classes in `drawn`."""
    components = load(resolve(MODEL), torch.device("cpu"))
    texts = TextStates(components)
    vocabulary = Vocabulary({kind: [kind] for kind in scenes.CLASSES})
    posthoc = PosthocAttention(components, texts, vocabulary, refine=True)
    check = PresenceCheck(components, texts, vocabulary)
    asked = [each for number, one in enumerate(drawn) for each in _questions(one, number)]
    shares, labelled, still = [], [], []
    for start in range(0, len(asked), BATCH):
        some = asked[start : start + BATCH]
        seen = [LabelInput(each.drawn.image, each.prompt, each.drawn.sample.seed) for each in some]
        found = check.of(list(posthoc.latents(seen)), [each.prompt for each in some], [each.seed for each in seen])
        for each, evidence, share in zip(some, posthoc.look(seen), found, strict=True):
            shares.append(share[evidence.classes.index(each.kind)])
            labelled.append(_has(each, evidence, AttentionLabeling()))
            still.append(_has(each, replace(evidence, presence=share), AttentionLabeling(min_presence=LEAST)))
    values, got, left = np.array(shares), np.array(labelled), np.array(still)
    of = {case: np.array([each.case == case for each in asked]) for case in ("present", "swapped", "added")}
    absent = ~of["present"]
    return Absence(
        present=int(of["present"].sum()),
        absent=int(absent.sum()),
        auroc=auroc(values[of["present"]], values[absent]),
        auroc_swapped=auroc(values[of["present"]], values[of["swapped"]]),
        auroc_added=auroc(values[of["present"]], values[of["added"]]),
        unchecked=float(got[absent].mean()),
        checked=float(left[absent].mean()),
        kept=float(left[of["present"]].sum() / got[of["present"]].sum()),
    )


def auroc(present: NDArray[np.float64], absent: NDArray[np.float64]) -> float:
    """Return the probability that a present one has a greater value than an absent one; ties count half."""
    above = (present[:, None] > absent[None]).mean() + 0.5 * (present[:, None] == absent[None]).mean()
    return float(above)


def _has(asked: _Asked, evidence: AttentionMaps, settings: AttentionLabeling) -> bool:
    """Whether the checked class gets a label."""
    return any(one.class_name == asked.kind for one in decision_of(evidence, asked.drawn.image, settings).instances)


def _questions(drawn: Drawn, number: int) -> list[_Asked]:
    prompt, kinds = drawn.sample.prompt, list(drawn.truth)
    kind = kinds[number % len(kinds)]
    missing = [each for each in scenes.CLASSES if each not in kinds]
    other = missing[number % len(missing)]
    questions = [
        _Asked(drawn, prompt, kind, "present"),
        _Asked(drawn, prompt.replace(kind, other), other, "swapped"),
    ]
    if len(kinds) == 1:
        color = [each for each in scenes.COLORS if each not in drawn.colors.values()][number % 5]
        more = prompt.replace(" on ", f" and a {color} {other} on ")
        questions.append(_Asked(drawn, more, other, "added"))
    return questions
