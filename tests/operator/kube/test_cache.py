"""The cache of cluster objects: the newer version wins, and lists restore what watches missed."""

from __future__ import annotations

from typing import Any

import pytest

from diffugen_operator.kube.cache import Cache, Resource
from diffugen_operator.kube.dataset_events import Inbox
from diffugen_operator.kube.work_queue import Key, WorkQueue
from tests.operator.lives import a_raw_dataset

KEY = Key("vision", "shapes")
DATASETS, JOBS, PODS = Resource.DATASETS, Resource.JOBS, Resource.PODS


def a_dataset(version: int = 1, **metadata: Any) -> dict[str, Any]:
    raw = a_raw_dataset()
    raw["metadata"] |= {"resourceVersion": str(version), **metadata}
    return raw


def a_child(name: str, owner: str, kind: str, version: int = 1, uid: str = "") -> dict[str, Any]:
    reference = {"kind": kind, "name": owner, "uid": f"uid-of-{owner}", "controller": True}
    return {
        "metadata": {
            "namespace": "vision",
            "name": name,
            "uid": uid or f"uid-of-{name}",
            "resourceVersion": str(version),
            "ownerReferences": [reference],
        },
        "spec": {
            "suspend": True,
            "parallelism": 2,
            "template": {"spec": {"containers": [{"name": "generator", "args": ["much"]}]}},
        },
        "status": {"active": 1},
    }


def a_job(name: str = "j", version: int = 1, uid: str = "") -> dict[str, Any]:
    return a_child(name, "shapes", "LabeledDataset", version, uid)


def a_pod(name: str = "p", job: str = "j", version: int = 1) -> dict[str, Any]:
    return a_child(name, job, "Job", version)


def test_an_older_or_equal_version_is_not_a_change() -> None:
    cache = Cache()

    assert cache.put(DATASETS, a_dataset(5))
    assert not cache.put(DATASETS, a_dataset(5))
    assert not cache.put(DATASETS, a_dataset(4))
    assert cache.put(DATASETS, a_dataset(6, generation=2))


def test_fields_that_the_operator_does_not_use_are_not_a_change() -> None:
    cache = Cache()
    cache.put(JOBS, a_job(version=1))
    counted = a_job(version=2) | {"status": {"active": 2, "ready": 1, "uncountedTerminatedPods": {"succeeded": ["x"]}}}
    failed = a_job(version=3) | {"status": {"failed": 1}}
    cache.put(PODS, a_pod(version=4))
    tracked = a_pod(version=5)
    tracked["metadata"]["finalizers"] = ["batch.kubernetes.io/job-tracking"]

    assert not cache.put(JOBS, counted)
    assert cache.jobs_of(KEY, "uid-of-shapes")[0]["metadata"]["resourceVersion"] == "2"
    assert cache.put(JOBS, failed)
    assert not cache.put(PODS, tracked)


def test_children_are_found_by_their_owners() -> None:
    cache = Cache()
    for resource, obj in ((DATASETS, a_dataset()), (JOBS, a_job()), (PODS, a_pod())):
        cache.put(resource, obj)

    assert [job["metadata"]["name"] for job in cache.jobs_of(KEY, "uid-of-shapes")] == ["j"]
    assert cache.jobs_of(KEY, "uid of a namesake") == []
    assert [pod["metadata"]["name"] for pod in cache.pods_of("vision", "j")] == ["p"]
    assert cache.key_of(PODS, a_pod()) == KEY


def test_a_pod_whose_job_is_not_known_yet_has_no_dataset_yet() -> None:
    assert Cache().key_of(PODS, a_pod()) is None


def uids(cache: Cache) -> list[str]:
    return [job["metadata"]["uid"] for job in cache.jobs_of(KEY, "uid-of-shapes")]


def test_a_newer_object_of_the_same_name_and_another_uid_replaces_the_old_one() -> None:
    cache = Cache()
    cache.put(JOBS, a_job(version=3))

    assert cache.put(JOBS, a_job(version=9, uid="another"))
    cache.drop(JOBS, a_job(version=8))
    assert uids(cache) == ["another"]


