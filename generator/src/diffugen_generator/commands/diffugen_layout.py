"""`diffugen pull --output-layout diffugen`: the folders and the label files of DiffuGen, for tools that read these.

    DIR/<revision>/<task>/images/0001/<id>.png       the image
    DIR/<revision>/<task>/labels/0001/<id>.json      prompt_details, and labels with boxes and polygons as fractions
    DIR/<revision>/<task>/masks/0001/<id>.png        255 where an object is
    DIR/<revision>/<task>/attentions/0001/<id>.png   the strongest attention of any class, where the store has it
    DIR/<revision>/<task>/visualizations/0001/<id>.jpg
    DIR/<revision>/<task>/sd_model_info.json

`<task>` is txt2img, img2img or inpaint; with several stages of one kind, `<task>-<stage>`. The layout is that of
github.com/mshenoda/diffugen (generate/txt2img.py). What differs is what is wrong there: `class_id` is the dataset's
class and not always 0 or the labeling model's, and names of files are ids, because names made of variables collide.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections import Counter
from pathlib import Path
from threading import Event
from typing import Any

import cv2
import numpy as np
from PIL import Image

from diffugen_api import layout
from diffugen_api.plan import SpecError
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_generator.bounded_pool import in_order
from diffugen_generator.commands.pull import PullResult, check_space, only_one, point_to
from diffugen_generator.failures import Damaged, FilesDamaged, Interrupted, Missing
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.publishing.formats.masks import overlay_of
from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.polygons import polygon_of
from diffugen_generator.publishing.reading import PublishedDataset
from diffugen_generator.samples.documents import checked
from diffugen_generator.samples.labels import Instance
from diffugen_generator.telemetry.reporter import Reporter

_IMAGES_PER_SHARD = 1000
_VARIABLES = {
    "view_point": ("view_point", "view"),
    "object_name": ("object_name", "object"),
    "time_of_day": ("time_of_day", "time"),
    "sky_condition": ("sky_condition", "sky"),
    "weather_condition": ("weather_condition", "weather"),
}
"""DiffuGen's five variables, and the names that they may have here; a missing one is empty."""
_READERS = 8
_WINDOW = 16


def pull_as_diffugen(published: PublishedDataset, target: Path, display: Reporter, *, stop: Event) -> PullResult:
    """Write the accepted samples of a revision to `target` in DiffuGen's layout; the folder appears when it is whole.

    Raises `FilesDamaged` where an image is missing or differs from its SHA-256, and a `Failure` of the store.
    """
    if len(published.dataset.get("sources", ())) > 1:
        raise SpecError(
            "MergedDataset",
            f"URI: {published.uri} is merged of several datasets, and DiffuGen's layout has the stages of one; pull "
            "each of them.",
        )
    total = int(published.dataset["samples"])
    with only_one(target):
        check_space(target, 0)
        final, part = target / f"{published.name}-diffugen", target / f".{published.name}-diffugen.part"
        shutil.rmtree(part, ignore_errors=True)
        writer = _Writer(published, part)
        accepted = (row for row in published.rows() if row.get("accepted"))
        with display.task("pulling", "images") as advance:
            done = 0
            for done, _ in enumerate(in_order(writer.write, enumerate(accepted), workers=_READERS, window=_WINDOW), 1):
                advance(done, max(done, total))
                if stop.is_set():
                    raise Interrupted("the pull was stopped; nothing was put in place")
        writer.finish()
        if final.exists():
            shutil.rmtree(final)
        part.replace(final)
        point_to(target, final)
    written = [path for path in final.rglob("*") if path.is_file()]
    return PullResult(
        published.uri,
        str(published.dataset["revision"]),
        final,
        len(written) + 1,
        len(written),
        sum(path.stat().st_size for path in written),
    )


