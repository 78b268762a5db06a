"""kopf is used only to transport events."""

from __future__ import annotations

from typing import Any

import kopf
import pytest

from diffugen_operator.kube.cache import Cache, Resource
from diffugen_operator.kube.connection import Connection
from diffugen_operator.kube.dataset_events import Inbox, kopf_settings, registry
from diffugen_operator.kube.work_queue import WorkQueue
from diffugen_operator.settings import Settings
from diffugen_operator.telemetry.metrics import Metrics
from tests.operator.lives import a_raw_dataset


@pytest.fixture
def handlers() -> kopf.OperatorRegistry:
    queue = WorkQueue(clock=lambda: 0.0, backoff_base=1, backoff_limit=1)
    return registry(Inbox(Cache(), queue), Connection(Settings(), Metrics().count_request))


def test_only_event_handlers_and_a_login_are_registered(handlers: kopf.OperatorRegistry) -> None:
    selectors = [handler.selector for handler in handlers._watching.get_all_handlers()]
    watching = [selector.any_name for selector in selectors if selector is not None]
    kinds = (handlers._changing, handlers._spawning, handlers._webhooks, handlers._indexing)

    assert [name for name in watching if isinstance(name, str)] == ["labeleddatasets"]
    assert [kind.get_all_handlers() for kind in kinds] == [[], [], [], []]


def test_kopf_posts_no_events_and_scans_no_other_crds() -> None:
    settings = kopf_settings(watch_silence=70)

    assert settings.posting.enabled is False
    assert settings.scanning.disabled is True


def test_kopfs_watch_has_the_same_inactivity_timeout_as_ours() -> None:
    assert kopf_settings(watch_silence=7).watching.inactivity_timeout == 7


def test_new_generations_come_before_running_work() -> None:
    queue = WorkQueue(clock=lambda: 0.0, backoff_base=1, backoff_limit=1)
    inbox = Inbox(Cache(), queue)
    for name, seen in (("under-way", 1), ("new", -1)):
        dataset = a_raw_dataset()
        dataset["metadata"] |= {"name": name, "uid": name, "generation": 1}
        dataset["status"] = dataset.get("status", {}) | {"observedGeneration": seen}
        inbox.take(Resource.DATASETS, "ADDED", dataset)

    taken = [queue.schedule.take(0), queue.schedule.take(0)]
    assert [key.name for key in taken if key is not None] == ["new", "under-way"]


def _a_job(*conditions: str) -> dict[str, Any]:
    of_dataset = {"kind": "LabeledDataset", "name": "shapes", "uid": "u", "controller": True, "apiVersion": "x/v1"}
    metadata = {"namespace": "vision", "name": "j", "uid": "j", "resourceVersion": "7", "ownerReferences": [of_dataset]}
    status = {"failed": 1, "conditions": [{"type": each, "status": "True"} for each in conditions]}
    return {"metadata": metadata, "spec": {}, "status": status}


@pytest.mark.parametrize(
    ("kind", "obj", "seconds"),
    [
        ("MODIFIED", _a_job(), 1),
        ("MODIFIED", _a_job("Suspended"), 1),
        ("MODIFIED", _a_job("FailureTarget"), 0),
        ("MODIFIED", _a_job("Failed"), 0),
        ("MODIFIED", _a_job("Complete"), 0),
        ("DELETED", _a_job(), 0),
    ],
)
def test_the_end_of_a_job_is_seen_at_once_and_its_counts_within_a_second(
    kind: str, obj: dict[str, Any], seconds: int
) -> None:
    now = 0.0
    queue = WorkQueue(clock=lambda: now, backoff_base=1, backoff_limit=1)

    Inbox(Cache(), queue).take(Resource.JOBS, kind, obj)

    assert (queue.schedule.depth(), queue.schedule.next_due()) == ((1, None) if seconds == 0 else (0, 1.0))


def test_a_status_that_was_written_is_looked_at_within_a_second_and_a_new_spec_at_once() -> None:
    queue = WorkQueue(clock=lambda: 0.0, backoff_base=1, backoff_limit=1)
    inbox = Inbox(Cache(), queue)
    dataset = a_raw_dataset()
    dataset["metadata"] |= {"generation": 2, "resourceVersion": "10"}
    dataset["status"] = dataset.get("status", {}) | {"observedGeneration": 2}
    inbox.take(Resource.DATASETS, "MODIFIED", dataset)
    assert (queue.schedule.depth(), queue.schedule.next_due()) == (0, 1.0)

    dataset["metadata"] |= {"generation": 3, "resourceVersion": "11"}
    inbox.take(Resource.DATASETS, "MODIFIED", dataset)
    assert queue.schedule.depth() == 1


async def test_kopf_keeps_no_state_on_any_object() -> None:
    raw: Any = a_raw_dataset()
    persistence, body, patch = kopf_settings(watch_silence=70).persistence, kopf.Body(raw), kopf.Patch()

    essence = persistence.diffbase_storage.build(body=body)
    persistence.diffbase_storage.store(body=body, patch=patch, essence=essence)
    persistence.progress_storage.touch(body=body, patch=patch, value="now")

    assert dict(patch) == {}
    assert persistence.diffbase_storage.fetch(body=body) is None