def test_an_older_object_of_another_uid_does_not_replace_a_newer_one() -> None:
    cache = Cache()
    cache.put(JOBS, a_job(version=9, uid="another"))

    assert not cache.put(JOBS, a_job(version=3))
    cache.put_page(JOBS, [a_job(version=3)], requested=0)  # from a list that had started before
    assert uids(cache) == ["another"]


@pytest.mark.parametrize("known", [True, False])
def test_an_answer_from_before_a_deletion_does_not_restore_the_object(known: bool) -> None:
    cache = Cache()
    if known:
        cache.put(JOBS, a_job(version=5))
    requested = cache.mark()
    cache.drop(JOBS, a_job(version=8))

    cache.put_page(JOBS, [a_job(version=5)], requested=requested)
    assert not cache.put(JOBS, a_job(version=7))
    assert uids(cache) == []

    assert cache.put(JOBS, a_job(version=9, uid="another"))
    assert uids(cache) == ["another"]


def test_an_object_that_the_operator_deleted_is_not_restored_either() -> None:
    cache = Cache()
    cache.put(JOBS, a_job(version=5))
    cache.drop(JOBS, {"metadata": {"namespace": "vision", "name": "j", "uid": "uid-of-j"}})

    assert not cache.put(JOBS, a_job(version=5))


def test_the_memory_of_deleted_objects_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffugen_operator.kube.cache.MOST_GONE", 2)
    cache = Cache()
    for name in ("a", "b", "c"):
        cache.drop(JOBS, a_job(name, version=8))

    assert [cache.put(JOBS, a_job(name, version=5)) for name in ("a", "b", "c")] == [True, False, False]


def test_a_list_adds_what_a_watch_missed_and_keeps_newer_objects() -> None:
    cache = Cache()
    cache.put(JOBS, a_job("gone", 3))
    requested = cache.mark()
    cache.put(JOBS, a_job("new", 12))
    cache.put(JOBS, a_job("new-and-gone", 9))

    listed = cache.put_page(JOBS, [a_job("listed", 5)], requested=requested)
    cache.keep_listed(JOBS, "vision", listed, version=10, requested=requested)
    cache.keep_listed(JOBS, "audio", set(), version=99, requested=cache.mark())

    assert sorted(job["metadata"]["name"] for job in cache.jobs_of(KEY, "uid-of-shapes")) == ["listed", "new"]


def test_a_list_replaces_what_was_known_before_it_at_any_version() -> None:
    """etcd was restored from a snapshot: the versions of all objects are lower than before."""
    cache = Cache()
    cache.put(DATASETS, a_dataset(90, generation=4))
    cache.put(JOBS, a_job("edited", 91))
    cache.put(JOBS, a_job("later", 92))
    cache.put(JOBS, a_job("deleted", 93))
    cache.drop(JOBS, a_job("deleted", 94))

    requested = cache.mark()
    edited = a_job("edited", 31) | {"status": {"failed": 1}}
    listed = cache.put_page(JOBS, [edited, a_job("deleted", 30)], requested=requested)
    cache.keep_listed(JOBS, None, listed, version=40, requested=requested)
    cache.put_page(DATASETS, [a_dataset(32, generation=2)], requested=requested)

    jobs = {job["metadata"]["name"]: job for job in cache.jobs_of(KEY, "uid-of-shapes")}
    assert sorted(jobs) == ["deleted", "edited"]
    assert jobs["edited"]["status"] == {"failed": 1}
    assert (cache.dataset(KEY) or {})["metadata"]["generation"] == 2
    assert cache.put(DATASETS, a_dataset(41, generation=3)), "an edit after the restore"


