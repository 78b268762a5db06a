"""Failures: one exception for each kind of error that a person or a Job can act on.

A failure has two fields for the operator: `reason` (CamelCase, the reason of a condition) and `exit_code` (it
decides what the Job does next). Its message is for people: it names the field, the error and the fix.
The failure of an invalid spec is `SpecError`, in the API package.
"""

from __future__ import annotations

from collections.abc import Sequence

from diffugen_api.contract import REASON_INCOMPLETE, ExitCode
from diffugen_api.errors import shortened


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message; some libraries append tables and traces."""
    return next(iter(str(error).splitlines()), "")


class Failure(Exception):  # noqa: N818 - the base class; the names of its subclasses say what failed
    """Base of all failures that a person or a Job can act on; any other exception is a crash."""

    reason = "Failed"
    exit_code = ExitCode.TRY_AGAIN

    def __init__(self, *arguments: object) -> None:
        """Keep a message of bounded length."""
        super().__init__(*(shortened(each) if isinstance(each, str) else each for each in arguments))


class StoreFailure(Failure):
    """Base of all failures of a store."""

    reason = "StoreFailed"


class Missing(StoreFailure):
    """The store has no object with this key."""

    reason = "ObjectMissing"

    def __init__(self, key: str, where: str = "the store") -> None:
        """Keep the key, so that callers know which object is missing."""
        super().__init__(f"{where} has no {key}")
        self.key = key


class StoreUnreachable(StoreFailure):
    """The store does not answer, or reports an error of its own: a later try can succeed."""

    reason = "StoreUnreachable"


class StoreRefused(StoreFailure):
    """The store refuses the credentials: another try with the same ones fails too."""

    reason = "StoreCredentialsRefused"
    exit_code = ExitCode.REFUSED


class ClockSkewed(StoreFailure):
    """The store refuses signatures because this machine's clock is wrong: a later try, on another node, can succeed."""

    reason = "ClockSkewed"


class BucketMissing(StoreFailure):
    """The bucket does not exist; DiffuGen creates no buckets."""

    reason = "BucketNotFound"
    exit_code = ExitCode.BAD_SPEC


class StoreMisconfigured(StoreFailure):
    """The store answers, but the settings in the spec are wrong: region, scheme, or it is not an S3 store."""

    reason = "StoreMisconfigured"
    exit_code = ExitCode.BAD_SPEC


class UnknownDevice(Failure):
    """`--device` names a device that does not exist."""

    reason = "UnknownDevice"
    exit_code = ExitCode.BAD_SPEC


class DeviceFailed(Failure):
    """The GPU failed, not the model: another try can succeed, perhaps on another node."""

    reason = "DeviceFailed"


class BadShard(Failure):
    """This shard cannot be read or processed; other shards can."""

    reason = "BadShard"
    exit_code = ExitCode.BAD_SHARD


class Incomplete(Failure):
    """The step before this one has not finished; planning again finds what is missing."""

    reason = REASON_INCOMPLETE
    exit_code = ExitCode.BAD_SHARD


class Damaged(Incomplete):
    """A stored object is damaged: truncated, swapped with another, or changed. It counts as missing."""

    def __init__(self, key: str, why: str, *, keys: Sequence[str] = ()) -> None:
        """Keep the key of the object, what is wrong, and the keys to delete so that it is made again (its own)."""
        super().__init__(f"{key} is damaged ({why}); it counts as missing: plan again to have it made again")
        self.key = key
        self.why = why
        self.keys = tuple(keys) or (key,)


class NotTheirs(Failure):
    """The objects to delete belong, or may belong, to another dataset."""

    reason = "NotThisDataset"
    exit_code = ExitCode.BAD_SPEC


class Interrupted(Failure):
    """SIGTERM or Ctrl-C stopped the work; finished samples are in the store, and the next try does the rest."""

    reason = "Interrupted"


class ModelUnreachable(Failure):
    """The server of a model does not answer, or the download broke off: a later try can succeed."""

    reason = "ModelUnreachable"


class ModelRefused(Failure):
    """The credentials do not allow reading a model."""

    reason = "ModelCredentialsRefused"
    exit_code = ExitCode.REFUSED


class CacheUnusable(Failure):
    """The model cache cannot be written to."""

    reason = "ModelCacheUnusable"
    exit_code = ExitCode.BAD_SPEC


class NotPublished(Failure):
    """There is no published dataset at a location."""

    reason = "NotPublished"
    exit_code = ExitCode.BAD_SPEC


class RevisionGone(Failure):
    """A revision that the pointer or the user names is not in the store any more."""

    reason = "RevisionGone"
    exit_code = ExitCode.BAD_SHARD


class FilesDamaged(Failure):
    """Published files differ from what their dataset says of them."""

    reason = "FilesDamaged"
    exit_code = ExitCode.BAD_SHARD
