"""The presence check: a class's words must improve the prediction, or the class gets no label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from diffugen_api import layout
from diffugen_api.v1alpha1 import AttentionLabeling
from diffugen_api.words import Vocabulary
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.unet.components import load
from diffugen_generator.labeling.attention.presence import PresenceCheck
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.samples import labels
from diffugen_generator.samples.shards import Need
from diffugen_generator.stages.run_shard import run_shard
from diffugen_generator.store.folder import FolderStore
from generator.training import scenes
from tests.generator.made import objects_in
from tests.generator.stages.test_run_shard import shard_of, spec_of

VOCABULARY = Vocabulary({kind: [kind] for kind in scenes.CLASSES})


def test_words_reduce_the_error_if_their_object_is_in_the_image_and_not_otherwise(shapes_model: ModelFolder) -> None:
    components = load(shapes_model, torch.device("cpu"))
    check = PresenceCheck(components, TextStates(components), VOCABULARY)
    drawn = scenes.draw(12, np.random.default_rng(8), two=0.0)
    words = [scenes.words_of(drawn, index) for index in range(12)]
    latents = list(components.encode_images(list(drawn.images)))
    right = [scenes.full_caption(each) for each in words]
    wrong = [
        caption.replace(each.objects[0][1], next(k for k in scenes.CLASSES if k != each.objects[0][1]))
        for caption, each in zip(right, words, strict=True)
    ]

    present = [shares[0] for shares in check.of(latents, right, range(12))]
    absent = [shares[0] for shares in check.of(latents, wrong, range(12))]

    assert np.mean([share >= 0.05 for share in present]) >= 0.9
    assert np.mean([share >= 0.05 for share in absent]) <= 0.1


def test_shares_do_not_depend_on_the_batch(tiny_model: ModelFolder) -> None:
    components = load(tiny_model, torch.device("cpu"))
    check = PresenceCheck(components, TextStates(components), Vocabulary({"ball": ["ball"], "star": ["star"]}))
    prompts = ["a red ball", "a ball and a star", "and on", "a red light and " * 5 + "a ball"]
    latents = list(torch.randn(4, 4, 8, 12, generator=torch.Generator().manual_seed(1)))

    together = check.of(latents, prompts, [3, 4, 5, 6])

    assert [len(shares) for shares in together] == [1, 2, 0, 1]
    for place, shares in enumerate(together):
        (alone,) = check.of(latents[place : place + 1], prompts[place : place + 1], [3 + place])
        assert alone == pytest.approx(shares, abs=1e-5)


def test_the_text_without_a_class_has_none_of_its_words(tiny_model: ModelFolder) -> None:
    components = load(tiny_model, torch.device("cpu"))
    vocabulary = Vocabulary({"star": ["star", "asterisk"], "ball": ["ball"]}, ["snow"])
    check = PresenceCheck(components, TextStates(components), vocabulary)

    assert check.without("a ball, a star and an Asterisk on snow") == [
        "a ball, a and an on snow",
        "a , a star and an Asterisk on snow",
    ]


def test_a_class_that_is_not_present_enough_gets_no_label_and_does_not_compete() -> None:
    maps = np.zeros((2, 16, 16), np.uint8)
    maps[:, 4:12, 4:12] = 220
    maps[1, 4:12, 4:12] = 255  # the absent class has the higher map
    maps[0, 4, 4] = 255
    evidence = AttentionMaps(("ball", "star"), (), maps, (0.2, -0.1))
    image = np.zeros((64, 64, 3), np.uint8)

    unchecked = objects_in(evidence, image, AttentionLabeling(snap=False))
    checked = objects_in(evidence, image, AttentionLabeling(snap=False, min_presence=0.05))

    assert "star" in [each.class_name for each in unchecked]
    assert [each.class_name for each in checked] == ["ball"]
    assert AttentionMaps.loads(evidence.dumps()).presence == pytest.approx((0.2, -0.1))


@pytest.mark.parametrize("capture", ["posthoc", "inline"])
def test_presence_is_evidence_and_its_threshold_is_applied_when_deciding(
    tiny_model: ModelFolder, tmp_path: Path, capture: str
) -> None:
    store = FolderStore(tmp_path / "store")
    asked = {"capture": capture, "minPresence": 0.0}
    header, rows = shard_of(spec_of(tiny_model, labeling={"attention": asked}), tiny_model)
    run_shard(header, rows, store, batch_size=4, device="cpu")
    keys = [layout.evidence("base", header.evidence_id, row.sample.id) for row in rows]
    assert all(len(AttentionMaps.loads(store.read(key)).presence) == 1 for key in keys)

    strict, _ = shard_of(spec_of(tiny_model, labeling={"attention": asked | {"minPresence": 1.0}}), tiny_model)
    assert (strict.evidence_id, strict.label_id != header.label_id) == (header.evidence_id, True)
    counts = run_shard(
        strict,
        shard_of(spec_of(tiny_model, labeling={"attention": asked | {"minPresence": 1.0}}), tiny_model, Need.LABEL)[1],
        store,
    )

    assert (counts.seen, counts.labelled) == (0, 6)
    for row in rows:
        label = labels.loads(store.read(layout.label("base", strict.label_id, row.sample.id)))
        assert label.instances == ()
