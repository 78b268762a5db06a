"""A worker's termination message, checked with the bounds of the status fields that store its values.

A pod runs an image that the operator does not know, so the message can contain anything. A message that the status
could not hold is ignored.
"""

from __future__ import annotations

import re

from pydantic import ValidationError

from diffugen_api.contract import Outcome, Published
from diffugen_api.v1alpha1 import DatasetStatus, HistoryEntry
from diffugen_operator.observed.base import read_time

MOST_HISTORY = 10
"""How many former revisions the status can hold."""

_REASON = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]{0,61}[A-Za-z0-9_])?")
"""What the API allows as a condition's reason."""

_ANY_TIME = "1970-01-01T00:00:00Z"
"""In place of the time of a step's end, which is not known yet."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


def read_outcome(text: str | None) -> Outcome | None:
    """Return the result that a termination message holds; None if it holds none that the status can hold."""
    outcome = Outcome.loads(text)
    if outcome is None or not _REASON.fullmatch(outcome.reason):
        return None
    return outcome if outcome.published is None or _fits(outcome.published) else None


def dataset_of(result: Published, at: str) -> DatasetStatus:
    """Return the status of a published dataset; `at` is when the step ended, used if the worker reports no time."""
    return DatasetStatus(
        uri=result.uri,
        revision=result.revision,
        samples=result.samples,
        instances=result.instances,
        manifest_sha256=result.manifest_sha256,
        published_at=result.published_at or at,
    )


def history_of(result: Published) -> list[HistoryEntry]:
    """Return the revisions that were published before, as the status has them."""
    beside = result.uri.rpartition("/")[0]
    return [
        HistoryEntry(
            revision=former.revision,
            uri=f"{beside}/{former.folder}",
            published_at=former.published_at,
            samples=former.samples,
        )
        for former in result.history[:MOST_HISTORY]
    ]


def _fits(result: Published) -> bool:
    try:
        dataset_of(result, _ANY_TIME)
        history_of(result)
    except ValidationError:
        return False
    times = [former.published_at for former in result.history] + ([result.published_at] if result.published_at else [])
    return bool(_SHA256.fullmatch(result.manifest_sha256)) and all(read_time(time) is not None for time in times)
