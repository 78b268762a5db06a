"""What is read from API objects, and from specs that admission should have refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from diffugen_api.contract import Outcome
from diffugen_api.v1alpha1 import S3, LabeledDatasetStatus
from diffugen_operator.observed.base import read_time
from diffugen_operator.observed.dataset import Dataset, InvalidSpec, Wanted, read_spec, read_status
from diffugen_operator.observed.jobs import Job
from diffugen_operator.observed.pods import Pod
from diffugen_operator.observed.progress import parse_indexes
from tests.operator.lives import a_raw_dataset


def a_pod(**status: Any) -> Pod:
    labels = {"batch.kubernetes.io/job-name": "j", "batch.kubernetes.io/job-completion-index": "4"}
    return Pod.read({"metadata": {"name": "p", "labels": labels}, "spec": {"nodeName": "n7"}, "status": status})


def a_container(name: str = "generator", **state: Any) -> dict[str, Any]:
    return {"name": name, "image": "img", "state": state}


def test_a_new_object_has_no_observed_state() -> None:
    pod = a_pod()

    assert (pod.job, pod.index, pod.running, pod.ended, pod.waiting) == ("j", "4", False, None, None)
    job = Job.read({"metadata": {"name": "j", "uid": "u"}, "spec": {}})
    assert (job.step, job.attempt, job.finished, job.suspended) == (None, 0, False, False)


def test_only_the_generator_container_counts() -> None:
    sidecar = a_container("sidecar", terminated={"exitCode": 1})

    assert a_pod(phase="Running", containerStatuses=[sidecar, a_container(running={})]).ended is None


def test_a_foreign_termination_message_is_kept_as_text() -> None:
    ended = a_pod(containerStatuses=[a_container(terminated={"exitCode": 128, "message": " no such file\n"})]).ended

    assert ended is not None
    assert (ended.outcome, ended.message) == (None, "no such file")


def test_the_reason_of_an_eviction_is_read() -> None:
    assert a_pod(phase="Failed", reason="Evicted", message="low on memory").evicted == "low on memory"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"phase": "Failed", "reason": "NodeShutdown"}, "NodeShutdown"),
        (
            {"phase": "Failed", "reason": "Evicted", "containerStatuses": [a_container(terminated={"exitCode": 137})]},
            "Evicted",
        ),
        ({"phase": "Failed", "containerStatuses": [a_container(terminated={"exitCode": 137})]}, ""),
        ({"phase": "Running", "message": "said of a pod that runs"}, ""),
    ],
)
def test_the_kubelets_pod_message_tells_of_an_eviction(status: dict[str, Any], words: str) -> None:
    assert a_pod(**status).evicted == words


def marked(ready: dict[str, str], containers: str = "True") -> list[dict[str, str]]:
    return [{"type": "Ready", **ready}, {"type": "ContainersReady", "status": containers}]


@pytest.mark.parametrize(
    ("conditions", "node"),
    [
        (marked({"status": "False"}), "n7"),
        (marked({"status": "True"}), ""),
        (marked({"status": "False", "reason": "ContainersNotReady"}, "False"), ""),
        (marked({"status": "False"}, "False"), ""),
        (marked({"status": "False", "reason": "ReadinessGatesNotReady"}), ""),
        ([], ""),
    ],
)
def test_a_node_is_silent_where_its_pods_are_marked_as_not_ready(conditions: list[dict[str, str]], node: str) -> None:
    assert a_pod(phase="Running", conditions=conditions).silent_node == node


CREATING = [a_container(waiting={"reason": "ContainerCreating"})]
INITIALIZING = [a_container(waiting={"reason": "PodInitializing"})]
SCHEDULED = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-11-22T12:00:00Z"}]
SINCE = {"phase": "Pending", "startTime": "2026-11-22T12:00:00Z"}


@pytest.mark.parametrize(
    ("status", "starting"),
    [
        ({**SINCE, "containerStatuses": CREATING}, True),
        ({"phase": "Pending", "conditions": SCHEDULED}, True),
        ({**SINCE, "conditions": SCHEDULED, "initContainerStatuses": [{"name": "fetch"}]}, False),
        ({**SINCE, "containerStatuses": INITIALIZING}, False),
        ({"phase": "Pending"}, False),
        ({"phase": "Running", "containerStatuses": [a_container(running={})]}, False),
        ({"phase": "Failed", "message": "low on memory", "startTime": "2026-11-22T12:00:00Z"}, False),
    ],
)
def test_since_when_a_pod_is_starting(status: dict[str, Any], starting: bool) -> None:
    assert a_pod(**status).starting_since == (datetime(2026, 11, 22, 12, tzinfo=UTC) if starting else None)


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff"])
def test_the_kubelets_two_reasons_for_a_missing_image_are_treated_alike(reason: str) -> None:
    waiting = a_pod(containerStatuses=[a_container(waiting={"reason": reason, "message": reason})]).waiting

    assert waiting is not None
    assert waiting.message == "The image 'img' of pod p cannot be pulled: check run.image and its registry."


def test_the_image_of_a_model_that_cannot_be_pulled_is_named() -> None:
    model = f"registry.example.com/org/sd15@sha256:{'a' * 64}"
    pulled = {"reason": "ErrImagePull", "message": f'failed to pull image "{model}": {model}: not found'}
    tried = {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{model}": ErrImagePull: not found'}

    first, second = (a_pod(containerStatuses=[a_container(waiting=each)]).waiting for each in (pulled, tried))

    assert first is not None
    assert first == second
    assert first.reason == "ImagePullFailed"
    assert first.message.startswith(f"The image '{model}' of a model cannot be pulled for pod p: check its oci://")


def test_the_generators_own_image_may_be_named_by_its_digest_too() -> None:
    image = f"registry.example.com/org/generator@sha256:{'b' * 64}"
    waiting_state = {"reason": "ErrImagePull", "message": f'failed to pull image "{image}"'}
    container = {**a_container(waiting=waiting_state), "image": image}

    waiting = a_pod(containerStatuses=[container]).waiting

    assert waiting is not None
    assert "check run.image" in waiting.message


def test_a_good_spec_is_read_into_revision_and_store() -> None:
    wanted = read_spec(a_raw_dataset())

    assert isinstance(wanted, Wanted)
    assert len(wanted.revision) == len(wanted.store) == 10


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": []}, "spec.classes: "),
        ({"seed": "many"}, "spec.seed: "),
        ({"stages": [{"name": "base"}]}, "spec.stages[0]: "),
        ({"surprise": 1, "another": 2}, "(and 1 more)"),
    ],
)
def test_a_spec_that_cannot_be_read_names_the_field(changes: dict[str, Any], words: str) -> None:
    unfit = read_spec(a_raw_dataset(**changes))

    assert isinstance(unfit, InvalidSpec)
    assert unfit.reason == "InvalidSpec"
    assert words in unfit.message


STORE = S3.model_validate({"endpoint": "http://store:9000", "bucket": "team", "secretRef": {"name": "keys"}})


def test_a_dataset_without_a_store_goes_to_the_default_one() -> None:
    named = read_spec(a_raw_dataset(output={"s3": STORE.model_dump(by_alias=True)}))
    left_out = read_spec(a_raw_dataset(output={}), STORE)

    assert isinstance(left_out, Wanted)
    assert left_out.spec.output.s3 == STORE
    assert isinstance(named, Wanted)
    assert (left_out.revision, left_out.store) == (named.revision, named.store)


def test_the_datasets_own_store_precedes_the_default_one() -> None:
    wanted = read_spec(a_raw_dataset(), STORE)

    assert isinstance(wanted, Wanted)
    assert wanted.spec.output.s3 is not None
    assert wanted.spec.output.s3.bucket == "pictures"


def test_without_any_store_the_message_names_the_field() -> None:
    unfit = read_spec(a_raw_dataset(output={}))

    assert isinstance(unfit, InvalidSpec)
    assert unfit.reason == "StoreNotSet"
    assert unfit.message.startswith("spec.output.s3 is not set, and the operator has no default store")


def test_an_overlong_retry_annotation_is_compared_in_its_shortened_form() -> None:
    raw = a_raw_dataset()
    raw["metadata"]["annotations"] = {"diffugen.dev/retry-requested-at": "t" * 300}

    assert Dataset.read(raw, read_spec(raw)).retry_at == "t" * 64


PUBLISHED = {
    "uri": "s3://pictures/vision/shapes/revisions/r1",
    "revision": "r1",
    "samples": 8,
    "rejected": 0,
    "instances": 9,
    "manifestSHA256": "ab" * 32,
    "publishedAt": "2026-11-22T12:00:00Z",
    "history": [{"folder": "r0", "publishedAt": "2026-11-21T12:00:00Z", "samples": 7}],
}


def an_outcome(**changes: Any) -> Outcome | None:
    message = json.dumps({"reason": "Published", "published": PUBLISHED} | changes)
    ended = a_pod(containerStatuses=[a_container(terminated={"exitCode": 0, "message": message})]).ended
    assert ended is not None
    assert bool(ended.message) is (ended.outcome is None), "what is no outcome is kept as message"
    return ended.outcome


@pytest.mark.parametrize(
    "wrong",
    [
        {"uri": "s3://" + "x" * 1100},
        {"revision": "r" * 64},
        {"revision": ""},
        {"uri": ""},
        {"history": [{"folder": "", "publishedAt": "2026-11-21T12:00:00Z", "samples": 7}]},
        {"samples": -1},
        {"instances": 10**13},
        {"manifestSHA256": "AB" * 32},
        {"manifestSHA256": "ab" * 33},
        {"publishedAt": "yesterday"},
        {"publishedAt": "2026-11-22T12:00:00Z" + " " * 20},
        {"acceptedByStage": {"base": -1}},
        {"history": [{"folder": "r0", "publishedAt": "now", "samples": 7}]},
        {"history": [{"folder": "r" * 64, "publishedAt": "2026-11-21T12:00:00Z", "samples": 7}]},
    ],
    ids=str,
)
def test_a_publication_that_does_not_fit_the_status_is_not_an_outcome(wrong: dict[str, Any]) -> None:
    assert an_outcome() is not None
    assert an_outcome(published=PUBLISHED | wrong) is None


@pytest.mark.parametrize("reason", ["", "two words", "R" * 64, "1st", "Ünicode"])
def test_a_reason_that_is_invalid_in_a_condition_is_not_an_outcome(reason: str) -> None:
    assert an_outcome(reason=reason) is None


@pytest.mark.parametrize(
    "text",
    [None, "", "yesterday", "2026-11-22", "2026-11-22T12:00:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z"],
)
def test_text_that_is_not_a_time_with_a_zone_reads_as_none(text: str | None) -> None:
    assert read_time(text) is None
    assert read_time("2026-11-22T13:00:00.5+01:00") == datetime(2026, 11, 22, 12, 0, 0, 500_000, tzinfo=UTC)


def test_a_completion_time_that_is_not_a_time_counts_as_absent() -> None:
    def completed_at(text: str) -> str | None:
        return Job.read({"metadata": {"name": "j", "uid": "u"}, "status": {"completionTime": text}}).completion_time

    assert completed_at("2026-11-22T13:00:00.5+01:00") == "2026-11-22T12:00:00Z", "as the API writes it"
    assert completed_at("yesterday, " + "x" * 40) is None


def test_impossible_indexes_are_ignored() -> None:
    assert parse_indexes("0,3-5,x,-1,7-,²,5-999999999") == [range(1), range(3, 6), range(5, 10_000)]


def test_fields_of_a_status_that_cannot_be_read_count_as_absent() -> None:
    status, unreadable = read_status(
        {"attempt": 3, "planned": "perhaps", "conditions": [{"type": "Ready"}], "revision": "r1"}
    )

    assert unreadable[:2] == ("status.planned", "status.conditions[0].status")
    assert (status.attempt, status.revision, status.planned, status.conditions) == (3, "r1", False, [])


@pytest.mark.parametrize(
    ("status", "place"),
    [
        ({"attempt": -1}, "status.attempt"),
        ({"attempt": 2**63 - 1}, "status.attempt"),
        ({"stages": [{"name": "base", "kind": "x", "samples": {"done": -1}}]}, "status.stages[0].samples.done"),
        ({"stages": [{"name": "base", "kind": "x", "shards": {"total": 10_001}}]}, "status.stages[0].shards.total"),
        ({"history": [{"revision": "", "publishedAt": "t", "samples": 1}]}, "status.history[0].revision"),
    ],
    ids=str,
)
def test_values_beyond_the_bounds_of_a_status_cannot_be_read(status: dict[str, Any], place: str) -> None:
    read, unreadable = read_status(status)

    assert unreadable == (place,)
    assert read == LabeledDatasetStatus()


def test_fields_of_a_later_version_are_ignored_at_every_level() -> None:
    status, unreadable = read_status(
        {
            "attempt": 3,
            "novelty": 1,
            "conditions": [{"type": "Ready", "status": "True", "reason": "R", "lastTransitionTime": "t", "novelty": 1}],
            "summary": {"novelty": {"deep": 1}, "reason": "R"},
            "stages": [{"name": "base", "kind": "txt2img", "samples": {"total": 3, "novelty": 1}, "novelty": 1}],
        }
    )

    assert unreadable == ()
    assert (status.attempt, status.summary.reason, status.stages[0].samples.total) == (3, "R", 3)


def test_containers_that_run_after_the_generator_has_ended_are_named() -> None:
    sidecar, ended = a_container("istio-proxy", running={}), a_container(terminated={"exitCode": 0})

    assert a_pod(phase="Running", containerStatuses=[sidecar, ended]).still_running == ("istio-proxy",)
    assert a_pod(phase="Running", containerStatuses=[sidecar, a_container(running={})]).still_running == ()
    assert a_pod(phase="Succeeded", containerStatuses=[ended]).still_running == ()
