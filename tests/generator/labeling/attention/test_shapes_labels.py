"""Quality of labels: the built-in model's attention compared with the color oracle and with drawn scenes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from diffugen_api.v1alpha1 import AttentionLabeling
from diffugen_api.words import Vocabulary
from diffugen_generator.builtin_shapes import oracle
from diffugen_generator.diffusion.drawing import DrawingSettings, DrawRequest
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.unet.components import load
from diffugen_generator.labeling.attention.posthoc import PosthocAttention
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.labeling.labeler import LabelInput
from generator.training import scenes
from tests.generator.drawers import ImageDrawer
from tests.generator.made import objects_in

IMAGES = 24
SETTINGS = DrawingSettings(width=scenes.SIZE, height=scenes.SIZE, steps=15, guidance=3.0)
VOCABULARY = Vocabulary({kind: [kind] for kind in scenes.CLASSES})


@dataclass(frozen=True)
class Judged:
    """An image that shows the objects of its prompt, with the true mask of each class in it."""

    image: NDArray[np.uint8]
    prompt: str
    seed: int
    truth: dict[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Bench:
    """The model's drawer and its attention labeler for stored images."""

    drawer: ImageDrawer
    posthoc: PosthocAttention


@pytest.fixture(scope="module")
def bench(shapes_model: ModelFolder) -> Bench:
    components = load(shapes_model, torch.device("cpu"))
    texts = TextStates(components)
    refine = AttentionLabeling().refine
    return Bench(ImageDrawer(components, texts), PosthocAttention(components, texts, VOCABULARY, refine=refine))


@pytest.fixture(scope="module")
def judged(bench: Bench) -> list[Judged]:
    """Images that the model drew correctly, as the oracle judges."""
    drawn = scenes.draw(200, np.random.default_rng(5), two=0.5)
    right: list[Judged] = []
    for start in range(0, 200, 8):
        words = [scenes.words_of(drawn, index) for index in range(start, start + 8)]
        prompts = [scenes.full_caption(each) for each in words]
        orders = [DrawRequest(prompt, start + i) for i, prompt in enumerate(prompts)]
        images = bench.drawer.draw(orders, SETTINGS)
        for order, prompt, each, image in zip(orders, prompts, words, images, strict=True):
            if oracle.shows(image, [color for color, _ in each.objects]):
                masks = {found.color: found.mask for found in oracle.objects_of(image)}
                truth = {kind: masks[color] for color, kind in each.objects}
                right.append(Judged(image, prompt, order.seed, truth))
        if len(right) >= IMAGES:
            return right[:IMAGES]
    pytest.fail(f"of 200 images only {len(right)} show what was asked for")


@pytest.fixture(scope="module")
def evidence(bench: Bench, judged: list[Judged]) -> list[AttentionMaps]:
    return bench.posthoc.look([LabelInput(each.image, each.prompt, each.seed) for each in judged])


def quality(judged: list[Judged], evidence: list[AttentionMaps], settings: AttentionLabeling) -> float:
    """Mean intersection over union of all objects; a missing label counts as 0."""
    values = []
    for each, seen in zip(judged, evidence, strict=True):
        labels: dict[str, NDArray[np.bool_]] = {}
        for instance in objects_in(seen, each.image, settings):
            mask = instance.segmentation.mask()
            labels[instance.class_name] = labels.get(instance.class_name, np.zeros_like(mask)) | mask
        assert labels.keys() <= each.truth.keys(), "a label of a class that the prompt does not name"
        for kind, truth in each.truth.items():
            mask = labels.get(kind, np.zeros_like(truth))
            values.append((mask & truth).sum() / (mask | truth).sum())
    return float(np.mean(values))


def test_raw_attention_labels_reach_an_overlap_of_four_fifths(
    judged: list[Judged], evidence: list[AttentionMaps]
) -> None:
    assert quality(judged, evidence, AttentionLabeling(snap=False)) >= 0.80


def test_the_default_settings_do_better(judged: list[Judged], evidence: list[AttentionMaps]) -> None:
    assert quality(judged, evidence, AttentionLabeling()) >= 0.88


def test_an_image_gives_the_same_maps_in_any_batch(
    bench: Bench, judged: list[Judged], evidence: list[AttentionMaps]
) -> None:
    for each, seen in zip(judged[:3], evidence[:3], strict=True):
        (alone,) = bench.posthoc.look([LabelInput(each.image, each.prompt, each.seed)])
        assert (alone.classes, alone.background) == (seen.classes, seen.background)
        assert np.abs(alone.maps.astype(int) - seen.maps).max() <= 2


def test_a_class_that_the_prompt_does_not_name_has_no_map(bench: Bench, judged: list[Judged]) -> None:
    (seen,) = bench.posthoc.look([LabelInput(judged[0].image, "an image of nothing", 0)])

    assert seen.classes == ()
    assert objects_in(seen, judged[0].image, AttentionLabeling()) == []
