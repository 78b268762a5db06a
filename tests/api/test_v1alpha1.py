from typing import Any

import pytest
from pydantic import ValidationError

from diffugen_api.v1alpha1 import S3, LabeledDataset, LabeledDatasetSpec, Run, normalized
from tests.api.specs import a_spec, spec_data


def test_a_minimal_manifest_is_short() -> None:
    spec = LabeledDatasetSpec.model_validate(
        {
            "classes": [{"name": "car"}],
            "prompts": {"templates": ["a car in the city"]},
            "stages": [{"name": "base", "txt2img": {"model": "/models/sd15"}}],
        }
    )

    task = spec.stages[0].txt2img
    assert task is not None
    assert (spec.image.width, task.steps, spec.quality.min_instances) == (512, 25, 1)
    assert spec.run.resources.limits == {"nvidia.com/gpu": 1}


def test_a_manifest_is_read_and_written_in_camel_case() -> None:
    data = normalized(a_spec(run={"samplesPerShard": 7}))

    assert data["run"]["samplesPerShard"] == 7
    assert data["stages"][0]["txt2img"]["guidanceScale"] == 3
    assert LabeledDatasetSpec.model_validate(data) == a_spec(run=Run(samples_per_shard=7))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": []}, "at least 1 item"),
        ({"classes": [{"name": "a"}, {"name": "a"}]}, "class names must be unique"),
        ({"classes": [{"name": "a b"}, {"name": "c", "synonyms": ["A  b"]}]}, "already names class 'a b'"),
        ({"classes": [{"name": "a", "synonyms": ["b "]}]}, "should match pattern"),
        ({"quality": {"maxAreaFraction": 0.001}}, "minAreaFraction must not be above maxAreaFraction"),
        ({"stages": spec_data()["stages"] * 2}, "stage names must be unique"),
        ({"image": {"width": 100}}, "multiple of 8"),
        ({"output": {"splits": {"train": 0.5}}}, "splits must add up to 1"),
        (
            {"classes": [{"name": f"thing {n}"} for n in range(255)], "output": {"formats": ["coco", "voc"]}},
            r"output.formats\[1\]: the masks of voc have values for at most 254 classes",
        ),
        ({"classes": [{"name": f"thing {n}"} for n in range(2001)]}, "at most 2000 items"),
        ({"classes": [{"name": "ball\x1b[31m"}]}, "should match pattern"),
        ({"colour": "red"}, "Extra inputs are not permitted"),
        ({"stages": [{"name": "Base", "txt2img": {"model": "m"}}]}, "should match pattern"),
        ({"output": {"s3": {"endpoint": "minio:9000", "bucket": "data"}}}, "should match pattern"),
    ],
)
def test_a_bad_manifest_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        a_spec(**change)


@pytest.mark.parametrize("name", ["caf\u00e9", "\u7403", "\u043c\u044f\u0447", "traffic light/red", "a", "x" * 63])
def test_a_class_has_a_name_in_any_script(name: str) -> None:
    assert a_spec(classes=[{"name": name}, {"name": "ball"}, {"name": "star"}]).classes[0].name == name


def test_a_class_may_repeat_its_own_word() -> None:
    classes = [{"name": "ball", "synonyms": ["Ball", "orb", "orb"]}, {"name": "star"}]

    assert a_spec(classes=classes).classes[0].words == ("ball", "Ball", "orb", "orb")


@pytest.mark.parametrize(
    "endpoint",
    ["http://minio:9000", "https://s3.eu-west-1.amazonaws.com/", "http://127.0.0.1:9000", "http://[fd00::1]:9000"],
)
def test_an_endpoint_with_scheme_host_and_port_is_accepted(endpoint: str) -> None:
    assert S3(endpoint=endpoint, bucket="data").endpoint == endpoint


@pytest.mark.parametrize(
    "endpoint",
    ["http://me:secret@minio:9000", "http://minio:9000?x=1", "http://minio:9000/data", "http://minio:port", "http://"],
)
def test_any_other_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(ValidationError, match="should match pattern"):
        S3(endpoint=endpoint, bucket="data")


@pytest.mark.parametrize("prefix", ["..", ".", "../other", "a/../b", "a/.", "./a"])
def test_a_prefix_with_a_relative_path_is_refused(prefix: str) -> None:
    with pytest.raises(ValidationError, match=r"a folder cannot be named \. or \.\.: write the prefix without it"):
        S3(endpoint="http://minio:9000", bucket="data", prefix=prefix)


def test_dots_are_allowed_in_a_prefix() -> None:
    assert S3(endpoint="http://minio:9000", bucket="data", prefix="v1.2/..a/.b/").prefix == "v1.2/..a/.b/"


def test_a_resource_without_a_namespace_is_in_default() -> None:
    dataset = LabeledDataset.model_validate(
        {
            "apiVersion": "diffugen.dev/v1alpha1",
            "kind": "LabeledDataset",
            "metadata": {"name": "x"},
            "spec": spec_data(),
        }
    )

    assert (dataset.namespace, dataset.name) == ("default", "x")
