"""A YOLO segmentation model for the shapes, trained from scratch for the tests: a minute or two, once.

Kept in a cache folder under a key over this file and the library's version. Its licence is AGPL-3.0: it is never
shipped. Nothing is downloaded: the network is built from a description, and a font that training would fetch is put
in its place.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

IMAGES = 384
EPOCHS = 24

NETWORK = """
nc: 4
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, C3k2, [32, False, 0.5]]
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 1, C3k2, [64, False, 0.5]]
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 1, SPPF, [64, 5]]
head:
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 4], 1, Concat, [1]]
  - [-1, 1, C3k2, [64, False, 0.5]]
  - [[9, 6], 1, Segment, [nc, 16, 32]]
"""


def weights() -> Path:
    """Return the model's file; train it if it is not in the cache."""
    root = Path(os.environ.get("DIFFUGEN_TEST_CACHE", Path.home() / ".cache" / "diffugen-tests"))
    key = hashlib.sha256(Path(__file__).read_bytes() + version("ultralytics").encode()).hexdigest()[:16]
    file = root / f"yolo-{key}.pt"
    if not file.exists():
        root.mkdir(parents=True, exist_ok=True)
        work = root / f"work-{key}-{os.getpid()}"
        try:
            # in a separate process: the library sets threads, seeds and deterministic algorithms for all of torch
            command = [sys.executable, "-m", "tests.generator.yolo_weights", str(work)]
            top = Path(__file__).parents[2]  # the parent folder of `tests` and `generator`
            subprocess.run(command, check=True, cwd=top, env={**os.environ, **quiet(work)})
            (work / "runs" / "train" / "weights" / "last.pt").replace(file)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return file


def quiet(work: Path) -> dict[str, str]:
    """The environment of a training that uses nothing outside of `work`."""
    return {
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
        "YOLO_CONFIG_DIR": str(work),
        "YOLO_VERBOSE": "false",
    }


def write_data(folder: Path) -> Path:
    """Write drawn scenes as a YOLO dataset; return its description."""
    import cv2
    import numpy as np

    from generator.training import scenes

    drawn = scenes.draw(IMAGES, np.random.default_rng(5))
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for number, image in enumerate(drawn.images):
        cv2.imwrite(str(folder / "images" / f"{number:04}.png"), image[..., ::-1])
        lines = []
        for kind, mask in zip(drawn.classes[number], drawn.masks[number], strict=True):
            if mask.any():
                outline = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0][0]
                points = (outline.reshape(-1, 2) + 0.5) / scenes.SIZE
                lines.append(f"{kind} " + " ".join(f"{value:.5f}" for value in points.ravel()))
        (folder / "labels" / f"{number:04}.txt").write_text("\n".join(lines))
    description = folder / "data.yaml"
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(scenes.CLASSES))
    description.write_text(f"path: {folder}\ntrain: images\nval: images\nnames:\n{names}")
    return description


def train(work: Path) -> None:
    import matplotlib
    from ultralytics import YOLO, settings  # type: ignore[attr-defined]  # the library loads its classes lazily
    from ultralytics.utils import USER_CONFIG_DIR

    settings.update({"sync": False})
    font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    shutil.copy(font, Path(USER_CONFIG_DIR) / "Arial.ttf")
    (work / "tiny-seg.yaml").write_text(NETWORK)
    YOLO(str(work / "tiny-seg.yaml"), task="segment").train(
        data=str(write_data(work / "data")),
        epochs=EPOCHS,
        imgsz=64,
        batch=16,
        device="cpu",
        workers=0,
        optimizer="AdamW",
        lr0=0.004,
        warmup_epochs=1,
        mosaic=0.0,
        scale=0.1,
        fliplr=0.0,
        hsv_h=0.0,
        overlap_mask=False,
        mask_ratio=1,
        amp=False,
        plots=False,
        val=False,
        seed=1,
        project=str(work / "runs"),
        name="train",
        verbose=False,
    )


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    train(Path(sys.argv[1]))
