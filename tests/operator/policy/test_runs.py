"""When a run begins, and what happens to the run before it."""

from __future__ import annotations

from typing import Any

import pytest

from diffugen_api.contract import Outcome
from diffugen_operator.policy.actions import SuspendJob
from diffugen_operator.settings import Settings
from tests.operator.lives import Life, a_life, a_plan, spec_data

OTHER_PROMPTS = {"prompts": {"templates": ["the {object}"], "variables": {"object": ["ball", "star"]}}}
OTHER_STORE = {"output": {"s3": {"endpoint": "http://minio:9000", "bucket": "elsewhere"}}}
OTHER_SECRET = {"s3": spec_data()["output"]["s3"] | {"secretRef": {"name": "other"}}}
UNREACHABLE = Outcome(reason="StoreUnreachable", message="http://minio:9000 does not answer.")


def test_an_edit_of_the_content_begins_a_run_and_keeps_the_published_dataset() -> None:
    life = a_life().until_published()
    published = life.status.dataset

    life.edit(**OTHER_PROMPTS).turn()

    assert (life.status.attempt, life.status.planned) == (2, False)
    assert life.status.dataset == published
    assert life.ready()[:2] == ("False", "Accepted")


def test_an_edit_of_the_store_begins_a_run() -> None:
    life = a_life().until_published()

    life.edit(**OTHER_STORE).turn()

    assert life.condition("Reconciling") == ("Accepted", "The dataset goes to another store.")
    assert life.status.attempt == 2


def test_an_edit_of_run_settings_begins_no_run() -> None:
    life = a_life().until_published()

    life.edit(run={"parallelism": 7}).settle()

    assert life.status.attempt == 1
    assert life.ready()[0] == "True"
    assert life.status.observed_generation == 2


def test_the_former_runs_workers_are_stopped_before_the_new_plan_reads_the_store() -> None:
    life = a_life().until_drawing()

    life.edit(**OTHER_PROMPTS).settle()
    assert life.job_names() == ["base"], "the finished plan Job is gone, the stage's is on its way"
    assert life.shown() == ("planning", "", "StoppingFormerRun")

    life.stopped().settle()
    assert life.job_names() == ["plan"]


def test_a_lost_node_delays_the_new_run_for_a_limited_time() -> None:
    life = a_life().until_drawing()
    life.edit(**OTHER_PROMPTS).settle()

    assert life.last is not None
    assert life.last.reconcile_after == life.settings.termination_grace + 60
    life.later(life.last.reconcile_after).settle()

    assert life.job_names() == ["base", "plan"]


def test_the_former_runs_order_is_deleted_when_the_next_begins() -> None:
    life = a_life().until_planning()
    (former,) = life.orders

    life.edit(**OTHER_PROMPTS).settle()
    life.stopped().settle()

    assert len(life.orders) == 1
    assert former not in life.orders


def test_a_spec_edited_and_restored_never_reuses_its_former_jobs() -> None:
    life = a_life().until_drawing()
    names = set(life.jobs)

    life.edit(**OTHER_PROMPTS).settle().edit(**spec_data()).settle()
    life.stopped().settle()

    assert life.status.attempt == 3
    assert not names & set(life.jobs)


def test_a_regenerate_token_begins_a_run() -> None:
    assert a_life().until_published().edit(regenerateToken="again").settle().status.attempt == 2


def test_a_stalled_run_begins_again_after_any_edit() -> None:
    life = a_life().until_planning()
    life.pod_ends("plan", 64, Outcome(reason="UnknownModel", message="no such model")).job_fails(
        "plan", "PodFailurePolicy"
    )
    life.settle()
    assert life.condition("Stalled") == ("UnknownModel", "no such model")

    life.edit(run={"image": "mine/generator:2"}).settle()

    assert life.status.attempt == 2
    assert life.condition("Stalled") is None
    assert life.job_names() == ["plan"]


def test_a_stalled_run_begins_again_once_after_a_retry() -> None:
    life = a_life().until_planning().job_fails("plan", "BackoffLimitExceeded").settle()
    assert life.condition("Stalled") is not None

    life.ask_for_retry("t1").settle()

    assert life.status.attempt == 2
    assert life.status.last_handled_retry_at == "t1"
    life.job_fails("plan", "BackoffLimitExceeded").settle()
    assert life.status.attempt == 2, "the same annotation asks once"


def test_a_run_that_is_trying_again_begins_again_after_a_retry() -> None:
    life = a_life().until_planning().pod_ends("plan", 75, UNREACHABLE).settle()

    life.ask_for_retry().settle()

    assert life.status.attempt == 2


def test_a_run_whose_pod_does_not_start_begins_again_after_a_retry() -> None:
    life = a_life().until_planning().pod_starts("plan").settle().later(121)

    assert life.ask_for_retry().settle().status.attempt == 2


