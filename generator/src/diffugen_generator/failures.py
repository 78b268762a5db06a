"""How work fails: one exception for each answer that a person or a Job can act upon.

Every failure carries what the operator needs (`reason`, CamelCase, a condition's reason; `exit_code`, what
the Job does about it) and what a person needs (the message: which field, what is wrong with it, what would
mend it).
`diffugen_api.plan.SpecError` is the failure of specs; it lives with the API.
"""

from __future__ import annotations

from diffugen_api.contract import REASON_INCOMPLETE, ExitCode


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message: libraries put tables and traces behind it."""
    return next(iter(str(error).splitlines()), "")


class Failure(Exception):  # noqa: N818 - the family's name, its members say what failed
    """Base of all failures that have an answer; anything else is a crash."""

    reason = "Failed"
    exit_code = ExitCode.TRY_AGAIN


class StoreFailure(Failure):
    """Base of what can be wrong with a store."""

    reason = "StoreFailed"


class Missing(StoreFailure):
    """There is no object under this key."""

    reason = "ObjectMissing"

    def __init__(self, key: str, where: str = "the store") -> None:
        """Keep the key, so that callers can tell which of several was missing."""
        super().__init__(f"{where} has no {key}")
        self.key = key


class StoreUnreachable(StoreFailure):
    """The store does not answer, or answers that it is ill: worth another try."""

    reason = "StoreUnreachable"


class StoreRefused(StoreFailure):
    """The store refuses our credentials: no use in trying again with the same ones."""

    reason = "StoreCredentialsRefused"
    exit_code = ExitCode.REFUSED


class BucketMissing(StoreFailure):
    """The bucket does not exist; making buckets is not ours to do."""

    reason = "BucketNotFound"
    exit_code = ExitCode.BAD_SPEC


class StoreMisconfigured(StoreFailure):
    """The store answers, but the spec's way of speaking to it cannot work (region, scheme, not S3 at all)."""

    reason = "StoreMisconfigured"
    exit_code = ExitCode.BAD_SPEC


class UnknownDevice(Failure):
    """`--device` names what is not there."""

    reason = "UnknownDevice"
    exit_code = ExitCode.BAD_SPEC


class DeviceFailed(Failure):
    """The GPU failed, not the model: another try, perhaps on another node, may do."""

    reason = "DeviceFailed"


class BadShard(Failure):
    """A shard that cannot be read or worked on, while others can."""

    reason = "BadShard"
    exit_code = ExitCode.BAD_SHARD


class Incomplete(Failure):
    """A step found that the step before it has not finished: planning again finds what is missing."""

    reason = REASON_INCOMPLETE
    exit_code = ExitCode.BAD_SHARD


class NotTheirs(Failure):
    """What is to be deleted is, or may be, another dataset's."""

    reason = "NotThisDataset"
    exit_code = ExitCode.BAD_SPEC


class Interrupted(Failure):
    """SIGTERM: what was in hand is in the store, the rest is for the next try."""

    reason = "Interrupted"


class ModelUnreachable(Failure):
    """Where a model is kept does not answer, or broke off: worth another try."""

    reason = "ModelUnreachable"


class ModelRefused(Failure):
    """A model may not be read with the credentials that there are."""

    reason = "ModelCredentialsRefused"
    exit_code = ExitCode.REFUSED


class CacheUnusable(Failure):
    """The model cache cannot be written to."""

    reason = "ModelCacheUnusable"
    exit_code = ExitCode.BAD_SPEC
