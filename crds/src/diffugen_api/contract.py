"""The contract between operator and generator.

They never import one another. A pod gets its work as a file (the work order) and its shard as an environment variable.
Its results are an exit code and a short JSON message. All names that both sides use are defined here, once.
"""

from __future__ import annotations

import json
from enum import IntEnum, StrEnum
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator
from pydantic.alias_generators import to_camel

GROUP = "diffugen.dev"
VERSION = "v1alpha1"
PLURAL = "labeleddatasets"
KIND = "LabeledDataset"

RETRY_ANNOTATION = f"{GROUP}/retry-requested-at"
FINALIZER = f"{GROUP}/clean-up"
"""Keeps a dataset with `deletionPolicy: Delete` until its objects in the store are deleted; other datasets lack it."""

LABEL_DATASET = f"{GROUP}/dataset"
LABEL_STEP = f"{GROUP}/step"
LABEL_STAGE = f"{GROUP}/stage"
LABEL_REVISION = f"{GROUP}/revision"
LABEL_ATTEMPT = f"{GROUP}/attempt"
LABEL_QUEUE = "kueue.x-k8s.io/queue-name"
"""Kueue's own label, on Jobs: the LocalQueue in which they wait."""
LABEL_PRIORITY = "kueue.x-k8s.io/priority-class"
"""Kueue's own label, on Jobs: the WorkloadPriorityClass."""
ANNOTATION_MIN_PARALLELISM = "kueue.x-k8s.io/job-min-parallelism"
"""Kueue's own annotation, on Jobs: the fewest pods with which it may be admitted."""
ANNOTATION_SETUP = f"{GROUP}/setup"
"""On Jobs: a hash over the parts of the spec that the Job was built from and that cannot be changed in it."""
ANNOTATION_PARALLELISM = f"{GROUP}/parallelism"
"""On Jobs in a queue: `run.parallelism` when the Job was created."""
ANNOTATION_SUSPENDED = f"{GROUP}/suspended"
"""On Jobs that the operator suspended: it resumes only these."""
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY = "diffugen-operator"

ORDER_KEY = "order.json"
"""The key of the work order in its ConfigMap, and so the name of the mounted file."""
ORDER_KEY_COMPRESSED = "order.json.gz"
"""The key where the work order is compressed with gzip, because a ConfigMap could not hold it otherwise."""
MOST_ORDER_BYTES = 16 * 2**20
"""The most bytes of a work order; the API server takes no spec of a tenth of it."""
ORDER_MOUNT = "/etc/diffugen"

ENV_ORDER = "DIFFUGEN_ORDER"
"""Path of the work order inside the pod."""
ENV_ORDER_SHA256 = "DIFFUGEN_ORDER_SHA256"
"""SHA-256 of the work order (its text, before compression), in hexadecimal: a worker refuses any other order."""
ENV_POD_NAMESPACE = "DIFFUGEN_POD_NAMESPACE"
"""The pod's own namespace, from the downward API: a worker refuses an order for another one."""
ENV_DATASET = "DIFFUGEN_DATASET"
"""The dataset of the pod's Job: a worker refuses an order for another one."""
ENV_SAMPLES_PER_SHARD = "DIFFUGEN_SAMPLES_PER_SHARD"
"""`run.samplesPerShard`, if it is not the default. It can be edited during a run, but the work order cannot."""
ENV_MAX_PROMPT_BYTES = "DIFFUGEN_MAX_PROMPT_BYTES"
"""`prompts.maxBytes`, if it is not the default. It can be edited during a run too."""
ENV_REVISION_HISTORY_LIMIT = "DIFFUGEN_REVISION_HISTORY_LIMIT"
"""`revisionHistoryLimit`, if it is not the default. It can be edited during a run too."""
ENV_MODEL_CACHE = "DIFFUGEN_MODEL_CACHE"
"""Folder in which fetched models are kept."""
ENV_MODEL_IMAGES = "DIFFUGEN_MODEL_IMAGES"
"""The folders of the images of `oci://` addresses: `sha256:DIGEST=FOLDER`, separated by commas."""
MODEL_IMAGES_MOUNT = "/var/lib/diffugen/model-images"
"""In a pod, the folder of these folders."""
ENV_MODEL_VERIFY = "DIFFUGEN_MODEL_VERIFY"
"""`false`: fetched models are loaded without hashing their files again."""
CA_MOUNT = "/etc/diffugen-ca"
"""The folder of the CA certificates that pods trust, if the operator has any."""
CA_KEY = "ca.crt"
ENV_DEVICE = "DIFFUGEN_DEVICE"
"""The device of the models: cuda, cuda:1 or cpu; if absent, the GPU if there is one."""
ENV_DTYPE = "DIFFUGEN_DTYPE"
"""`run.dtype`, where it is not the default."""
ENV_BATCH_SIZE = "DIFFUGEN_BATCH_SIZE"
"""`run.batchSize`, where it is set."""
ENV_COMPILE = "DIFFUGEN_COMPILE"
"""`true` with `run.compile`."""
MODEL_CACHE_MOUNT = "/var/cache/diffugen"
ENV_POD_IP = "DIFFUGEN_POD_IP"
"""The pod's own address, from the downward API; metrics are served there and nowhere else."""
ENV_TERMINATION_LOG = "DIFFUGEN_TERMINATION_LOG"
"""Path of the termination message; if unset, the kubelet's default path."""
ENV_SHARD = "JOB_COMPLETION_INDEX"
"""The index of the shard, set by the Job controller for Indexed Jobs."""
ENV_ACCESS_KEY = "AWS_ACCESS_KEY_ID"
ENV_SECRET_KEY = "AWS_SECRET_ACCESS_KEY"  # noqa: S105 - a name, not a secret
ENV_SESSION_TOKEN = "AWS_SESSION_TOKEN"  # noqa: S105 - a name, not a secret

