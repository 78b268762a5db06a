"""Objects from attention: scores, small and non-square images, words at their own tokens, mixed batches."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from numpy.typing import NDArray

from diffugen_api.v1alpha1 import AttentionLabeling
from diffugen_api.words import Vocabulary
from diffugen_generator.diffusion.drawing import Drawer, DrawingSettings, DrawRequest
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.unet.components import load
from diffugen_generator.labeling.attention.inline import InlineAttention
from diffugen_generator.labeling.attention.posthoc import PosthocAttention
from diffugen_generator.labeling.attention.presence import PresenceCheck
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.labeling.labeler import LabelInput
from generator.training import scenes
from tests.generator.made import objects_in

RAW = AttentionLabeling(snap=False)


def disc(x: float, y: float, radius: float, *, height: int, width: int) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:height, :width]
    return np.asarray(np.hypot(columns - x, rows - y) <= radius)


def evidence_of(mask: NDArray[np.bool_], *, cells: tuple[int, int], name: str = "ball") -> AttentionMaps:
    """Evidence that is a coarse version of `mask`; `cells` are height and width."""
    coarse = cv2.resize(mask.astype(np.float32), cells[::-1], interpolation=cv2.INTER_AREA)
    return AttentionMaps((name,), (), np.round(255 * coarse / coarse.max()).astype(np.uint8)[None])


def overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


def posthoc_of(model: ModelFolder, vocabulary: Vocabulary) -> PosthocAttention:
    components = load(model, torch.device("cpu"))
    return PosthocAttention(components, TextStates(components), vocabulary, refine=True)


def noise(count: int, *, height: int = 64, width: int = 64) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(3)
    return [rng.integers(0, 256, (height, width, 3), np.uint8) for _ in range(count)]


# fault 4 of DiffuGen's catalog
@pytest.mark.parametrize("maps", [np.full((1, 16, 16), 90), np.zeros((1, 16, 16)), np.eye(16)[None] * 0 + 255])
def test_an_image_without_any_contour_gives_no_label_and_no_error(maps: NDArray[np.float64]) -> None:
    evidence = AttentionMaps(("ball",), (), maps.astype(np.uint8))

    assert objects_in(evidence, noise(1)[0], RAW) == []


# fault 4 of DiffuGen's catalog
def test_a_contour_without_an_inside_gives_a_mask_and_a_box_and_no_error() -> None:
    maps = np.zeros((1, 64, 64), np.uint8)
    maps[0, 20, 30:38] = 255

    (found,) = objects_in(AttentionMaps(("ball",), (), maps), np.zeros((64, 64, 3), np.uint8), RAW)

    assert (found.area, found.bbox) == (8, (30.0, 20.0, 8.0, 1.0))


# fault 5 of DiffuGen's catalog
def test_the_requested_threshold_is_used() -> None:
    rows, columns = np.mgrid[:64, :64]
    cone = np.clip(255 - 8 * np.hypot(columns - 32, rows - 32), 0, 255).astype(np.uint8)[None]

    areas = []
    for threshold in (0.1, 0.4, 0.7, 0.9):
        (found,) = objects_in(
            AttentionMaps(("ball",), (), cone), noise(1)[0], AttentionLabeling(threshold=threshold, snap=False)
        )
        areas.append(found.area)

    radii = [(1 - threshold) * 255 / 8 for threshold in (0.1, 0.4, 0.7, 0.9)]
    assert areas == pytest.approx([np.pi * radius**2 for radius in radii], rel=0.1)


# fault 5 of DiffuGen's catalog
def test_an_absent_object_can_be_distinguished_from_a_present_one(shapes_model: ModelFolder) -> None:
    components = load(shapes_model, torch.device("cpu"))
    vocabulary = Vocabulary({kind: [kind] for kind in scenes.CLASSES})
    check = PresenceCheck(components, TextStates(components), vocabulary)
    posthoc = posthoc_of(shapes_model, vocabulary)
    drawn = scenes.draw(8, np.random.default_rng(5), two=0.0)
    labels = []
    for index in range(8):
        words = scenes.words_of(drawn, index)
        ((_, kind),) = words.objects
        other = next(each for each in scenes.CLASSES if each != kind)
        for prompt in (scenes.full_caption(words), scenes.full_caption(words).replace(kind, other)):
            seen = LabelInput(drawn.images[index], prompt, index)
            (evidence,) = posthoc.look([seen])
            (shares,) = check.of(list(components.encode_images([seen.image])), [prompt], [index])
            asked = AttentionMaps(evidence.classes, evidence.background, evidence.maps, shares)
            labels.append(bool(objects_in(asked, seen.image, AttentionLabeling(min_presence=0.05))))

    assert sum(labels[::2]) >= 7, "those that are there keep their label"
    assert sum(labels[1::2]) <= 1, "those that are not there get none"


# fault 6 of DiffuGen's catalog
@pytest.mark.parametrize("size", [64, 256, 512])
def test_a_small_object_survives_and_a_large_one_keeps_its_area_at_every_size(size: int) -> None:
    scale = size / 512
    for radius in (10 * scale, 60 * scale):
        ball = disc(size / 2, size / 2, max(2.0, radius), height=size, width=size)

        (found,) = objects_in(evidence_of(ball, cells=(size, size)), np.zeros((size, size, 3), np.uint8), RAW)

        assert found.area == pytest.approx(ball.sum(), rel=0.05)


# fault 7 of DiffuGen's catalog
def test_scores_separate_a_clear_object_from_a_vague_one() -> None:
    ball = disc(32, 32, 14, height=64, width=64)
    clear = np.where(ball, 255, 0).astype(np.uint8)[None]
    rows, columns = np.mgrid[:64, :64]
    vague = np.clip(255 - 5 * np.hypot(columns - 32, rows - 32), 0, 255).astype(np.uint8)[None]

    scores = [objects_in(AttentionMaps(("ball",), (), maps), noise(1)[0], RAW)[0].score for maps in (clear, vague)]

    assert scores[0] > 0.95
    assert 0.1 < scores[1] < 0.8


# fault 7 of DiffuGen's catalog
def test_every_object_has_the_class_of_its_own_word(tiny_model: ModelFolder) -> None:
    vocabulary = Vocabulary({"star": ["star"], "ball": ["ball"]})
    posthoc = posthoc_of(tiny_model, vocabulary)
    (image,) = noise(1)

    found = [
        posthoc.look([LabelInput(image, prompt, 5)])[0].classes for prompt in ("a ball", "a star", "a ball and a star")
    ]

    assert found == [("ball",), ("star",), ("star", "ball")]


# fault 9 of DiffuGen's catalog
@pytest.mark.parametrize(("height", "width"), [(64, 128), (128, 64), (96, 160)])
def test_masks_of_nonsquare_images_are_at_the_objects(height: int, width: int) -> None:
    ball = disc(width * 0.7, height * 0.3, min(height, width) * 0.2, height=height, width=width)

    (found,) = objects_in(
        evidence_of(ball, cells=(height // 4, width // 4)), np.zeros((height, width, 3), np.uint8), RAW
    )

    assert found.segmentation.size == (height, width)
    assert overlap(found.segmentation.mask(), ball) > 0.8


# fault 9 of DiffuGen's catalog
@pytest.mark.parametrize(("height", "width"), [(64, 96), (104, 64)])
def test_a_nonsquare_image_gets_maps_of_its_own_shape(tiny_model: ModelFolder, height: int, width: int) -> None:
    posthoc = posthoc_of(tiny_model, Vocabulary({"ball": ["ball"]}))
    (image,) = noise(1, height=height, width=width)

    (evidence,) = posthoc.look([LabelInput(image, "a ball", 5)])

    assert evidence.maps.shape == (1, height // 4, width // 4)


# fault 11 of DiffuGen's catalog
def test_many_words_of_a_prompt_are_labeled_and_no_word_is_required(tiny_model: ModelFolder) -> None:
    vocabulary = Vocabulary({"ball": ["ball"], "star": ["star"], "traffic light": ["traffic light"]})
    posthoc = posthoc_of(tiny_model, vocabulary)
    prompts = ["a ball, a star and a traffic light", "and on", "a red light and " * 6 + "a ball"]

    found = posthoc.look([LabelInput(image, prompt, 7) for image, prompt in zip(noise(3), prompts, strict=True)])

    assert [each.classes for each in found] == [("ball", "star", "traffic light"), (), ("ball",)]
    assert all(m.max() == 255 for each in found for m in each.maps), "the last one behind the encoder's first window"


# fault 11 of DiffuGen's catalog
def test_a_word_is_read_at_its_own_tokens_and_not_at_those_of_the_whole_prompt(tiny_model: ModelFolder) -> None:
    posthoc = posthoc_of(tiny_model, Vocabulary({"ball": ["ball"], "star": ["star"]}))
    (image,) = noise(1)

    (seen,) = posthoc.look([LabelInput(image, "a ball and a star", 5)])

    assert np.abs(seen.maps[0].astype(int) - seen.maps[1]).max() > 50


# fault 12 of DiffuGen's catalog
def test_images_of_different_prompts_are_read_in_one_batch(tiny_model: ModelFolder) -> None:
    components = load(tiny_model, torch.device("cpu"))
    inline = InlineAttention(components, Vocabulary({"ball": ["ball"], "star": ["star"]}), refine=False)
    settings = DrawingSettings(width=64, height=64, steps=2, guidance=3.0)
    passes: list[int] = []
    components.unet.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))

    Drawer(components, TextStates(components)).sample(
        [DrawRequest("a ball", 1), DrawRequest("a red star", 2), DrawRequest("a ball and a star", 3)],
        settings,
        observer=inline,
    )

    assert passes == [6, 6], "two steps, three prompts with their negatives at once"
    assert [inline.evidence[place].classes for place in range(3)] == [("ball",), ("star",), ("ball", "star")]


# fault 13 of DiffuGen's catalog
def test_posthoc_and_inline_attention_leave_the_pipeline_unchanged(tiny_model: ModelFolder) -> None:
    components = load(tiny_model, torch.device("cpu"))
    components.unet.set_attn_processor(AttnProcessor())  # a processor that a user chose
    before = dict(components.unet.attn_processors)
    vocabulary = Vocabulary({"ball": ["ball"]})
    texts = TextStates(components)
    posthoc = PosthocAttention(components, texts, vocabulary, refine=True)
    inline = InlineAttention(components, vocabulary, refine=True)
    settings = DrawingSettings(width=64, height=64, steps=2, guidance=3.0)
    plain = Drawer(components, texts).sample([DrawRequest("a ball", 1)], settings)

    posthoc.look([LabelInput(noise(1)[0], "a ball", 5)])
    (watched,) = Drawer(components, texts).sample([DrawRequest("a ball", 1)], settings, observer=inline)

    assert all(components.unet.attn_processors[name] is processor for name, processor in before.items())
    assert torch.equal(watched, plain[0])
    assert torch.equal(Drawer(components, texts).sample([DrawRequest("a ball", 1)], settings)[0], plain[0])