@pytest.mark.parametrize(
    "life",
    [
        pytest.param(a_life().until_planning().pod_waits("plan", "ImagePullBackOff"), id="an image"),
        pytest.param(a_life().until_planning().pod_waits("plan", "CreateContainerConfigError"), id="a Secret"),
        pytest.param(a_life().until_planning().later(61), id="pod security"),
        pytest.param(a_life().until_planning().pod_starts("plan").later(121), id="a volume"),
        pytest.param(a_life().until_drawing().pod_unschedulable("base", "no such node"), id="a node selector"),
    ],
)
def test_an_edit_of_the_blocking_field_begins_the_run_again(life: Life) -> None:
    life.settle()

    life.edit(run={"podTemplate": {"spec": {"priorityClassName": "high"}}}).settle()
    life.stopped().settle()

    assert life.status.attempt == 2
    assert life.job("plan")["spec"]["template"]["spec"]["priorityClassName"] == "high"


@pytest.mark.parametrize("suspend", [False, True])
def test_a_run_begins_when_the_operator_allows_a_template_that_it_refused(suspend: bool) -> None:
    life = a_life(run={"podTemplate": {"spec": {"hostNetwork": True}}}).until_planning()
    life.settings = Settings(pod_template_policy="restricted")
    assert life.edit(suspend=suspend).settle().condition("Stalled") is not None

    life.settings = Settings(pod_template_policy="any")
    life.settle()

    assert (life.condition("Stalled"), life.status.attempt) == (None, 2)
    assert life.stopped().settle().job_names() == ([] if suspend else ["plan"])
    assert life.status.summary.state == ("Suspended" if suspend else "Running")


def test_a_template_that_the_api_server_refused_is_not_tried_again_by_itself() -> None:
    life = a_life(run={"podTemplate": {"spec": {"x": 1}}})
    life.turn()
    life.refuse("InvalidPodTemplate", 'unknown field "spec.x"')

    life.settle()

    assert life.status.attempt == 1
    assert life.shown()[2] == "InvalidPodTemplate"


def waiting_for_a_node(**changes: Any) -> Life:
    return a_life(**changes).until_drawing().pod_unschedulable("base", "0/3 nodes are available.").settle()


@pytest.mark.parametrize(
    ("edit", "attempts"),
    [
        pytest.param({"run": {"podTemplate": {"spec": {"nodeSelector": {"zone": "b"}}}}}, 2, id="a node selector"),
        pytest.param({"run": {"resources": {"limits": {"nvidia.com/gpu": 2}}}}, 2, id="resources"),
        pytest.param({"run": {"image": "mine:2"}}, 2, id="the image"),
        pytest.param({"output": OTHER_SECRET}, 2, id="the Secret"),
        pytest.param({"run": {"modelCache": {"persistentVolumeClaim": "models"}}}, 2, id="a volume"),
        pytest.param({"run": {"queueName": "gpus"}}, 2, id="a queue"),
        pytest.param({"run": {"activeDeadlineSeconds": 60}}, 2, id="a deadline"),
        pytest.param({"run": {"samplesPerShard": 8}}, 2, id="the size of shards, which its order says"),
        pytest.param({"run": {"parallelism": 8}}, 1, id="more pods, which its Job is told"),
        pytest.param({"revisionHistoryLimit": 1}, 1, id="what is kept after it"),
        pytest.param({"deletionPolicy": "Delete"}, 1, id="what becomes of it"),
        pytest.param({"run": {"resources": {"limits": {"nvidia.com/gpu": 1}}}}, 1, id="a default, written out"),
        pytest.param({"suspend": False}, 1, id="nothing"),
    ],
)
def test_a_blocked_run_begins_again_after_an_edit_that_its_jobs_cannot_apply(
    edit: dict[str, Any], attempts: int
) -> None:
    assert waiting_for_a_node().edit(**edit).settle().status.attempt == attempts


def test_a_resumed_run_that_waits_for_a_node_is_not_begun_again_before_the_status_is_written() -> None:
    life = a_life().until_drawing().edit(suspend=True).settle().edit(suspend=False)
    lost = life.raw["status"]
    assert life.turn().actions == [SuspendJob(life.job("base")["metadata"]["name"], suspend=False)]
    life.raw["status"] = lost

    life.pod_unschedulable("base", "0/3 nodes are available.").settle()

    assert life.status.attempt == 1
    assert life.condition("Queued") == ("Unschedulable", "0/3 nodes are available.")
    assert life.status.observed_generation == 3