def test_objects_received_during_a_list_are_compared_by_version() -> None:
    cache = Cache()
    cache.put(JOBS, a_job(version=5))
    requested = cache.mark()
    cache.put(JOBS, a_job(version=9) | {"status": {"failed": 1}})  # written by the operator itself

    cache.put_page(JOBS, [a_job(version=6)], requested=requested)

    assert cache.jobs_of(KEY, "uid-of-shapes")[0]["status"] == {"failed": 1}


def test_only_fields_that_the_operator_uses_are_kept() -> None:
    cache = Cache()
    last_applied = {"kubectl.kubernetes.io/last-applied-configuration": "{…}", "mine": "x"}
    cache.put(DATASETS, a_dataset(managedFields=["many"], annotations=last_applied))
    cache.put(JOBS, a_job())

    kept = cache.dataset(KEY)
    assert kept is not None
    assert "managedFields" not in kept["metadata"]
    assert kept["metadata"]["annotations"] == {"mine": "x"}
    assert cache.jobs_of(KEY, "uid-of-shapes")[0]["spec"] == {
        "suspend": True,
        "parallelism": 2,
        "suspendedBy": "",
        "order": "",
    }


async def test_events_queue_the_dataset_and_repetitions_do_not() -> None:
    seconds = 0.0
    cache = Cache()
    queue = WorkQueue(clock=lambda: seconds, backoff_base=1, backoff_limit=1)
    inbox = Inbox(cache, queue)

    inbox.take(DATASETS, None, a_dataset())
    inbox.take(JOBS, "ADDED", a_job())
    inbox.take(PODS, "ADDED", a_pod())
    assert await queue.take() == KEY
    queue.done(KEY)

    inbox.take(PODS, "MODIFIED", a_pod())
    assert queue.schedule.depth() == 0

    inbox.take(PODS, "DELETED", a_pod())
    assert cache.pods_of("vision", "j") == []
    assert queue.schedule.depth() == 0, "what pods say is waited for a moment"
    seconds = 1.0
    assert await queue.take() == KEY


async def test_a_pod_that_succeeded_waits_for_its_job_and_one_that_failed_does_not() -> None:
    seconds, cache = 0.0, Cache()
    queue = WorkQueue(clock=lambda: seconds, backoff_base=1, backoff_limit=1)
    inbox = Inbox(cache, queue)
    cache.put(JOBS, a_job())

    inbox.take(PODS, "MODIFIED", a_pod(version=2) | {"status": {"phase": "Succeeded"}})
    assert queue.schedule.next_due() is None
    assert [pod["status"] for pod in cache.pods_of("vision", "j")] == [{"phase": "Succeeded"}]

    inbox.take(PODS, "MODIFIED", a_pod("q", version=3) | {"status": {"phase": "Failed"}})
    assert queue.schedule.next_due() is not None
    seconds = 1.0
    assert await queue.take() == KEY
    queue.done(KEY)

    inbox.take(PODS, "DELETED", a_pod(version=4) | {"status": {"phase": "Succeeded"}})
    assert queue.schedule.next_due() is not None


def test_only_conditions_of_a_job_that_decisions_read_are_a_change() -> None:
    def with_conditions(version: int, *kinds: str) -> dict[str, Any]:
        conditions = [{"type": kind, "status": "True", "lastProbeTime": "x"} for kind in kinds]
        return a_job(version=version) | {"status": {"conditions": conditions, "succeeded": version}}

    cache = Cache()
    cache.put(JOBS, a_job(version=1))

    assert not cache.put(JOBS, with_conditions(2, "SuccessCriteriaMet"))
    assert cache.put(JOBS, with_conditions(3, "SuccessCriteriaMet", "Complete"))
    kept = cache.jobs_of(KEY, "uid-of-shapes")[0]["status"]["conditions"]
    assert kept == [{"type": "Complete", "status": "True"}]


