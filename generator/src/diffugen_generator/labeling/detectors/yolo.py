"""Ultralytics segmentation models. Their library is under the AGPL-3.0: only this module imports it, on demand.

Its unwanted actions are switched off: it sends no usage data, downloads nothing, installs nothing, and unpickles only
classes from its own list of allowed classes.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from diffugen_api.errors import SpecError
from diffugen_api.v1alpha1 import LEAST_CONFIDENCE
from diffugen_generator.labeling.evidence.detections import MOST, Detections
from diffugen_generator.labeling.labeler import LabelInput
from diffugen_generator.models.side_models import SideModel

QUIET = {
    "ULTRALYTICS_SAFE_LOAD": "1",  # torch.load with weights_only and a list of allowed classes
    "YOLO_OFFLINE": "true",
    "YOLO_AUTOINSTALL": "false",
    "YOLO_VERBOSE": "false",
}
"""Environment variables that ultralytics reads when it is imported."""

SUPPRESSED = 0.95
"""Boxes of one class that overlap by more than this are duplicates and are dropped here. `decide` drops others later,
from the evidence."""


class Yolo:
    """An Ultralytics segmentation model on one device."""

    def __init__(self, side_model: SideModel, device: torch.device) -> None:
        """Load the model; raise `SpecError` if it cannot be loaded, or if the extra `yolo` is not installed."""
        library = import_ultralytics()
        try:
            self._model = library.YOLO(str(side_model.path), task="segment")
        except Exception as error:  # ultralytics has no error classes
            why = " ".join(str(error).split())[:300]
            raise SpecError("UnsupportedModel", f"the model {side_model.uri} cannot be loaded: {why}") from error
        self._device = device

    def look(self, seen: Sequence[LabelInput]) -> list[Detections]:
        """Return the detections in each image."""
        with _own_threads():
            results = self._model.predict(
                [np.ascontiguousarray(each.image[..., ::-1]) for each in seen],  # it reads arrays as BGR
                conf=LEAST_CONFIDENCE,
                iou=SUPPRESSED,
                max_det=MOST,
                retina_masks=True,  # at the image's own resolution
                device=str(self._device),
                verbose=False,
            )
        return [_detections(result, each) for result, each in zip(results, seen, strict=True)]


def import_ultralytics() -> Any:  # untyped
    """Import ultralytics without its log output; raise `SpecError` with reason `MissingExtra` if it is missing."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    os.environ["ULTRALYTICS_SAFE_LOAD"] = "1"
    os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.gettempdir())  # a home folder may not be writable in a pod
    try:
        with _own_threads(), _own_functions():
            ultralytics: Any = importlib.import_module("ultralytics")
    except ModuleNotFoundError as error:
        raise SpecError(
            "MissingExtra",
            f"spec.labeling.detector.type: yolo needs the package {error.name}, which is not installed here; install "
            "the extra: diffugen[yolo] (AGPL-3.0), or use another type of detector.",
        ) from error
    ultralytics.settings.update({"sync": False})
    return ultralytics


@contextmanager
def _own_threads() -> Iterator[None]:
    """Restore the number of torch's threads afterwards, because ultralytics sets it for the whole process."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _own_functions() -> Iterator[None]:
    """Restore the functions that the import of ultralytics replaces for the whole process, such as `Image.open`."""
    opens, saves, threads, prints = Image.open, torch.save, cv2.getNumThreads(), np.get_printoptions()
    try:
        yield
    finally:
        Image.open, torch.save = opens, saves
        cv2.setNumThreads(threads)
        np.set_printoptions(**prints)


def _detections(result: Any, seen: LabelInput) -> Detections:
    """Read one image's result: the pixel masks, because the polygons lose holes and join parts."""
    height, width = seen.image.shape[:2]
    if result.masks is None:
        return Detections((height, width), ())
    masks = result.masks.data.cpu().numpy() > 0.5  # [n, height, width]
    natives = [str(result.names[int(number)]) for number in result.boxes.cls.tolist()]
    return Detections.of(masks, natives, result.boxes.conf.tolist())
