"""The life of a dataset without trouble: it is planned, drawn and published; then nothing changes."""

from __future__ import annotations

from diffugen_operator.policy.actions import CreateJob, CreateWorkOrder
from tests.operator.lives import a_life, a_plan


def test_a_new_dataset_is_recorded_in_status_before_anything_is_created() -> None:
    life = a_life()

    decision = life.turn()

    assert decision.actions == []
    assert decision.reconcile_after == 0
    assert (life.status.attempt, life.status.planned, life.status.stages) == (1, False, [])
    assert life.condition("Reconciling") == ("Accepted", "The dataset is new; its plan is made first.")


def test_then_the_order_is_created_and_after_it_the_plan_job() -> None:
    life = a_life()
    life.turn()

    decision = life.turn()

    assert [type(action) for action in decision.actions] == [CreateWorkOrder, CreateJob]
    assert life.job_names() == ["plan"]
    assert life.shown() == ("planning", "", "Planning")


def test_a_plan_creates_a_job_for_each_stage_that_has_work() -> None:
    life = a_life("base", "more", "done", run={"parallelism": 2}).until_planning()
    life.plan_ends(
        a_plan("base", total=24, reused=6, shards=3),
        a_plan("more", total=10, shards=1),
        a_plan("done", total=8, reused=8, shards=0, gpu=False),
    )

    life.settle()

    assert life.job_names() == ["base", "more", "plan"]
    assert [(s.name, s.state, s.samples.done, s.samples.total) for s in life.status.stages] == [
        ("base", "Running", 6, 24),
        ("more", "Running", 0, 10),
        ("done", "Succeeded", 8, 8),
    ]
    assert life.shown() == ("base", "14/42", "Drawing")


def test_publishing_begins_when_the_last_stage_has_ended() -> None:
    life = a_life("base", "more").until_drawing(a_plan("base"), a_plan("more"))

    life.job_completes("base").settle()
    assert life.shown() == ("more", "24/48", "Drawing")
    assert life.job_names() == ["base", "more", "plan"]

    life.job_completes("more").settle()
    assert life.shown() == ("publishing", "48/48", "Publishing")
    assert life.job_names() == ["base", "more", "plan", "publish"]


def test_a_plan_without_missing_work_goes_straight_to_publishing() -> None:
    life = a_life().until_drawing(a_plan("base", reused=24, shards=0, gpu=False))

    assert life.job_names() == ["plan", "publish"]


def test_a_published_dataset_is_ready_and_shows_its_uri() -> None:
    life = a_life().until_published()

    status, reason, message = life.ready()
    assert (status, reason) == ("True", "Published")
    assert "24 samples, 30 instances at s3://pictures/vision/shapes" in message
    assert life.status.dataset is not None
    assert life.status.dataset.revision == life.status.revision
    samples = life.status.stages[0].samples
    assert (samples.accepted, samples.rejected) == (24, 0), "of which the publish step says nothing where there is none"
    assert life.shown() == ("", "24/24", "Published")


def test_at_rest_nothing_is_done_and_the_status_stays_unchanged() -> None:
    life = a_life().until_published()
    before = life.raw["status"]

    decision = life.later(3600).turn()

    assert decision.actions == []
    assert decision.reconcile_after is None
    assert life.raw["status"] == before


def test_recorded_work_is_not_repeated_when_its_job_was_collected() -> None:
    life = a_life("base", "more").until_drawing(a_plan("base"), a_plan("more"))
    life.job_completes("base").settle()

    life.collected("plan").collected("base").settle()

    assert life.job_names() == ["more"]


def test_a_published_dataset_survives_the_loss_of_all_its_jobs() -> None:
    life = a_life().until_published()

    life.collected("plan").collected("base").collected("publish").settle()

    assert life.job_names() == []
    assert life.ready()[0] == "True"


def test_a_stage_that_only_labels_needs_no_gpu() -> None:
    life = a_life().until_drawing(a_plan("base", gpu=False))

    (container,) = life.job("base")["spec"]["template"]["spec"]["containers"]
    assert "nvidia.com/gpu" not in str(container["resources"])
    assert life.shown() == ("base", "0/24", "Labelling")


def test_a_running_pod_is_asked_for_its_progress_again_and_a_stage_without_one_is_not() -> None:
    life = a_life().until_drawing()
    assert life.turn().reconcile_after == 61, "an event tells when a pod is there; a missing one is reported"

    life.pod_starts("base")
    assert life.turn().reconcile_after not in {None, life.settings.scrape_interval}

    life.pod_runs("base", "0")
    assert life.turn().reconcile_after == life.settings.scrape_interval


def test_a_job_deleted_by_hand_is_created_again_once_it_is_gone() -> None:
    life = a_life().until_drawing()
    life.job("base")["metadata"]["deletionTimestamp"] = life.now.isoformat()

    life.settle()
    assert life.shown() == ("base", "0/24", "FormerJobStopping")

    life.stopped().settle()
    assert life.job_names() == ["base", "plan"]
    assert life.shown() == ("base", "0/24", "Drawing")


def test_a_dataset_that_is_being_deleted_is_left_to_kubernetes() -> None:
    life = a_life().until_drawing()
    before = life.raw["status"]

    decision = life.delete().turn()

    assert decision.actions == ()
    assert life.raw["status"] == before
