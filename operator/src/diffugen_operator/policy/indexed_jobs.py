"""What is read of an Indexed Job: how many of its shards are done, and why it failed."""

from __future__ import annotations

from diffugen_api.v1alpha1 import ShardStatus
from diffugen_operator import reasons
from diffugen_operator.observed.base import Trouble
from diffugen_operator.observed.jobs import Job
from diffugen_operator.observed.progress import parse_indexes
from diffugen_operator.observed.situation import Observed
from diffugen_operator.policy.job_state import Failed
from diffugen_operator.policy.pod_troubles import deadline_message, last_failure
from diffugen_operator.status.conditions import cut


def shard_status(job: Job, total: int) -> ShardStatus:
    """Return how many of a Job's `total` shards are done and how many failed."""
    return ShardStatus(
        total=total,
        succeeded=min(total, _count(job.completed_indexes)),
        failed=min(total, _count(job.failed_indexes)),
    )


def _count(indexes: str) -> int:
    return len({index for span in parse_indexes(indexes) for index in span})


def failure_of(failed: Failed, what: str, otherwise: str, observed: Observed) -> Trouble:
    """Return why an Indexed Job failed: `what` are its shards of; `otherwise` is the reason if none else is known."""
    job, why = failed.job, failed.failure
    last = last_failure(observed.pods_of(job))
    reported = last.message if last is not None else why.message
    if why.reason == reasons.DEADLINE_EXCEEDED:
        return Trouble(reason=reasons.DEADLINE_EXCEEDED, message=deadline_message(job, last))
    if why.reason in ("FailedIndexes", "MaxFailedIndexesExceeded"):
        message = f"Shards {cut(job.failed_indexes, 64)} of {what} failed; the last failure: {reported}"
        return Trouble(reason=reasons.SHARDS_FAILED, message=message)
    return Trouble(reason=(last.reason if last else "") or otherwise, message=reported)
