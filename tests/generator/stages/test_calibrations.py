"""A calibration in a spec: planned, made by the first shard, stored, and part of the evidence's address."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from diffugen_api import layout
from diffugen_api.errors import SpecError
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import Expansion
from diffugen_generator.calibration.result import Calibration
from diffugen_generator.commands.display import PlainDisplay
from diffugen_generator.commands.run import run
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.planning.plan import plan, survey
from diffugen_generator.stages import calibrations
from diffugen_generator.store.opening import open_folder
from diffugen_generator.store.protocol import Store
from tests.generator.calibration.test_calibration import an_image
from tests.generator.commands.test_run import a_terminal
from tests.generator.made import an_order
from tests.generator.test_cli import diffugen


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    image, mask = an_image()
    for place, data in (("images/a.png", image), ("masks/ball/a.png", mask)):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).write_bytes(data)
    (tmp_path / "images/a.txt").write_text("a red ball on snow")
    return tmp_path


def an_order_with(folder: Path, **attention: Any) -> WorkOrder:
    places = {"images": str(folder / "images"), "masks": str(folder / "masks")}
    return an_order(
        "",
        classes=[{"name": "ball"}, {"name": "star"}],
        image={"width": 64, "height": 64},
        prompts={"templates": ["a red {object} on snow"], "variables": {"object": ["ball", "star"]}},
        stages=[{"name": "base", "txt2img": {"model": "builtin://shapes", "steps": 4, "guidanceScale": 3}}],
        labeling={"attention": {"calibration": places, **attention}},
        quality={"minInstances": 0},
    )


def a_store(folder: Path, order: WorkOrder) -> Store:
    return open_folder(folder / "store", order.namespace, order.name)


def address_in(store: Store, order: WorkOrder) -> str:
    (stage,) = json.loads(store.read(layout.plan_summary(order.revision)))["stages"]
    return str(stage["calibration"])


def run_here(folder: Path, order: WorkOrder) -> Any:
    return run(order, a_store(folder, order), PlainDisplay(a_terminal()), device="cpu", stop=Event())


@pytest.mark.parametrize("capture", ["posthoc", "inline"])
def test_a_run_calibrates_once_and_reads_the_maps_with_it(
    folder: Path, capture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = Calibration({}, 1.0, 0.7, 0.5, 0.6)
    order = an_order_with(folder, capture=capture)
    store = a_store(folder, order)
    made: list[int] = []

    def calibrate(*arguments: Any) -> Calibration:
        made.append(len(arguments[3]))
        return chosen

    monkeypatch.setattr(calibrations, "calibrate", calibrate)
    first = run_here(folder, order)
    again = run_here(folder, order)

    assert made == [1]
    assert [stage.counts.labelled for stage in first.stages] == [2]
    assert [stage.plan.reused for stage in again.stages] == [2]
    assert Calibration.read(store, address_in(store, order)) == chosen
    plain = an_order_with(folder, capture=capture, calibration=None)
    run_here(folder, plain)
    maps = [sorted(store.list(layout.EVIDENCE)), sorted(a_store(folder, plain).list(layout.EVIDENCE))]
    assert len(set(maps[0]) | set(maps[1])) == 4, "two images with two kinds of evidence"
    loaded = {key: AttentionMaps.loads(store.read(key)).maps.astype(float) for key in sorted({*maps[0], *maps[1]})}
    pairs = [(one, other) for one in loaded for other in loaded if one < other and one[-9:] == other[-9:]]
    assert len(pairs) == 2
    for one, other in pairs:  # the same maps on another scale: a border of 0.7 of the range became 0.4
        low, high = sorted((loaded[one], loaded[other]), key=lambda each: each.mean())
        below = high < 0.6 * 255
        # the second run encodes the stored images again, so its latents differ a little
        assert np.median(abs(low[below] - high[below] * 0.4 / 0.7)) <= 2
        assert abs(low[below] - high[below]).max() > 20


def test_other_annotations_are_other_evidence_of_the_same_images(folder: Path) -> None:
    order = an_order_with(folder)
    plan(order, a_store(folder, order))
    first = address_in(a_store(folder, order), order)

    (folder / "images/a.txt").write_text("a red ball on sand")
    plan(order, a_store(folder, order))

    assert address_in(a_store(folder, order), order) != first


def test_the_plan_refuses_annotations_that_do_not_fit(folder: Path) -> None:
    (folder / "masks/ball").rename(folder / "masks/cube")

    with pytest.raises(
        SpecError, match="spec.labeling.attention.calibration.masks: cube/a.png is in the folder 'cube'"
    ):
        survey(Expansion(an_order_with(folder).spec))


def test_the_command_shows_what_is_chosen(folder: Path) -> None:
    asked = ("calibrate", folder / "images", folder / "masks", "--model", "builtin://shapes", "--class", "ball")
    done = diffugen(*map(str, asked), "--device", "cpu", "--json")

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["images"] == 1
    assert found["after"] >= found["before"] > 0.3
    refused = diffugen(*map(str, asked), "--capture", "never")
    assert refused.returncode != 0
    assert "--capture" in refused.stderr
