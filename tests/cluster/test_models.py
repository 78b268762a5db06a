"""Models in a bucket, and a volume in which pods share them: against a real MinIO and a real control plane."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from devcluster import Cluster
from devcluster.cluster import MinioAccess
from diffugen_api.plan import SpecError
from diffugen_api.recipes import DETECTOR
from diffugen_api.v1alpha1 import S3, DetectorLabeling
from diffugen_generator.failures import BucketMissing, StoreRefused
from diffugen_generator.models.resolve import resolve
from diffugen_generator.models.side_models import detectors_of
from diffugen_generator.models.small_files import open_file
from diffugen_generator.planning.prompt_rows import read_rows
from tests.cluster.world import World
from tests.generator.made import an_order

pytestmark = pytest.mark.cluster

FIELD = "spec.stages[0].txt2img.model"
SHAPES = resolve("builtin://shapes").path

_numbers = itertools.count()


@pytest.fixture(scope="module")
def access(cluster: Cluster) -> MinioAccess:
    return cluster.minio


@pytest.fixture
def s3(access: MinioAccess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> S3:
    """A bucket with the built-in model in the folder `models/shapes`, with credentials and a separate cache."""
    bucket = f"models-{next(_numbers)}"
    access.client().make_bucket(bucket)
    upload(access, bucket, "models/shapes", SHAPES)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", access.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", access.secret_key)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DIFFUGEN_MODEL_CACHE", raising=False)
    return S3(endpoint=access.endpoint, bucket=bucket)


def upload(access: MinioAccess, bucket: str, prefix: str, folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            access.client().fput_object(bucket, f"{prefix}/{file.relative_to(folder).as_posix()}", str(file))


def safetensors(vectors: np.ndarray[Any, Any]) -> bytes:
    data = vectors.astype("<f4").tobytes()
    header = {"<x>": {"dtype": "F32", "shape": list(vectors.shape), "data_offsets": [0, len(data)]}}
    encoded = json.dumps(header).encode()
    return len(encoded).to_bytes(8, "little") + encoded + data


def test_a_model_in_a_bucket_equals_the_same_folder(s3: S3, tmp_path: Path) -> None:
    uri = f"s3://{s3.bucket}/models/shapes"

    planned = resolve(uri, field=FIELD, s3=s3, weights=False)
    kept = list((tmp_path / "home").rglob("*.safetensors"))
    found = resolve(uri, field=FIELD, s3=s3)

    assert planned.digest == found.digest == resolve("builtin://shapes").digest
    assert not kept
    assert len(list(found.path.rglob("*.safetensors"))) == 3


def test_another_file_under_the_name_is_another_model(s3: S3, access: MinioAccess) -> None:
    uri = f"s3://{s3.bucket}/models/shapes/"
    before = resolve(uri, s3=s3)

    data = (SHAPES / "scheduler" / "scheduler_config.json").read_bytes() + b" "
    access.client().put_object(s3.bucket, "models/shapes/scheduler/scheduler_config.json", io.BytesIO(data), len(data))

    after = resolve(uri, s3=s3)
    assert (after.digest == before.digest, after.path == before.path) == (False, False)


def test_the_volume_of_a_cluster_is_filled_by_the_plan(s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DIFFUGEN_MODEL_CACHE", str(tmp_path / "volume"))

    planned = resolve(f"s3://{s3.bucket}/models/shapes", s3=s3, weights=False)

    assert planned == resolve(f"s3://{s3.bucket}/models/shapes", s3=s3)


def test_a_detector_in_a_bucket_is_planned_with_without_its_weights(
    s3: S3, access: MinioAccess, tmp_path: Path
) -> None:
    here = DetectorLabeling(type="transformers", model="builtin://shapes-segmenter")
    upload(access, s3.bucket, "models/segmenter", detectors_of(here)[DETECTOR].path)
    there = DetectorLabeling(type="transformers", model=f"s3://{s3.bucket}/models/segmenter")

    planned = detectors_of(there, s3, weights=False)[DETECTOR]
    kept = [file.name for file in (tmp_path / "home").rglob("*") if file.is_file() and not file.name.startswith(".")]
    found = detectors_of(there, s3)[DETECTOR]

    assert planned.digest == found.digest == detectors_of(here)[DETECTOR].digest
    assert planned.classes == found.classes
    assert "config.json" in kept
    assert "model.safetensors" not in kept
    assert (found.path / "model.safetensors").is_file()


def test_without_a_store_the_environment_names_the_endpoint(
    s3: S3, access: MinioAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", access.endpoint)

    assert resolve(f"s3://{s3.bucket}/models/shapes").digest == resolve("builtin://shapes").digest


def test_a_single_object_is_fetched_too(s3: S3, access: MinioAccess) -> None:
    access.client().put_object(s3.bucket, "words/x.safetensors", io.BytesIO(b"vectors"), 7)

    _, path, _ = open_file(f"s3://{s3.bucket}/words/x.safetensors", field="f", s3=s3)

    assert path.read_bytes() == b"vectors"


def test_prompts_are_read_from_a_bucket_with_the_credentials_of_the_store(
    s3: S3, access: MinioAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b'{"prompt": "a ball"}\n{"prompt": "a star"}\n'
    access.client().put_object(s3.bucket, "prompts/captions.jsonl", io.BytesIO(data), len(data))
    prompts = {"file": f"s3://{s3.bucket}/prompts/captions.jsonl", "fileSHA256": hashlib.sha256(data).hexdigest()}
    spec = an_order("builtin://shapes", prompts=prompts, output={"s3": s3.model_dump(by_alias=True)}).spec

    assert [row.prompt for row in read_rows(spec).read()] == ["a ball", "a star"]

    access.client().put_object(s3.bucket, "prompts/captions.jsonl", io.BytesIO(b"["), 1)
    with pytest.raises(SpecError, match="^spec.prompts.fileSHA256: s3://.* has the SHA-256"):
        read_rows(spec)
    access.client().remove_object(s3.bucket, "prompts/captions.jsonl")
    with pytest.raises(SpecError, match="^spec.prompts.file: there is nothing at s3://"):
        read_rows(spec)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-wrong-wrong")
    with pytest.raises(StoreRefused):
        read_rows(spec)


def test_a_model_that_is_missing_in_the_bucket_is_refused(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        SpecError, match=rf"^spec\.stages\[0\]\.txt2img\.model: there is nothing at s3://{s3.bucket}/nowhere"
    ):
        resolve(f"s3://{s3.bucket}/nowhere", field=FIELD, s3=s3)
    with pytest.raises(SpecError, match="there is nothing at"):
        open_file(f"s3://{s3.bucket}/words/none.pt", field="f", s3=s3)
    with pytest.raises(SpecError, match="is no diffusers folder"):
        resolve(f"s3://{s3.bucket}/models", field=FIELD, s3=s3)
    with pytest.raises(SpecError, match="names nothing in a bucket"):
        resolve("s3://", field=FIELD, s3=s3)
    with pytest.raises(BucketMissing):
        resolve("s3://there-is-none/x", field=FIELD, s3=s3)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-wrong-wrong")
    with pytest.raises(StoreRefused):
        resolve(f"s3://{s3.bucket}/models/shapes", field=FIELD, s3=s3)


def test_pods_share_a_volume_of_models_and_words(running: World, tmp_path: Path) -> None:
    upload(running.cluster.minio, running.bucket, "models/shapes", SHAPES)
    words = safetensors(np.random.default_rng(0).normal(size=(2, 96)))
    running.store.put_object(running.bucket, "words/glimmer.safetensors", io.BytesIO(words), len(words))
    a_volume(running, tmp_path / "volume")

    running.apply(
        classes=[{"name": "ball", "synonyms": ["<glimmer>"]}],
        prompts={
            "templates": ["a red {object} on snow"],
            "variables": {"object": ["ball", "<glimmer>"]},
            "samplesPerPrompt": 4,
        },
        stages=[
            {
                "name": "base",
                "txt2img": {
                    "model": f"s3://{running.bucket}/models/shapes",
                    "steps": 2,
                    "embeddings": [{"uri": f"s3://{running.bucket}/words/glimmer.safetensors", "token": "<glimmer>"}],
                },
            }
        ],
        run={"modelCache": {"persistentVolumeClaim": "models"}, "dtype": "float32", "batchSize": 2},
    )
    dataset = running.wait_ready()

    assert dataset["status"]["dataset"]["samples"] == 8
    entries = [mark.parent for mark in (tmp_path / "volume").rglob(".complete.json")]
    assert sorted(len(list(entry.rglob("*.safetensors"))) for entry in entries) == [1, 3]
    assert not list((tmp_path / "volume").rglob("*.part"))


def a_volume(world: World, folder: Path) -> None:
    """Bind the claim `models` to a folder."""
    folder.mkdir()
    name = f"models-{world.namespace}"
    claim = {"accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": name}
    size = {"storage": "1Gi"}
    world.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "capacity": size,
                "accessModes": ["ReadWriteMany"],
                "storageClassName": "",
                "hostPath": {"path": str(folder)},
                "claimRef": {"namespace": world.namespace, "name": "models"},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "models", "namespace": world.namespace},
            "spec": {**claim, "resources": {"requests": size}},
        },
    )
