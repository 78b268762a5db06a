"""`explain`: why a dataset is not ready in each phase of its life, and what the user can do next."""

from __future__ import annotations

from typing import Any

from diffugen_generator.kubectl_plugin.explanation import Finding, Surroundings, explain
from tests.operator.lives import Life, a_life

Json = dict[str, Any]


def found(life: Life, **more: Any) -> list[Finding]:
    return explain(Surroundings(dataset=life.raw, jobs=list(life.jobs.values()), pods=list(life.pods.values()), **more))


def test_a_spec_that_no_operator_has_observed() -> None:
    (finding,) = found(a_life())

    assert finding.what.startswith("No operator has seen this spec yet")
    assert "app.kubernetes.io/part-of=diffugen" in finding.todo
    assert found(a_life().until_published().edit(seed=7)) == [finding]


def test_a_published_dataset() -> None:
    (finding,) = found(a_life().until_published())

    assert finding.what.startswith("It is published: Revision ")
    assert finding.todo == "kubectl labeleddataset open shapes"


def test_a_published_dataset_in_the_operators_default_store() -> None:
    life = a_life().until_published()
    life.raw["spec"]["output"].pop("s3")

    (finding,) = found(life)

    assert finding.todo.startswith(f"diffugen view {life.raw['status']['dataset']['uri']} --endpoint URL")


def test_a_stalled_run_shows_its_reason_and_how_to_continue() -> None:
    first, *_ = found(a_life(output={}).settle())

    assert first.what.startswith("It is stalled, StoreNotSet: spec.output.s3 is not set")
    assert first.todo == "fix what it names, then: kubectl labeleddataset retry shapes"


def test_a_suspended_run() -> None:
    first, *_ = found(a_life().until_drawing().edit(suspend=True).settle())

    assert first == Finding("It is suspended: spec.suspend is true.", "kubectl labeleddataset resume shapes")


def test_no_node_is_free() -> None:
    (pod,) = found(a_life().until_drawing().pod_unschedulable("base", "0/3 nodes: 3 Insufficient nvidia.com/gpu."))

    assert pod.what.startswith("No node takes pod ")
    assert pod.what.endswith("0/3 nodes: 3 Insufficient nvidia.com/gpu.")
    assert pod.todo.startswith("kubectl describe pod shapes-base-")


def test_the_scheduler_and_the_pod_are_both_named_after_the_operator_observed_it() -> None:
    findings = found(a_life().until_drawing().pod_unschedulable("base", "no GPU").settle())

    assert findings[0].what.startswith("It waits in line, Unschedulable: ")
    assert findings[0].todo == "kubectl describe nodes"
    assert findings[1].what.startswith("No node takes pod ")


def test_an_image_that_cannot_be_pulled() -> None:
    findings = found(a_life().until_planning().pod_waits("plan", "ImagePullBackOff", "Back-off pulling image").settle())

    pod = next(finding for finding in findings if "cannot start" in finding.what)
    assert "ImagePullBackOff: Back-off pulling image" in pod.what
    assert pod.todo.startswith("kubectl describe pod ")


def test_a_container_that_is_being_created_gives_no_finding() -> None:
    (finding,) = found(a_life().until_planning().pod_starts("plan"))

    assert finding.what.startswith("It is running: ")


def test_the_finding_for_a_failed_pod_names_its_log() -> None:
    findings = found(a_life().until_drawing().pod_ends("base", 137, index="0", word="OOMKilled"))

    assert any("ended with exit code 137 (OOMKilled)" in finding.what for finding in findings)
    assert any(finding.todo.startswith("kubectl logs shapes-base-") for finding in findings)


def test_a_jobs_finding_comes_from_its_kueue_workload() -> None:
    life = a_life(run={"queueName": "gpus"}).settle()
    (job,) = life.jobs.values()
    quota = {"type": "QuotaReserved", "status": "False", "message": "insufficient quota for nvidia.com/gpu"}

    def workload(uid: str) -> Json:
        owner = {"uid": uid}
        return {
            "metadata": {"ownerReferences": [owner]},
            "spec": {"queueName": "gpus"},
            "status": {"conditions": [quota]},
        }

    findings = found(life, workloads=[workload(job["metadata"]["uid"]), workload("another's")])
    (kueue,) = (finding for finding in findings if finding.what.startswith("Kueue"))
    assert kueue.what == f"Kueue has not admitted Job {job['metadata']['name']}: insufficient quota for nvidia.com/gpu"
    assert kueue.todo == "kubectl describe localqueue gpus"


def test_a_job_without_pods_and_its_warning() -> None:
    life = a_life().until_planning()
    (job,) = life.jobs.values()
    about = {"kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}
    denied = {
        "type": "Warning",
        "reason": "FailedCreate",
        "message": "forbidden: exceeded quota",
        "involvedObject": about,
        "lastTimestamp": "2026-11-22T12:00:05Z",
    }
    others = {**denied, "involvedObject": {**about, "uid": "another's"}, "message": "not ours"}
    normal = {**denied, "type": "Normal", "message": "nothing wrong"}

    said = [finding.what for finding in found(life, events=[others, denied, normal])]
    assert said == [
        f"Job {about['name']} has no pod.",
        f"FailedCreate of Job {about['name']}: forbidden: exceeded quota",
    ]


def test_a_right_that_the_operator_lacks() -> None:
    life = a_life()
    life.refuse("Forbidden", 'jobs.batch is forbidden: User "operator" cannot create', for_good=False)

    (finding,) = found(life)
    assert finding.what == 'It waits in line, Forbidden: jobs.batch is forbidden: User "operator" cannot create'
    assert "the rights of its chart" in finding.todo


def test_an_event_that_a_condition_repeats_is_left_out() -> None:
    life = a_life(output={}).settle()
    message = next(c["message"] for c in life.raw["status"]["conditions"] if c["type"] == "Stalled")
    about = {"kind": "LabeledDataset", "name": "shapes", "uid": life.raw["metadata"]["uid"]}
    event = {"type": "Warning", "reason": "StoreNotSet", "message": message, "involvedObject": about}

    assert len(found(life, events=[event])) == 1
    assert len(found(life, events=[{**event, "message": "another"}])) == 2


def test_a_run_without_problems_shows_its_progress() -> None:
    life = a_life().until_drawing().pod_runs("base", "0", total=8, done=3).settle()

    (finding,) = found(life)
    assert finding.what.startswith("It is running: 3/24, base")
    assert finding.todo == "kubectl labeleddataset status shapes --watch"


def test_a_dataset_that_is_being_deleted() -> None:
    (finding,) = found(a_life(deletionPolicy="Delete").until_drawing().delete().settle())

    assert finding.what.startswith("shapes is being deleted: ")