DEFAULT_TERMINATION_LOG = "/dev/termination-log"
METRICS_PORT = 9108
METRIC_SHARD_SAMPLES = "diffugen_shard_samples"
"""Gauge: how many samples this pod's shard has to do."""
METRIC_SHARD_DONE = "diffugen_shard_samples_done"
"""Gauge: how many of them are done (drawn if needed, labeled, uploaded)."""
METRIC_IMAGES_DRAWN = "diffugen_images_drawn_total"
"""Counter: images that the diffusion model drew in this pod."""

TERMINATION_MESSAGE_BYTES = 4096
"""The kubelet cuts a container's termination message at this size (and all messages of a pod at 12 kB)."""

MAX_SHARDS = 10_000
"""The most indexes of one Job. With more than 100,000 completions a Job may not run more than 10,000 in parallel. This
limit is far lower, so that `completedIndexes` remains a short string."""


class Step(StrEnum):
    """The steps of a run, and the clean-up after the last; each is one Job (a stage step: one for each stage)."""

    PLAN = "plan"
    STAGE = "stage"
    PUBLISH_SHARD = "publish-shard"
    """Publishes a part of a large dataset; `PUBLISH` joins the parts then."""
    PUBLISH = "publish"
    DELETE = "delete"


class ExitCode(IntEnum):
    """The exit codes of a worker, and what its Job does.

    The numbers are those of sysexits.h where one fits (EX_USAGE, EX_DATAERR, EX_TEMPFAIL, EX_NOPERM). Any other
    non-zero code is a crash, and the index is retried within `run.backoffLimitPerShard`.
    """

    DONE = 0
    BAD_SPEC = 64
    """The spec or the model cannot work; a retry would not help: the Job fails."""
    BAD_SHARD = 65
    """Only this shard cannot work: its index fails, the others continue."""
    TRY_AGAIN = 75
    """The environment failed (store unreachable, out of memory, SIGTERM): the index is retried."""
    REFUSED = 77
    """The store or the model refused our credentials: the Job fails."""


class Message(BaseModel):
    """Base of all messages between pod and operator: camelCase JSON, unknown fields ignored.

    Unknown fields are ignored, not refused, so that an operator understands pods of the next release.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")


MOST_SAMPLES = 10**12
"""Upper bound of every number in a message; far below the limit of the API server (64 bits)."""

Count = Annotated[int, Field(ge=0, le=MOST_SAMPLES)]


class StagePlan(Message):
    """What the plan step found for one stage."""

    name: str
    total: Count = Field(description="Samples that the spec asks for.")
    reused: Count = Field(description="Of these, how many are complete already, or skipped.")
    skipped: Count = Field(
        default=0,
        description="Of the reused ones, how many cannot be drawn: their source is rejected or has no label.",
    )
    draw: Count = Field(description="Images to draw.")
    relabel: Count = Field(description="Images that exist but need new labels.")
    shards: int = Field(ge=0, le=MAX_SHARDS, description="Indexes of the stage's Job; 0 means no work.")
    gpu: bool = Field(description="Whether any shard runs a model; deciding labels again does not.")

    @model_validator(mode="after")
    def _reuses_no_more_than_there_is(self) -> Self:
        if self.reused > self.total:
            raise ValueError("reused is more than total")
        return self


class ShardCounts(Message):
    """What one shard did, in samples."""

    total: int = 0
    drawn: int = 0
    seen: int = 0
    """Samples on which a model looked for evidence (attention maps, detections)."""
    labelled: int = 0
    reused: int = 0
    """Samples that were complete when the shard began, for example after a restart."""
    skipped: int = 0
    """Samples that cannot be drawn: their source is rejected, or has no object of the class to replace."""

    @property
    def done(self) -> int:
        """Samples that need nothing more."""
        return self.labelled + self.reused + self.skipped

    def __add__(self, other: ShardCounts) -> ShardCounts:
        """Return the counts of two shards together."""
        return ShardCounts(**{name: getattr(self, name) + getattr(other, name) for name in ShardCounts.model_fields})


MOST_WARNING = 300
"""The most characters of one warning in an outcome."""
MOST_WARNINGS = 5
"""The most warnings in an outcome: they share the termination message with the plan."""

REASON_INCOMPLETE = "Incomplete"
"""A publish step's reason if planned objects are missing in the store: a new plan finds what is missing."""


