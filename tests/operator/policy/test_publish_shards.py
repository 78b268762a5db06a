"""A dataset with more samples than one pod publishes: an Indexed Job publishes its shards, then one pod joins them."""

from __future__ import annotations

from typing import Any

from diffugen_api.contract import ANNOTATION_PARALLELISM, REASON_INCOMPLETE, Outcome
from diffugen_operator.policy.actions import ResizeJob
from tests.operator.lives import Life, a_life, a_plan

MANY = {"samplesPerPublishShard": 10, "parallelism": 2}


def drawn(**run: Any) -> Life:
    """A dataset of 24 samples, of which the last stage is done."""
    return a_life(run={**MANY, **run}).until_drawing().job_completes("base").settle()


def worker(life: Life, job: str) -> list[str]:
    (container,) = life.job(job)["spec"]["template"]["spec"]["containers"]
    command: list[str] = container["command"]
    return command


def condition(life: Life) -> str:
    found = life.condition("Reconciling")
    assert found is not None
    return found[1]


def test_the_shards_are_published_first_and_then_joined() -> None:
    life = drawn()

    assert life.job_names() == ["base", "plan", "publish-shard"]
    job = life.job("publish-shard")["spec"]
    assert (job["completionMode"], job["completions"], job["parallelism"]) == ("Indexed", 3, 2)
    assert job["backoffLimitPerIndex"] == 3
    assert worker(life, "publish-shard") == [
        "diffugen", "worker", "publish-shard", "--shards", "3", "--samples-per-shard", "8",
    ]  # fmt: skip
    assert "nvidia.com/gpu" not in str(job["template"])
    assert life.shown() == ("publishing", "24/24", "Publishing")

    life.job_status("publish-shard", completedIndexes="0,2").settle()
    assert life.status.publish_shards is not None
    assert (life.status.publish_shards.succeeded, life.status.publish_shards.total) == (2, 3)
    assert "3 shards, of which 2 are done" in condition(life)

    life.job_completes("publish-shard").settle()
    assert life.job_names() == ["base", "plan", "publish", "publish-shard"]
    assert worker(life, "publish") == ["diffugen", "worker", "publish", "--shards", "3", "--samples-per-shard", "8"]
    assert life.publish_ends().settle().ready()[0] == "True"


def test_a_smaller_dataset_is_published_by_one_pod_as_before() -> None:
    life = drawn(samplesPerPublishShard=24)

    assert life.job_names() == ["base", "plan", "publish"]
    assert worker(life, "publish") == ["diffugen", "worker", "publish"]
    assert life.status.publish_shards is None
    unset = a_life(run={"parallelism": 2}).until_drawing().job_completes("base").settle()
    assert life.job("publish")["spec"] == unset.job("publish")["spec"]
    assert life.job("plan") == unset.job("plan")
    assert life.job("base") == unset.job("base")


def test_an_edit_while_shards_are_published_changes_only_how_many_run_at_once() -> None:
    life = drawn()

    life.edit(run={"samplesPerPublishShard": 4, "parallelism": 3})
    decision = life.turn()
    life.settle()

    assert [action for action in decision.actions if isinstance(action, ResizeJob)] != []
    assert life.job("publish-shard")["spec"]["parallelism"] == 3
    life.job_completes("publish-shard").settle()
    assert worker(life, "publish")[-3:] == ["3", "--samples-per-shard", "8"]
    assert life.status.attempt == 1


def test_an_edit_while_one_pod_publishes_all_begins_no_shards() -> None:
    life = drawn(samplesPerPublishShard=24)

    life.pod_runs("publish").edit(run=MANY).settle()

    assert life.job_names() == ["base", "plan", "publish"]


def test_shards_that_are_done_are_not_published_again_when_their_job_was_collected() -> None:
    life = drawn().job_completes("publish-shard").settle()

    life.collected("publish-shard").settle()

    assert life.job_names() == ["base", "plan", "publish"]


def test_a_job_that_was_deleted_is_created_again_with_the_same_shards() -> None:
    life = drawn().job_status("publish-shard", completedIndexes="0").settle()

    life.collected("publish-shard").edit(run={"samplesPerPublishShard": 4}).settle()

    assert life.job("publish-shard")["spec"]["completions"] == 3


def test_a_shard_that_finds_a_gap_in_the_store_plans_again() -> None:
    life = drawn()
    missing = Outcome(reason=REASON_INCOMPLETE, message="Sample 1f has no labels; plan again.")

    life.pod_ends("publish-shard", 65, missing, index="1").job_fails("publish-shard", "PodFailurePolicy").settle()

    assert (life.status.attempt, life.status.replans) == (2, 1)
    assert life.status.publish_shards is None


def test_shards_that_crash_stall_the_run_with_their_numbers() -> None:
    life = drawn()
    crash = Outcome(reason="Crashed", message="KeyError: 'ball'")

    life.pod_ends("publish-shard", 1, crash, index="1")
    life.job_fails("publish-shard", "FailedIndexes", failedIndexes="1").settle()

    stalled = life.condition("Stalled")
    assert stalled is not None
    assert stalled[0] == "ShardsFailed"
    assert "Shards 1 of the publication failed; the last failure: KeyError: 'ball'" in stalled[1]
    assert life.ask_for_retry().settle().status.attempt == 2


def test_suspended_shards_keep_what_is_done() -> None:
    life = drawn()

    life.edit(suspend=True).settle()
    assert life.job("publish-shard")["spec"]["suspend"]
    life.job_completes("publish-shard").settle()
    assert life.status.publish_shards is not None
    assert life.status.publish_shards.succeeded == 3
    life.collected("publish-shard").edit(suspend=False).settle()

    assert "publish" in life.job_names()
    assert "publish-shard" not in life.job_names()


def test_shards_wait_in_the_queue_of_jobs_without_a_model() -> None:
    life = a_life(run={**MANY, "queueName": "gpus", "cpuQueueName": "cpus", "minParallelism": 1}).until_drawing()
    life.job_completes("base").settle()

    job = life.job("publish-shard")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "cpus"
    assert job["metadata"]["annotations"][ANNOTATION_PARALLELISM] == "2"
    assert job["spec"]["suspend"]
    life.edit(run={**MANY, "queueName": "gpus", "cpuQueueName": "cpus", "minParallelism": 1, "parallelism": 3})
    assert not [action for action in life.turn().actions if isinstance(action, ResizeJob)]


def test_samples_of_all_stages_count_together() -> None:
    life = a_life("base", "more", run={"samplesPerPublishShard": 40}).until_drawing(a_plan("base"), a_plan("more"))

    life.job_completes("base").settle().job_completes("more").settle()

    assert life.job("publish-shard")["spec"]["completions"] == 2


def test_most_shards_of_a_job_are_not_exceeded() -> None:
    plan = a_plan("base", total=1_000_000, reused=1_000_000, shards=0, gpu=False)

    life = a_life(run={"samplesPerPublishShard": 1}).until_drawing(plan)

    assert life.job("publish-shard")["spec"]["completions"] == 10_000
    assert worker(life, "publish-shard")[-1] == "100"
