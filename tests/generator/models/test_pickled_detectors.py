"""A pickled detector is refused without a pinned digest."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from pydantic import ValidationError

from diffugen_api.v1alpha1 import DetectorLabeling

ROOT = Path(__file__).parents[3]


# fault 20 of DiffuGen's catalog
def test_no_pickled_weights_are_in_the_repository() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()

    assert listed
    assert [name for name in listed if Path(name).suffix in (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".onnx")] == []


# fault 20 of DiffuGen's catalog
def test_a_pickled_detector_is_refused_without_a_pin() -> None:
    with pytest.raises(ValidationError, match="runs code when it is loaded: pin it by sha256"):
        DetectorLabeling(type="yolo", model="/models/yolov8l-seg.pt")
