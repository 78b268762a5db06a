"""A LabeledDataset as a value: its identity, its spec, and the status that was written last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from pydantic import ValidationError

from diffugen_api.contract import FINALIZER, RETRY_ANNOTATION
from diffugen_api.faults import faults_of, first_of
from diffugen_api.plan import revision_of, store_of
from diffugen_api.v1alpha1 import S3, LabeledDatasetSpec, LabeledDatasetStatus
from diffugen_operator import reasons
from diffugen_operator.manifests import pod_policy
from diffugen_operator.observed.base import Raw

RETRY_LENGTH = 64
"""The length limit of status.lastHandledRetryAt. Longer annotations are compared by their first characters."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The content of a valid spec."""

    spec: LabeledDatasetSpec
    revision: str
    store: str


@dataclass(frozen=True, slots=True)
class InvalidSpec:
    """A spec with which no run can begin, and the reason."""

    reason: str
    message: str


def read_spec(raw: Raw, default_store: S3 | None = None, *, restricted: bool = False) -> Wanted | InvalidSpec:
    """Read a dataset's spec, with the default store where it names none; or return what is wrong with it.

    `restricted`: whether the pod template may have only the fields of `pod_policy`. If it has others, a dataset that is
    being deleted has none: its objects are deleted all the same.
    """
    data = raw.get("spec") or {}
    try:
        spec = LabeledDatasetSpec.model_validate(data)
    except ValidationError as error:
        return InvalidSpec(reasons.INVALID_SPEC, first_of(faults_of(error, LabeledDatasetSpec, data, path="spec")))
    if restricted and (fault := pod_policy.fault_of(spec.run.pod_template)) is not None:
        if not is_deleting(raw):
            return InvalidSpec(reasons.INVALID_POD_TEMPLATE, fault)
        spec = spec.model_copy(update={"run": spec.run.model_copy(update={"pod_template": {}})})
    if spec.output.s3 is None and default_store is not None:
        spec = spec.model_copy(update={"output": spec.output.model_copy(update={"s3": default_store})})
    if spec.output.s3 is None:
        message = (
            "spec.output.s3 is not set, and the operator has no default store: name the endpoint and the bucket that "
            "the dataset goes to."
        )
        return InvalidSpec(reasons.STORE_NOT_SET, message)
    return Wanted(spec, revision_of(spec), store_of(spec))


def is_deleting(raw: Raw) -> bool:
    """Whether an object is being deleted, and only finalizers keep it."""
    return "deletionTimestamp" in raw["metadata"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A LabeledDataset."""

    namespace: str
    name: str
    uid: str
    generation: int
    version: str
    """Its resourceVersion."""
    deleting: bool
    finalizers: tuple[str, ...]
    retry_at: str
    """The retry annotation; empty if there is none."""
    wanted: Wanted | InvalidSpec
    status: LabeledDatasetStatus
    unreadable: tuple[str, ...] = ()
    """The fields of its status that somebody else, or a later version, wrote so that they cannot be read."""

    @property
    def restored(self) -> bool:
        """Whether the status is that of another resource, as after a restore from a backup."""
        return self.status.resource_uid not in ("", self.uid)

    @property
    def has_our_finalizer(self) -> bool:
        """Whether our finalizer keeps it."""
        return FINALIZER in self.finalizers

    @classmethod
    def read(cls, raw: Raw, wanted: Wanted | InvalidSpec) -> Self:
        """Read the API object; `wanted` is its spec, read before."""
        metadata = raw["metadata"]
        status, unreadable = read_status(raw.get("status") or {})
        return cls(
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata["uid"],
            generation=metadata.get("generation", 0),
            version=metadata["resourceVersion"],
            deleting=is_deleting(raw),
            finalizers=tuple(metadata.get("finalizers") or ()),
            retry_at=(metadata.get("annotations") or {}).get(RETRY_ANNOTATION, "")[:RETRY_LENGTH],
            wanted=wanted,
            status=status,
            unreadable=unreadable,
        )


def read_status(data: Raw) -> tuple[LabeledDatasetStatus, tuple[str, ...]]:
    """Read a status, and return the paths of the values in it that cannot be read; their fields count as absent."""
    try:
        return LabeledDatasetStatus.model_validate(data), ()
    except ValidationError as error:
        faults = [fault["loc"] for fault in error.errors(include_url=False)]
    absent = {path[0] for path in faults}
    status = LabeledDatasetStatus.model_validate({key: value for key, value in data.items() if key not in absent})
    return status, tuple(dict.fromkeys(_place(path) for path in faults))


def _place(path: tuple[int | str, ...]) -> str:
    return "status" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
