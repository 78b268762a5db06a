"""Calibration: what is chosen, stored and applied, and which input is refused."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from diffugen_api import layout
from diffugen_api.errors import SpecError
from diffugen_api.v1alpha1 import AttentionLabeling, ObjectClass
from diffugen_api.words import Vocabulary
from diffugen_generator.calibration.annotations import Annotations
from diffugen_generator.calibration.calibrate import Calibrating, calibrate
from diffugen_generator.calibration.result import Calibration
from diffugen_generator.diffusion.texts import TextStates
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.model import HeadWeights
from diffugen_generator.families.unet.attention_sums import Summed
from diffugen_generator.families.unet.components import load
from diffugen_generator.labeling.attention.word_maps import recentred
from diffugen_generator.models.resolve import resolve
from diffugen_generator.store.folder import FolderStore
from generator.training import scenes

CLASSES = [ObjectClass(name="ball"), ObjectClass(name="star", synonyms=["light"])]
FIELD = "spec.labeling.attention.calibration"
SIZE = (64, 64)


def png(array: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "png")
    return stream.getvalue()


def an_image(kind: str = "ball") -> tuple[bytes, bytes]:
    """Return a red object on snow, and its mask."""
    mask = np.zeros((64, 64), np.uint8)
    if kind == "ball":
        cv2.circle(mask, (30, 34), 15, 255, -1)
    else:
        mask[20:44, 24:50] = 255
    red, snow = (np.array(color, np.uint8) for color in (scenes.COLORS["red"], scenes.BACKGROUNDS["snow"]))
    image = np.where(mask[..., None] > 0, red, snow)
    return png(image), png(mask)


def annotated(**changes: Any) -> Annotations:
    ball, star = an_image(), an_image("star")
    files: dict[str, Any] = {
        "images": {"a.png": ball[0], "b.png": star[0]},
        "masks": {"ball/a.png": ball[1], "star/b.png": star[1]},
        "captions": {"a": "a red ball on snow"},
    }
    return Annotations(**{**files, **changes})


def test_images_have_the_masks_of_their_classes_and_a_caption() -> None:
    found = annotated().opened(CLASSES, SIZE, field=FIELD)

    assert [(each.name, each.caption, list(each.masks)) for each in found] == [
        ("a.png", "a red ball on snow", ["ball"]),
        ("b.png", "a photo of a star", ["star"]),
    ]
    assert found[0].masks["ball"].sum() == pytest.approx(np.pi * 15**2, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"masks": {"cube/a.png": an_image()[1]}}, r"masks: cube/a.png is in the folder 'cube', which is no class"),
        ({"masks": {"a.png": an_image()[1]}}, "in the folder '.', which is no class; put the masks of each class"),
        ({"masks": {"ball/c.png": an_image()[1]}}, "masks: ball/c.png has no image of its name"),
        ({"masks": {"ball/a.png": b"no"}}, "a.png is no whole image"),
        ({"captions": {"a": "a red thing"}}, "the caption of a.png, 'a red thing', has no word of its class 'ball'"),
    ],
)
def test_wrong_annotations_name_the_field_and_the_fix(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as error:
        annotated(**changes).opened(CLASSES, SIZE, field=FIELD)
    assert FIELD in str(error.value)


def test_the_address_covers_everything_that_decides() -> None:
    def address(changes: dict[str, Any] | None = None, model: str = "m", **attention: Any) -> str:
        settings = AttentionLabeling.model_validate(attention)
        return annotated(**(changes or {})).address(settings, CLASSES, model, {}, SIZE)

    other = an_image("star")
    found = [
        address(),
        address({"images": {"a.png": other[0], "b.png": other[0]}}),
        address({"masks": {"ball/a.png": other[1], "star/b.png": other[1]}}),
        address({"captions": {}}),
        address(model="n"),
        address(capture="inline"),
        address(refine=False),
        address(snap=False),
        address(background=["snow"]),
    ]
    assert len(set(found)) == len(found)
    assert address(threshold="auto", minPresence=0.1) == address()
    places = {"images": "/images", "masks": "/masks"}
    assert address(calibration=places) == address()
    assert address(calibration={**places, "backgroundToken": True}) not in found


def test_addresses_stay_as_they_were_before_there_were_tokens() -> None:
    files = Annotations({"a.png": b"image"}, {"ball/a.png": b"mask"}, {"a": "a ball"})

    assert files.address(AttentionLabeling(), [ObjectClass(name="ball")], "m", {}, SIZE) == (
        "6eaad3bbef29ca365e344eaf64f380c2"
    )


@pytest.mark.parametrize("attention", [{}, {"refine": False, "snap": False}, {"capture": "inline"}], ids=str)
def test_a_calibration_is_not_worse_on_its_images_and_is_the_same_again(attention: dict[str, Any]) -> None:
    model = load(resolve("builtin://shapes"), torch.device("cpu"))
    vocabulary = Vocabulary({each.name: each.words for each in CLASSES})
    images = annotated().opened(CLASSES, SIZE, field=FIELD)
    settings = AttentionLabeling.model_validate(attention)

    first, second = (calibrate(model, TextStates(model), vocabulary, images, settings) for _ in range(2))

    assert first == second
    assert first.after >= first.before > 0.3
    assert all(sum(weights) > 0 for weights in first.heads.values())


@pytest.mark.parametrize("classes", [1, 2])
def test_heads_are_chosen_where_they_are_clearly_better_and_two_classes_tell_them_apart(
    tiny_model: ModelFolder, monkeypatch: pytest.MonkeyPatch, classes: int
) -> None:
    """One head of three has the masks themselves as its maps."""
    model = load(tiny_model, torch.device("cpu"))
    vocabulary = Vocabulary({"ball": ["ball"], "star": ["star"]})
    ball, star = an_image()[1], png(np.pad(np.full((12, 12), 255, np.uint8), ((2, 50), (50, 2))))
    masks = {"ball/a.png": ball, "star/a.png": star} if classes == 2 else {"ball/a.png": ball}
    files = annotated(masks=masks, captions={"a": "a red ball and a star"})
    (image,) = files.opened(CLASSES, SIZE, field=FIELD)
    true = [torch.from_numpy(mask[2::4, 2::4].copy()).float() for mask in image.masks.values()]

    def by_head(self: Summed) -> Any:
        maps = torch.rand(1, 3, 2, 16, 16, generator=torch.Generator().manual_seed(3))
        for number, mask in enumerate(true):
            maps[0, 1, number] = mask
        yield "layer", maps

    monkeypatch.setattr(Summed, "by_head", by_head)
    monkeypatch.setattr(Calibrating, "_view", _without_mirror(Calibrating._view))
    settings = AttentionLabeling(refine=False, snap=False)

    found = calibrate(model, TextStates(model), vocabulary, [image], settings)

    if classes == 1:
        assert found.heads == {}
    else:
        assert max(found.heads["layer"]) == found.heads["layer"][1] > 0.5
        assert found.after > 0.6 > found.before


def _without_mirror(view: Any) -> Any:
    return lambda self, image, seed, mirror: view(self, image, seed, mirror=False)


def test_chosen_heads_and_the_last_passes_alone_are_summed() -> None:
    summed = Summed([(2, 2)], HeadWeights(chosen={"a": (0.25, 0.75)}))
    summed.add("a", 0, torch.tensor([[[[4.0]] * 4, [[8.0]] * 4]]))
    summed.add("b", 0, torch.tensor([[[[100.0]] * 4, [[100.0]] * 4]]))

    assert torch.equal(summed.maps(), torch.full((1, 1, 2, 2), 7.0))


def test_the_border_becomes_the_default_threshold() -> None:
    maps = torch.linspace(0, 1, 11)

    scaled = recentred(maps, 0.6)

    assert scaled[6] == pytest.approx(0.4)
    assert scaled[[0, -1]].tolist() == [0, 1]
    assert (scaled.diff() > 0).all()
    assert recentred(maps, None) is maps


def test_a_damaged_or_foreign_calibration_counts_as_missing(tmp_path: Path) -> None:
    store, address = FolderStore(tmp_path), "a" * 32
    chosen = Calibration({"layer": (0.25, 0.75)}, 0.3, 0.55, 0.6, 0.8)
    chosen.write(store, address)
    assert Calibration.read(store, address) == chosen
    with_token = replace(chosen, token=(0.5, -1.25, 3e-7))
    with_token.write(store, address)
    read = Calibration.read(store, address)
    assert read is not None
    assert read.token == pytest.approx(with_token.token)
    assert replace(read, token=()) == chosen
    assert "token" not in chosen.row(address)

    chosen.write(store, "b" * 32)
    store.write(layout.calibration(address), store.read(layout.calibration("b" * 32)))
    assert Calibration.read(store, address) is None
    store.write(layout.calibration(address), b"{}")
    assert Calibration.read(store, address) is None
    assert not store.exists(layout.calibration(address))
    assert layout.is_ours(layout.calibration(address))