class _Writer:
    def __init__(self, published: PublishedDataset, folder: Path) -> None:
        self._published = published
        self._folder = folder
        self._spec = published.spec
        self._tasks = tasks_of(self._spec)
        self._evidence = {stage["name"]: stage.get("evidenceId", "") for stage in published.dataset.get("stages", ())}
        self._models = {stage["name"]: stage.get("model", "") for stage in published.dataset.get("stages", ())}
        self._dtypes: dict[str, str] = {}

    def write(self, numbered: tuple[int, dict[str, Any]]) -> None:
        """Write the files of an accepted sample."""
        number, row = numbered
        sample = self._published.sample_of(row)
        data = self._published.image(sample)
        self._check(sample, row, data)
        self._dtypes.setdefault(sample.stage, str(row.get("dtype", "")))
        shard = f"{number // _IMAGES_PER_SHARD + 1:04d}"
        task, name = self._tasks[sample.stage], sample.sample.id
        self._put(f"{task}/images/{shard}/{sample.file_name}", data)
        label = label_file(sample, self._spec, self._published.class_ids)
        self._put(f"{task}/labels/{shard}/{name}.json", json.dumps(label, indent=4, ensure_ascii=False).encode())
        self._put(f"{task}/masks/{shard}/{name}.png", _png(_mask(sample)))
        overlay = overlay_of(data, sample, self._published.class_ids)
        self._put(f"{task}/visualizations/{shard}/{name}.jpg", overlay)
        if (attention := self._attention(sample)) is not None:
            self._put(f"{task}/attentions/{shard}/{name}.png", _png(attention))

    def finish(self) -> None:
        """Write what all images of a task share."""
        for stage, task in self._tasks.items():
            info = {
                "model": self._models.get(stage, ""),
                "torch_dtype": f"torch.{self._dtypes[stage]}" if self._dtypes.get(stage) else "",
                "initial_seed": self._spec.seed,
            }
            self._put(f"{task}/sd_model_info.json", json.dumps(info, indent=4).encode())

    def _check(self, sample: LabeledSample, row: dict[str, Any], data: bytes) -> None:
        digest = hashlib.sha256(data).hexdigest()
        if row.get("imageSha256", digest) != digest:
            raise FilesDamaged(
                f"{self._published.uri}: the image of sample {sample.sample.id} differs from its SHA-256 in the "
                "manifest; nothing was put in place; see `diffugen verify`"
            )

    def _attention(self, sample: LabeledSample) -> np.ndarray[Any, Any] | None:
        """Return the strongest attention of any class as [height, width], 0..255; None where there is none."""
        evidence_id = self._evidence.get(sample.stage)
        if not evidence_id or not self._published.in_store:
            return None
        key = layout.evidence(sample.stage, evidence_id, sample.sample.id)
        try:
            data = self._published.store.read(key)
            maps = checked(key, lambda: AttentionMaps.loads(data, sample.sample.id))
        except (Missing, Damaged):
            return None
        if not maps.classes:
            return None
        strongest = maps.maps[: len(maps.classes)].max(axis=0)
        resized: np.ndarray[Any, Any] = cv2.resize(
            strongest, (sample.width, sample.height), interpolation=cv2.INTER_CUBIC
        )
        return resized

    def _put(self, path: str, data: bytes) -> None:
        file = self._folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def tasks_of(spec: LabeledDatasetSpec) -> dict[str, str]:
    """Return the folder of each stage: its kind, with its name where there are several stages of that kind."""
    kinds = Counter(stage.kind for stage in spec.drawing_stages)
    return {
        stage.name: stage.kind if kinds[stage.kind] == 1 else f"{stage.kind}-{stage.name}"
        for stage in spec.drawing_stages
    }


def label_file(sample: LabeledSample, spec: LabeledDatasetSpec, class_ids: dict[str, int]) -> dict[str, Any]:
    """Return the label file of a sample: fractions of width and height, as DiffuGen writes them."""
    given = sample.sample.variables
    known = {name: next((given[each] for each in names if each in given), "") for name, names in _VARIABLES.items()}
    templates = spec.prompts.templates
    return {
        "prompt_details": {
            "seed": sample.sample.seed,
            "steps": sample.drawing.get("settings", {}).get("steps"),
            "prompt": sample.sample.prompt,
            "prompt_template": templates[sample.sample.template] if sample.sample.template < len(templates) else "",
            **known,
            **{name: value for name, value in given.items() if name not in known},
        },
        "labels": [_label(each, sample, class_ids) for each in sample.verdict.instances],
    }


def _label(instance: Instance, sample: LabeledSample, class_ids: dict[str, int]) -> dict[str, Any]:
    left, top, across, down = instance.bbox
    x, y, width, height = left / sample.width, top / sample.height, across / sample.width, down / sample.height
    polygon = polygon_of(instance.segmentation.mask()) / (sample.width, sample.height)
    return {
        "score": round(instance.score, 4),
        "class_id": class_ids[instance.class_name],
        "class_name": instance.class_name,
        "bounding_box": {
            "x": x,
            "y": y,
            "cx": x + width / 2,
            "cy": y + height / 2,
            "width": width,
            "height": height,
            "coordinates": [x, y, width, height],
        },
        "bounding_polygon": polygon.tolist(),
    }


def _mask(sample: LabeledSample) -> np.ndarray[Any, Any]:
    mask = np.zeros((sample.height, sample.width), np.uint8)
    for instance in sample.verdict.instances:
        mask[instance.segmentation.mask()] = 255
    return mask


def _png(values: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "png")
    return buffer.getvalue()
