"""One manifest in, one published dataset out: the whole path on a real control plane and a real MinIO."""

from __future__ import annotations

import gzip
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import yaml
from pycocotools import mask as rle
from pycocotools.coco import COCO

from tests.cluster.pods import eventually
from tests.cluster.world import Json, World

CLASSES = ["ball", "star"]


class AtRest(NamedTuple):
    since: float
    writes: int
    """The operator's writes until this time."""


@pytest.fixture(scope="module")
def published(new_world: Any) -> Iterator[World]:
    """Two stages side by side, 12 images in 4 shards, drawn well enough to be labeled."""
    world: World = new_world("run")
    world.operator.start()
    drawing = {"model": "builtin://shapes", "steps": 12, "guidanceScale": 3}
    world.apply(
        stages=[{"name": "base", "txt2img": drawing}, {"name": "more", "txt2img": {**drawing, "steps": 10}}],
        prompts={"templates": ["a red {object} on snow", "a blue {object} on sand", "a green {object}"]},
        run={"samplesPerShard": 6},
        quality={"minInstances": 1},
        output={"splits": {"train": 0.5, "val": 0.25, "test": 0.25}},
    )
    world.wait_ready()
    yield world
    world.operator.end()


@pytest.fixture(scope="module", autouse=True)
def at_rest(published: World) -> AtRest:
    """The state five seconds after the dataset was Ready."""
    time.sleep(5)
    return AtRest(time.monotonic(), len(writes(published)))