class FormerRevision(Message):
    """A revision that was published earlier and is still in the store."""

    folder: Annotated[str, StringConstraints(max_length=63)]
    """The name of its folder, in the same place as the current one: the revision, and in some cases a content hash."""
    published_at: str
    samples: Count

    @property
    def revision(self) -> str:
        """The revision."""
        return self.folder.partition("-")[0]


class Published(Message):
    """The dataset that a publish step completed."""

    uri: str
    revision: str
    samples: Count
    """Accepted samples: those that are in the dataset."""
    rejected: Count
    instances: Count
    manifest_sha256: Annotated[str, Field(alias="manifestSHA256")]
    accepted_by_stage: dict[str, Count] = Field(default_factory=dict)
    rejected_by_stage: dict[str, Count] = Field(default_factory=dict)
    published_at: str = ""
    """When the pointer was moved to it."""
    history: list[FormerRevision] = Field(default_factory=list)
    """Earlier revisions that are kept, the latest first."""


class Outcome(Message):
    """The result of a worker: its termination message.

    `reason` is CamelCase and becomes a condition's reason; `message` is one sentence for a person, naming the
    field and the fix if the spec is at fault.
    """

    reason: str
    message: str = ""
    ok: bool = False
    """Whether the step succeeded, whatever the reason."""
    plan: list[StagePlan] | None = None
    counts: ShardCounts | None = None
    published: Published | None = None
    warnings: list[Annotated[str, StringConstraints(max_length=MOST_WARNING)]] = Field(
        default_factory=list,
        max_length=MOST_WARNINGS,
        description="Of a plan step: a sentence for each valid setting of the spec that has no effect, or a risk.",
    )

    def dumps(self) -> str:
        """Return compact JSON of at most 4096 bytes; warnings are left out and the `message` is shortened to fit."""
        if self.warnings and len(self._compact(self).encode()) > TERMINATION_MESSAGE_BYTES:
            return self.model_copy(update={"warnings": self.warnings[:-1]}).dumps()
        text = self._compact(self)
        excess = len(text.encode()) - TERMINATION_MESSAGE_BYTES
        if excess <= 0:
            return text
        # JSON escapes may take six bytes a character, so cut the encoded form and decode what is left.
        encoded = json.dumps(self.message).encode()[1:-1]
        kept = encoded[: max(0, len(encoded) - excess - len("…".encode()) - 6)].decode(errors="ignore")
        shorter = json.loads(f'"{kept[: kept.rfind(" ")] if " " in kept else ""}"') + "…"
        return self._compact(self.model_copy(update={"message": shorter}))

    @staticmethod
    def _compact(outcome: Outcome) -> str:
        without = None if outcome.warnings else {"warnings"}
        return outcome.model_dump_json(by_alias=True, exclude_none=True, exclude=without)

    @field_validator("warnings", mode="before")
    @classmethod
    def _within_bounds(cls, warnings: object) -> object:
        """Shorten what is too long: a warning is never worth the outcome."""
        if not isinstance(warnings, list):
            return warnings
        return [text[:MOST_WARNING] if isinstance(text, str) else text for text in warnings[:MOST_WARNINGS]]

    @classmethod
    def loads(cls, text: str | None) -> Self | None:
        """Parse a termination message; None if it is absent, cut, from another program, or not valid text."""
        try:
            data: Any = json.loads(text or "")
            # JSON can escape half of a surrogate pair, which UTF-8 cannot encode.
            json.dumps(data, ensure_ascii=False).encode()
            return cls.model_validate(data) if isinstance(data, dict) else None
        except (ValueError, RecursionError):  # "[" * 4000 is deeper than the parser goes.
            return None