def test_the_true_conditions_of_datasets_are_counted() -> None:
    def with_status(name: str, version: int, ready: str) -> dict[str, Any]:
        conditions = [{"type": "Ready", "status": ready}, {"type": "Queued", "status": "True"}]
        return a_dataset(version, name=name) | {"status": {"conditions": conditions}}

    cache = Cache()
    cache.put(DATASETS, with_status("a", 1, "False"))
    cache.put(DATASETS, with_status("b", 2, "True"))
    assert cache.true_conditions() == {"Ready": 1, "Queued": 2}

    cache.put(DATASETS, with_status("a", 3, "True"))
    cache.drop(DATASETS, with_status("b", 4, "True"))
    assert cache.true_conditions() == {"Ready": 1, "Queued": 1}


def test_a_dataset_with_a_number_beyond_64_bits_is_kept() -> None:
    cache, raw = Cache(), a_dataset()
    raw["spec"]["run"] = {"podTemplate": {"metadata": {"annotations": {"n": 10**20}}}}

    assert cache.put(DATASETS, raw)
    kept = cache.dataset(KEY)
    assert kept is not None
    assert kept["spec"]["run"]["podTemplate"]["metadata"]["annotations"]["n"] == 10**20


def test_what_a_reader_changes_does_not_change_the_cache() -> None:
    cache = Cache()
    cache.put(DATASETS, a_dataset(7))
    first = cache.dataset(KEY)
    assert first is not None
    first["spec"].clear()

    again = cache.dataset(KEY)
    assert again is not None
    assert again["spec"] == a_dataset()["spec"]
    assert again["metadata"]["resourceVersion"] == "7"


def test_the_manager_of_suspend_is_kept_and_other_managers_are_not() -> None:
    def entry(manager: str, second: int, **fields: Any) -> dict[str, Any]:
        return {"manager": manager, "time": f"2026-11-22T12:00:{second:02d}Z", "fieldsV1": {"f:spec": fields}}

    def held_by(*entries: dict[str, Any]) -> str:
        cache, job = Cache(), a_job()
        job["metadata"] |= {"managedFields": list(entries), "creationTimestamp": "2026-11-22T12:00:01Z"}
        cache.put(JOBS, job)
        found: str = cache.jobs_of(KEY, "uid-of-shapes")[0]["spec"]["suspendedBy"]
        return found

    ours = entry("diffugen-operator", 1, **{"f:suspend": {}})
    assert held_by(ours, entry("kueue", 2, **{"f:suspend": {}}), entry("kubectl", 3)) == "kueue"
    assert held_by(ours) == "", "a webhook suspended it at its creation"
    later = entry("diffugen-operator", 9, **{"f:suspend": {}})
    assert held_by(later) == "diffugen-operator", "an operator that set no mark suspended it"
    assert held_by(later, entry("kueue", 12, **{"f:suspend": {}})) == "kueue"


def test_of_a_pod_that_outlives_its_generator_the_time_of_the_last_change_is_kept() -> None:
    def changed_at(phase: str, **state: Any) -> Any:
        cache, pod = Cache(), a_pod()
        changes = [{"time": f"2026-11-22T12:00:0{second}Z"} for second in (1, 7, 3)]
        pod["metadata"]["managedFields"] = changes
        pod["status"] = {"phase": phase, "containerStatuses": [{"name": "generator", "state": state}]}
        cache.put(PODS, pod)
        return cache.pods_of("vision", "j")[0]["status"].get("changedAt")

    assert changed_at("Running", terminated={"exitCode": 0}) == "2026-11-22T12:00:07Z"
    assert changed_at("Running", running={}) is None, "so that other changes are none"
    assert changed_at("Succeeded", terminated={"exitCode": 0}) is None


def test_the_start_time_of_a_job_is_kept_and_is_not_a_change() -> None:
    cache = Cache()
    cache.put(JOBS, a_job(version=1))

    assert not cache.put(JOBS, a_job(version=2) | {"status": {"startTime": "2026-11-22T12:00:00Z"}})
    assert cache.jobs_of(KEY, "uid-of-shapes")[0]["status"] == {"startTime": "2026-11-22T12:00:00Z"}