def test_an_edit_before_the_trouble_was_seen_is_applied_when_it_is_seen() -> None:
    life = a_life(run={"image": "mine:1"}).until_planning().edit(run={"image": "mine:2"}).settle()
    assert life.status.attempt == 1, "its pod may be about to start"

    life.pod_waits("plan", "ErrImagePull").settle().stopped().settle()

    assert life.status.attempt == 2
    assert life.job("plan")["spec"]["template"]["spec"]["containers"][0]["image"] == "mine:2"


def test_an_edit_while_suspended_is_applied_when_the_run_is_resumed() -> None:
    life = a_life().until_drawing().edit(suspend=True).settle()

    life.edit(run={"image": "mine:2"}).settle()
    assert life.status.attempt == 1
    life.edit(suspend=False).settle().stopped().settle()

    assert life.status.attempt == 2
    assert life.job("plan")["spec"]["template"]["spec"]["containers"][0]["image"] == "mine:2"


def test_a_queued_job_whose_size_was_edited_is_queued_again() -> None:
    life = in_the_queue(parallelism=8)

    life.edit(run={"queueName": "gpus", "parallelism": 2}).settle()

    assert life.status.attempt == 2


def in_the_queue(**run: Any) -> Life:
    """Return a run whose stage, of three shards, waits in the queue."""
    life = a_life(run={"queueName": "gpus", **run}).until_planning()
    life.job("plan")["spec"]["suspend"] = False
    return life.until_drawing(a_plan("base", shards=3))


@pytest.mark.parametrize(
    "edit",
    [
        {"parallelism": 8},  # of four, and there are three shards
        {"cpuQueueName": "cpus"},
    ],
    ids=str,
)
def test_an_edit_that_changes_nothing_of_a_waiting_stage_keeps_its_place(edit: dict[str, Any]) -> None:
    life = in_the_queue(parallelism=4)
    uid = life.job("base")["metadata"]["uid"]

    life.edit(run={"queueName": "gpus", "parallelism": 4, **edit}).settle()

    assert (life.status.attempt, life.job("base")["metadata"]["uid"]) == (1, uid)


@pytest.mark.parametrize(
    "edit",
    [
        {"parallelism": 2},
        {"minParallelism": 2},
        {"resources": {"limits": {"nvidia.com/gpu": 2}}},
        {"backoffLimitPerShard": 1},
        {"dtype": "float32"},
    ],
    ids=str,
)
def test_an_edit_of_the_stages_keeps_the_place_of_a_waiting_plan(edit: dict[str, Any]) -> None:
    life = a_life(run={"queueName": "gpus"}).until_planning()

    life.edit(run={"queueName": "gpus", **edit}).settle()

    assert life.status.attempt == 1


def test_an_eviction_after_an_edit_of_parallelism_keeps_its_place() -> None:
    life = in_the_queue(parallelism=8)
    life.job("base")["spec"]["suspend"] = False
    life.pod_runs("base", "0").settle()
    life.edit(run={"queueName": "gpus", "parallelism": 2}).settle()

    life.pods.clear()
    life.job("base")["spec"]["suspend"] = True

    assert life.settle().status.attempt == 1


def test_jobs_of_a_former_operator_are_compared_by_its_hash() -> None:
    """Its hash was over all of `run`, and the same in every Job."""
    run = {"queueName": "gpus", "parallelism": 8}
    life = a_life(run=run).until_planning()
    life.job("plan")["metadata"]["annotations"]["diffugen.dev/setup"] = "9c3b9f4e0d"

    assert life.settle().status.attempt == 2
    life.stopped().settle()
    life.job("plan")["metadata"]["annotations"]["diffugen.dev/setup"] = "3031847dda"
    assert life.settle().status.attempt == 2


def of_a_former_operator(life: Life) -> Life:
    """Remove the setup annotation from the Jobs, as a former operator did not write it."""
    for job in life.jobs.values():
        del job["metadata"]["annotations"]
    return life


def test_an_upgrade_does_not_begin_a_blocked_run_again() -> None:
    newer = Settings(generator_image="generator:2", light_image="light:2", termination_grace=9)
    for life in (waiting_for_a_node(), of_a_former_operator(waiting_for_a_node())):
        life.settings = newer

        assert life.settle().status.attempt == 1


def test_a_blocked_run_of_a_former_operator_begins_again_after_any_edit() -> None:
    assert of_a_former_operator(waiting_for_a_node()).edit(revisionHistoryLimit=1).settle().status.attempt == 2
    suspended = of_a_former_operator(a_life().until_drawing()).edit(suspend=True).settle()
    assert suspended.edit(suspend=False).settle().status.attempt == 1, "it is not"


