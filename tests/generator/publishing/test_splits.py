"""Splits: exact counts over whole families, no empty split, and stable if a dataset grows."""

from pathlib import Path

import pytest
import yaml

from diffugen_generator.publishing.publish import publish
from diffugen_generator.publishing.splits import Splits, counts_of, place_of
from tests.generator.made import a_finished_store, a_model, an_order, manifest_lines
from tests.generator.publishing.hand_made import hand_made

FRACTIONS = {"train": 0.8, "val": 0.1, "test": 0.1}


def roots(count: int) -> list[str]:
    return [f"{number:032x}" for number in range(count)]


def splits_of(names: list[str]) -> dict[str, str]:
    splits = Splits(FRACTIONS, (place_of(name) for name in names))
    return {name: splits.of(name) for name in names}


@pytest.mark.parametrize("families", [0, 1, 2, 3, 8, 10, 97, 1000, 20_001])
@pytest.mark.parametrize("fractions", [[1.0], [0.8, 0.2], [0.8, 0.1, 0.1], [0.98, 0.01, 0.01], [1 / 3, 1 / 3, 1 / 3]])
def test_counts_are_exact_to_one_family_and_none_is_empty(families: int, fractions: list[float]) -> None:
    counts = counts_of(fractions, families)

    assert sum(counts) == families
    assert min(counts) >= (families >= len(fractions))
    if min(fractions) * families >= 1:
        assert all(abs(count - share * families) < 1 for count, share in zip(counts, fractions, strict=True))


@pytest.mark.parametrize("families", [3, 8, 100, 1000])
def test_the_splits_of_families_agree_with_the_counts(families: int) -> None:
    found = list(splits_of(roots(families)).values())

    assert [found.count(name) for name in FRACTIONS] == counts_of(list(FRACTIONS.values()), families)


def test_a_family_counts_once() -> None:
    places = [place_of(name) for name in roots(10)]

    once, often = Splits(FRACTIONS, places), Splits(FRACTIONS, [*places, *places[:5], *places[:3]])

    assert all(once.of(name) == often.of(name) for name in roots(1000))


def test_few_families_move_when_others_are_added() -> None:
    before, after = splits_of(roots(10_000)), splits_of(roots(12_000))

    assert sum(after[name] != split for name, split in before.items()) <= 100


def test_a_small_dataset_has_all_splits(tmp_path: Path) -> None:
    order = an_order(
        a_model(tmp_path / "model"),
        prompts={"templates": ["a {object}"], "variables": {"object": ["ball", "star"]}, "samplesPerPrompt": 4},
        quality={"minInstances": 0},
        output={"splits": FRACTIONS},
    )
    store = a_finished_store(order, tmp_path / "store")

    publish(order, store)

    found = [line["split"] for line in manifest_lines(store, order.revision) if line["accepted"]]
    assert len(found) == 8
    assert [found.count(name) for name in FRACTIONS] == [6, 1, 1]


def test_a_split_without_images_is_not_listed(tmp_path: Path) -> None:
    order = an_order(
        a_model(tmp_path / "model"),
        prompts={"templates": ["a {object}"], "variables": {"object": ["ball"]}, "samplesPerPrompt": 2},
        quality={"minInstances": 0},
        output={"splits": FRACTIONS},
    )
    store = a_finished_store(order, tmp_path / "store")

    publish(order, store)

    folder = store.root / "revisions" / order.revision
    filled = {line["split"] for line in manifest_lines(store, order.revision) if line["accepted"]}
    assert len(filled) < 3
    files = {path.name for path in (folder / "coco" / "annotations").iterdir()}
    assert files == {f"instances_{split}.json" for split in filled}
    index = yaml.safe_load((folder / "yolo" / "data.yaml").read_text())
    assert all((folder / "yolo" / index[name]).is_dir() for name in ("train", "val", "test") if name in index)


def test_the_card_names_classes_that_a_split_lacks(tmp_path: Path) -> None:
    card = (hand_made(tmp_path, "coco").folder / "README.md").read_text()

    assert (
        "These classes have no object in some split: ball (test); signal_light (test); far-off satellite (val, test). "
    ) in card