@pytest.fixture(scope="module")
def revision(published: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published revision, downloaded."""
    pointer = published.current()
    assert pointer is not None
    folder = tmp_path_factory.mktemp("revision")
    root = f"revisions/{pointer['revision']}/"
    for key in published.keys(root):
        file = folder / key.removeprefix(root)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(published.read(key))
    return folder


def manifest(revision: Path) -> list[Json]:
    return [json.loads(line) for line in gzip.decompress((revision / "manifest.jsonl.gz").read_bytes()).splitlines()]


def test_kubectl_wait_sees_it_ready(published: World) -> None:
    said = published.kubectl("wait", "--for=condition=Ready", "lds/shapes", "-n", published.namespace, "--timeout=5s")

    assert "condition met" in said


def test_the_status_counts_the_finished_work(published: World) -> None:
    status = published.get()["status"]

    assert [(s["name"], s["state"], s["samples"]["total"], s["samples"]["done"]) for s in status["stages"]] == [
        ("base", "Succeeded", 12, 12),
        ("more", "Succeeded", 12, 12),
    ]
    assert [s["shards"] for s in status["stages"]] == [{"total": 2, "succeeded": 2, "failed": 0}] * 2
    assert status["summary"]["progress"] == "24/24"
    assert status["dataset"]["revision"] == status["revision"]


def test_each_step_has_one_job_that_belongs_to_the_dataset(published: World) -> None:
    jobs = published.jobs()

    steps = sorted((j["metadata"]["labels"]["diffugen.dev/step"], j["spec"].get("completions")) for j in jobs)
    assert steps == [("plan", 1), ("publish", 1), ("stage", 2), ("stage", 2)]
    assert {j["metadata"]["ownerReferences"][0]["uid"] for j in jobs} == {published.get()["metadata"]["uid"]}


def test_only_stages_that_draw_request_a_gpu(published: World) -> None:
    def gpus(job: Json) -> Any:
        container = job["spec"]["template"]["spec"]["containers"][0]
        return container.get("resources", {}).get("limits", {}).get("nvidia.com/gpu")

    asked = {(j["metadata"]["labels"]["diffugen.dev/step"], gpus(j)) for j in published.jobs()}
    assert asked == {("plan", None), ("stage", "1"), ("publish", None)}


def test_pods_get_no_token_and_are_admitted_under_the_restricted_standard(published: World) -> None:
    for pod in published.pods():
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    namespace = json.loads(published.kubectl("get", "namespace", published.namespace, "-o", "json"))
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_operator_never_requested_a_secret(published: World) -> None:
    asked = [
        e
        for e in published.cluster.audit_events("operator")
        if "/namespaces/" not in e["requestURI"] or f"/namespaces/{published.namespace}/" in e["requestURI"]
    ]

    assert asked
    assert not [e for e in asked if e["objectRef"]["resource"] == "secrets"]


def test_no_object_has_marks_of_kopf(published: World) -> None:
    for item in [published.get(), *published.jobs(), *published.pods(), *published.items("configmaps")]:
        assert not [a for a in item["metadata"].get("annotations", {}) if "kopf" in a]
        assert not [f for f in item["metadata"].get("finalizers", []) if not f.startswith("batch.kubernetes.io/")]


def test_the_operator_changed_only_the_status_of_the_dataset(published: World) -> None:
    changes = [
        f"{e['verb']} {e['objectRef'].get('subresource', 'the object itself')}"
        for e in published.cluster.writes_of("operator")
        if e["objectRef"]["resource"] == "labeleddatasets" and e["objectRef"].get("namespace") == published.namespace
    ]

    assert set(changes) == {"patch status"}, "what is put there and taken away again is a change, too"


def test_the_table_is_readable(published: World) -> None:
    head, row = published.kubectl("get", "lds", "-n", published.namespace).splitlines()

    assert head.split() == ["NAME", "STAGE", "PROGRESS", "SAMPLES", "READY", "REASON", "AGE"]
    name, progress, samples, ready, reason, _ = row.split()
    assert (name, progress, ready, reason) == ("shapes", "24/24", "True", "Published")
    assert int(samples) == published.get()["status"]["dataset"]["samples"]


def test_transitions_are_posted_as_events(published: World) -> None:
    def reasons() -> list[str]:
        return [e["reason"] for e in published.items("events") if e["involvedObject"]["kind"] == "LabeledDataset"]

    eventually(lambda: {"Planned", "Published"} <= set(reasons()))
    # How often it waits for a GPU depends on other pods, but it is reported a few times at most.
    assert len([reason for reason in reasons() if reason != "Unschedulable"]) <= 8
    assert reasons().count("Unschedulable") <= 3


def test_the_pointer_names_a_complete_revision(published: World, revision: Path) -> None:
    pointer = published.current()
    status = published.get()["status"]["dataset"]
    assert pointer is not None

    digest = hashlib.sha256((revision / "manifest.jsonl.gz").read_bytes()).hexdigest()
    assert digest == pointer["manifestSHA256"] == status["manifestSHA256"]
    assert pointer["revision"] == status["revision"]
    accepted = [line for line in manifest(revision) if line["accepted"]]
    assert len(accepted) == status["samples"] > 0
    assert (revision / "dataset.json").exists()
    assert cv2.imread(str(revision / "contact-sheet.png")) is not None


def test_every_image_is_in_exactly_one_split(revision: Path) -> None:
    accepted = {line["id"]: line["split"] for line in manifest(revision) if line["accepted"]}
    where: dict[str, list[str]] = {}
    for file in (revision / "yolo" / "images").rglob("*.png"):
        where.setdefault(file.stem, []).append(file.parent.name)

    assert where == {sample: [split] for sample, split in accepted.items()}
    assert len({hashlib.sha256(f.read_bytes()).hexdigest() for f in (revision / "yolo" / "images").rglob("*.png")}) > 1


def coco_instances(revision: Path) -> dict[str, list[tuple[int, np.ndarray[Any, Any]]]]:
    found: dict[str, list[tuple[int, np.ndarray[Any, Any]]]] = {}
    for file in sorted((revision / "coco" / "annotations").glob("instances_*.json")):
        coco = COCO(str(file))
        names = {c["id"]: c["name"] for c in coco.loadCats(coco.getCatIds())}
        assert [names[i] for i in sorted(names)] == CLASSES, "class ids follow the manifest's order"
        for image in coco.loadImgs(coco.getImgIds()):
            annotations = coco.loadAnns(coco.getAnnIds(image["id"]))
            found[Path(image["file_name"]).stem] = [
                (CLASSES.index(names[a["category_id"]]), coco.annToMask(a)) for a in annotations
            ]
    return found


def test_coco_and_yolo_hold_the_same_instances(revision: Path) -> None:
    data = yaml.safe_load((revision / "yolo" / "data.yaml").read_text())
    assert [data["names"][i] for i in range(len(CLASSES))] == CLASSES
    coco = coco_instances(revision)
    labels = {f.stem: f for f in (revision / "yolo" / "labels").rglob("*.txt")}
    assert labels.keys() == coco.keys()

    overlaps = []
    for sample, instances in coco.items():
        lines = [line.split() for line in labels[sample].read_text().splitlines()]
        assert [int(line[0]) for line in lines] == [class_id for class_id, _ in instances]
        for line, (_, mask) in zip(lines, instances, strict=True):
            drawn = polygon_mask([float(v) for v in line[1:]], mask.shape)
            overlaps.append(iou(drawn, mask))
    assert overlaps
    assert min(overlaps) >= 0.95


def polygon_mask(values: list[float], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Rasterise a normalized polygon as trainers do: in pixel coordinates, by pycocotools."""
    height, width = shape
    points = np.array(values).reshape(-1, 2) * (width, height)
    encoded = rle.merge(rle.frPyObjects([points.ravel().tolist()], height, width))
    return np.asarray(rle.decode(encoded))


def iou(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    return float(np.logical_and(a, b).sum() / max(1, np.logical_or(a, b).sum()))


def test_nothing_is_written_at_rest(published: World, at_rest: AtRest) -> None:
    """Counted in the API server's audit log over sixty seconds; the tests before this one only read."""
    time.sleep(max(0.0, at_rest.since + 60 - time.monotonic()))

    assert writes(published)[at_rest.writes :] == []


def writes(world: World) -> list[str]:
    return [
        f"{e['verb']} {e['requestURI']}"
        for e in world.cluster.writes_of("operator")
        if f"/namespaces/{world.namespace}/" in e["requestURI"]
    ]
