"""A small dataset with attention maps, for tests of the report: drawn by formulas, labeled by the real decisions.

Three stages; prompts that a page must not take for HTML; images that are wider than square; objects that
`quality` drops; images that it rejects, and so derivatives whose source is rejected.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from diffugen_api import layout
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import Sample, canonical, revision_of
from diffugen_api.v1alpha1 import AttentionLabeling, LabeledDatasetSpec
from diffugen_generator.labeling.decide.agreement import agree
from diffugen_generator.labeling.decide.from_attention import decision_of
from diffugen_generator.labeling.evidence.attention_maps import AttentionMaps
from diffugen_generator.labeling.evidence.image_statistics import statistics_of
from diffugen_generator.planning.plan import plan
from diffugen_generator.publishing.publish import publish
from diffugen_generator.samples import labels
from diffugen_generator.samples.labels import Instance, Label
from diffugen_generator.samples.shards import ShardHeader
from diffugen_generator.store.folder import FolderStore
from tests.generator.made import a_model, an_instance, planned_shards, png, spec_data

CLASSES = ("ball", "Big Star")
HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
WIDTH, HEIGHT = 96, 64
MAP = (16, 24)
"""Height and width of the attention maps."""


@dataclass(frozen=True)
class Published:
    """The published dataset."""

    order: WorkOrder
    store: FolderStore

    @property
    def folder(self) -> Path:
        """The folder of the revision."""
        return self.store.root / "revisions" / self.order.revision

    @property
    def page(self) -> str:
        """The address of the report."""
        return (self.folder / "report.html").as_uri()


def a_spec(folder: Path, *, detector: bool = False, **changes: Any) -> LabeledDatasetSpec:
    model = a_model(folder / "model")
    labeling: dict[str, Any] = {"attention": {"threshold": 0.4, "snap": False, "background": ["snow"]}}
    if detector:
        labeling["detector"] = {"type": "transformers", "model": "builtin://shapes-segmenter"}
    data = {
        "classes": [{"name": CLASSES[0]}, {"name": CLASSES[1], "synonyms": ["star"], "detectorClass": "star"}],
        "image": {"width": WIDTH, "height": HEIGHT},
        "prompts": {
            "templates": ["a {color} {object} on {place}", f"a {{color}} {{object}} {HOSTILE} 雪"],
            "variables": {"object": ["ball", "star"], "color": ["red", "blue"], "place": ["snow", "<i>sand</i>"]},
            "samplesPerPrompt": 4,
            "syntax": "none",
        },
        "stages": [
            {"name": "base", "txt2img": {"model": model, "steps": 20, "guidanceScale": 3}},
            {
                "name": "again",
                "img2img": {"from": "base", "strength": 0.5, "steps": 20, "variables": {"place": ["<i>sand</i>"]}},
            },
            {"name": "swap", "inpaint": {"from": "base", "replacements": {"ball": ["green ball"]}, "steps": 20}},
        ],
        "labeling": labeling,
        "quality": {"minBorderDistance": 1, "minInstances": 1},
        "output": {"formats": ["coco"], "splits": {"train": 0.6, "val": 0.2, "test": 0.2}},
        **changes,
    }
    return LabeledDatasetSpec.model_validate(spec_data(model, **data))


def published(folder: Path, **changes: Any) -> Published:
    """Draw, label and publish the dataset in `folder`."""
    spec = a_spec(folder, **changes)
    order = WorkOrder(namespace="vision", name="shapes", revision=revision_of(spec), spec=spec)
    store = FolderStore(folder / "store")
    plan(order, store)
    for header, rows in planned_shards(order, store):
        for row in rows:
            _draw(header, row.sample, spec, store)
    publish(order, store)
    return Published(order, store)


def maps_of(sample: Sample) -> AttentionMaps:
    """Soft spots: one or two for each class, and one for the background word where the prompt has it."""
    random = np.random.default_rng(sample.seed)
    height, width = MAP
    down, across = np.mgrid[0:height, 0:width]

    def spots(count: int) -> NDArray[np.float64]:
        total = np.zeros(MAP)
        for _ in range(count):
            y, x, radius = random.uniform(0, height), random.uniform(0, width), random.uniform(1, 4)
            total += random.uniform(0.5, 1) * np.exp(-((down - y) ** 2 + (across - x) ** 2) / (2 * radius**2))
        return total

    background = ("snow",) if "snow" in sample.prompt else ()
    raw = [spots(1 + number) for number in range(len(CLASSES))] + [spots(2) for _ in background]
    maps = np.stack([np.round(each / each.max() * 255) for each in raw]).astype(np.uint8)
    return AttentionMaps(CLASSES, background, maps)


def image_of(sample: Sample) -> NDArray[np.uint8]:
    """The classes' maps as colors; every tenth image is blank."""
    if sample.seed % 10 == 0:
        return np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    large = [cv2.resize(each, (WIDTH, HEIGHT)) for each in maps_of(sample).maps[: len(CLASSES)]]
    return np.stack([*large, np.full_like(large[0], 90)], axis=2)


def label_at(sample: Sample, threshold: float, spec: LabeledDatasetSpec) -> Label:
    """The label of a sample at a threshold, by the real decisions, without snapping."""
    attention = spec.labeling.attention
    assert attention is not None
    settings = AttentionLabeling(threshold=threshold, snap=False, background=attention.background)
    image = image_of(sample)
    found = decision_of(maps_of(sample), image, settings).instances
    statistics = statistics_of(image).row()
    if spec.labeling.detector is None:
        return Label(sample.id, tuple(found), statistics=statistics)
    kept, marked = agree(found, detected(sample), spec.labeling.agreement)
    return Label(sample.id, tuple(kept), tuple(marked), statistics)


def detected(sample: Sample) -> list[Instance]:
    """What a detector would find: the spots at another threshold, one class exchanged in some images."""
    settings = AttentionLabeling(threshold=0.5, snap=False)
    found = decision_of(maps_of(sample), image_of(sample), settings).instances
    names = CLASSES if sample.seed % 4 else tuple(reversed(CLASSES))
    return [an_instance(names[CLASSES.index(each.class_name)], each.segmentation.mask(), 0.8) for each in found]


def _draw(header: ShardHeader, sample: Sample, spec: LabeledDatasetSpec, store: FolderStore) -> None:
    store.write(layout.image(header.stage, sample.id, header.extension), png(image_of(sample)))
    store.write(layout.evidence(header.stage, header.evidence_id, sample.id), maps_of(sample).dumps(sample.id))
    store.write(layout.recipe(header.stage, sample.id), canonical({"id": sample.id}))
    found = labels.dumps_label(label_at(sample, 0.4, spec))
    store.write(layout.label(header.stage, header.label_id, sample.id), found)