def test_an_edit_of_run_settings_applies_to_the_later_jobs_of_a_healthy_run() -> None:
    life = a_life().until_drawing().pod_runs("base", "0").settle()

    life.edit(run={"image": "mine:2"}).settle()
    life.job_completes("base").settle()

    assert life.status.attempt == 1
    assert life.job("publish")["spec"]["template"]["spec"]["containers"][0]["image"] == "mine:2"


def test_pods_that_wait_for_a_node_are_kept_when_a_retry_is_requested() -> None:
    life = a_life().until_drawing().pod_unschedulable("base", "0/3 nodes").settle()

    assert life.ask_for_retry().settle().status.attempt == 1


def test_a_retry_of_a_healthy_run_is_only_recorded() -> None:
    life = a_life().until_drawing().pod_runs("base", "0").settle()

    life.ask_for_retry("t1").settle()

    assert life.status.attempt == 1
    assert life.status.last_handled_retry_at == "t1"


def test_a_plan_whose_result_is_lost_runs_again() -> None:
    life = a_life().until_planning().job_completes("plan")

    life.settle()

    assert life.status.attempt == 2
    assert life.job_names() == ["plan"]


def test_after_a_lost_publish_result_the_run_begins_again_with_the_plan() -> None:
    life = a_life().until_publishing().job_completes("publish").settle()
    life.stopped().settle()

    assert life.status.attempt == 2
    life.plan_ends(a_plan("base", reused=24, shards=0)).settle()
    life.publish_ends().settle()
    assert life.ready()[0] == "True"


def lost(life: Life) -> Life:
    """The publish step does not find the drawn images."""
    incomplete = Outcome(reason="Incomplete", message="sample 12 has no labels; plan again")
    life.pod_ends("publish", 65, incomplete).job_fails("publish", "PodFailurePolicy")
    return life.settle().stopped().settle()


def again(life: Life) -> Life:
    """Bring the run to publishing once more."""
    life.plan_ends(a_plan("base", reused=23, shards=1)).settle()
    return life.job_completes("base").settle()


def test_images_that_vanish_before_publishing_are_planned_again_automatically() -> None:
    life = lost(a_life().until_publishing())

    assert (life.status.attempt, life.status.replans) == (2, 1)
    assert life.job_names() == ["plan"]
    again(life).publish_ends().settle()
    assert life.ready()[0] == "True"
    assert life.status.replans == 0, "the next run has all its tries"


def test_images_that_vanish_repeatedly_stall_the_run() -> None:
    life = lost(a_life().until_publishing())
    for _ in range(3):
        lost(again(life))

    assert life.condition("Stalled") == (
        "Incomplete",
        (
            "sample 12 has no labels; plan again. It was planned again 3 times: "
            "something keeps deleting objects from the store."
        ),
    )
    assert (life.status.attempt, life.status.replans) == (4, 3)
    assert life.ask_for_retry().settle().status.replans == 0


def test_a_lost_result_does_not_count_as_one_of_these_tries() -> None:
    life = again(lost(a_life().until_publishing())).job_completes("publish").settle().stopped().settle()

    assert (life.status.attempt, life.status.replans) == (3, 1)


def test_a_retry_of_an_invalid_spec_is_recorded() -> None:
    life = a_life(output={}).ask_for_retry("t1").settle()

    assert life.status.last_handled_retry_at == "t1"
    assert life.condition("Stalled") is not None
    assert life.jobs == {}


def test_a_status_restored_from_a_backup_of_another_resource_begins_a_run() -> None:
    """As after Velero: the same spec and status under a new uid, with other Jobs or none."""
    life = a_life().until_drawing()
    life.raw["metadata"]["uid"] = "another"
    life.jobs.clear()
    life.pods.clear()

    life.turn()

    reason, message = life.condition("Reconciling") or ("", "")
    assert (reason, life.status.attempt, life.status.planned) == ("Accepted", 2, False)
    assert "restored from a backup" in message
    assert life.settle().job_names() == ["plan"]
    assert life.until_drawing().status.attempt == 2, "it is told once"


def test_a_restored_published_dataset_is_checked_again_and_stays_published_meanwhile() -> None:
    life = a_life().until_published()
    published = life.status.dataset
    life.raw["metadata"]["uid"] = "another"

    life.turn()

    assert life.status.dataset == published
    assert life.ready()[0] == "False"


def test_a_status_without_a_uid_is_of_an_earlier_operator() -> None:
    life = a_life().until_drawing()
    del life.raw["status"]["resourceUID"]

    assert life.settle().status.attempt == 1


def test_each_job_comes_with_its_work_order() -> None:
    life = a_life().until_planning()
    (order,) = life.orders
    for step in ("plan", "base"):
        life.orders.clear()
        if step == "plan":
            life.plan_ends(a_plan("base"))
        else:
            life.job_completes("base")
        life.settle()
        assert life.orders == {order}, f"after {step}"
