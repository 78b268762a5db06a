"""Which keys belong to a dataset: every key that the layout gives, and no key of another dataset."""

from __future__ import annotations

import inspect

import pytest

from diffugen_api import layout

VALUES = {
    "stage": "my-stage",
    "sample_id": "0123456789abcdef0123456789abcdef",
    "extension": "webp",
    "evidence_id": "0123456789abcdef0123456789abcdef",
    "label_id": "fedcba9876543210fedcba9876543210",
    "revision": "0123456789",
    "index": 17,
    "address": "0123456789abcdef0123456789abcdef",
    "name": "card.json",
    "revision_folder_key": "revisions/0123456789-abcdef01/",
}
NOT_KEYS = {"dataset_root", "is_ours"}


def keys() -> list[str]:
    """Every key that a function of the layout gives; for a folder, one key in it."""
    found = [layout.CURRENT]
    for name, function in inspect.getmembers(layout, inspect.isfunction):
        if name not in NOT_KEYS and not name.startswith("_"):
            key = function(**{parameter: VALUES[parameter] for parameter in inspect.signature(function).parameters})
            found.append(key)
    return [*found, f"{layout.revision_folder('0123456789')}coco/annotations/instances_train.json"]


@pytest.mark.parametrize("key", keys())
def test_keys_of_the_layout_belong_to_the_dataset(key: str) -> None:
    whole = [other for other in keys() if other.startswith(key) and not other.endswith("/")]

    assert whole, f"no key is known that lies in {key}"
    assert all(layout.is_ours(other) for other in whole)


@pytest.mark.parametrize(
    "key", ["", "current.json.bak", "samples/x.png", "a/current.json", "revisions/v1/dataset.json"]
)
def test_other_keys_do_not_belong_to_the_dataset(key: str) -> None:
    assert not layout.is_ours(key)
