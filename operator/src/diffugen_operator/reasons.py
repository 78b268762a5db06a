"""Every reason that the operator itself gives in a condition, a summary or an event.

Workers report their own reasons (in their termination messages), which are copied unchanged.
"""

from __future__ import annotations

from typing import Final

# The run makes progress.
ACCEPTED: Final = "Accepted"
PLANNING: Final = "Planning"
DRAWING: Final = "Drawing"
LABELING: Final = "Labelling"
PUBLISHING: Final = "Publishing"
STOPPING: Final = "StoppingFormerRun"

# The run waits, and continues by itself once the cause is gone.
QUEUED: Final = "Queued"
NOT_ADMITTED: Final = "NotAdmitted"
JOB_HELD: Final = "JobHeld"
UNSCHEDULABLE: Final = "Unschedulable"
QUOTA_EXCEEDED: Final = "QuotaExceeded"
IMAGE_PULL_FAILED: Final = "ImagePullFailed"
CONTAINER_CONFIG_ERROR: Final = "ContainerConfigError"
PODS_NOT_CREATED: Final = "PodsNotCreated"
PODS_NOT_STARTING: Final = "PodsNotStarting"
CONTAINER_STILL_RUNNING: Final = "ContainerStillRunning"
JOB_NOT_CREATED: Final = "JobNotCreated"
JOB_NOT_CHANGED: Final = "JobNotChanged"
JOB_NOT_DELETED: Final = "JobNotDeleted"
CONFIG_MAP_NOT_CREATED: Final = "ConfigMapNotCreated"
FINALIZER_NOT_CHANGED: Final = "FinalizerNotChanged"
NODE_LOST: Final = "NodeLost"
OUT_OF_MEMORY: Final = "OutOfMemory"
EVICTED: Final = "Evicted"
TRYING_AGAIN: Final = "TryingAgain"
FORMER_JOB_STOPPING: Final = "FormerJobStopping"
SUSPENDED: Final = "Suspended"

# The dataset is being deleted, and its objects in the store too.
CLEANING_UP: Final = "CleaningUp"
CLEANED_UP: Final = "CleanedUp"
CLEAN_UP_FAILED: Final = "CleanUpFailed"
CLEAN_UP_ABANDONED: Final = "CleanUpAbandoned"
NAMESPACE_TERMINATING: Final = "NamespaceTerminating"

# Done.
PUBLISHED: Final = "Published"

# Stalled: the run stops until the spec is edited or a retry is requested.
INVALID_SPEC: Final = "InvalidSpec"
STORE_NOT_SET: Final = "StoreNotSet"
INVALID_POD_TEMPLATE: Final = "InvalidPodTemplate"
JOB_REJECTED: Final = "JobRejected"
IMAGE_VOLUMES_NOT_SUPPORTED: Final = "ImageVolumesNotSupported"
CONFIG_MAP_REJECTED: Final = "ConfigMapRejected"
NAME_CONFLICT: Final = "NameConflict"
DEADLINE_EXCEEDED: Final = "DeadlineExceeded"
SHARDS_FAILED: Final = "ShardsFailed"
PLAN_FAILED: Final = "PlanFailed"
STAGE_FAILED: Final = "StageFailed"
PUBLISH_FAILED: Final = "PublishFailed"
NO_PROGRESS: Final = "NoProgress"  # the only one of these that is withdrawn when there is progress again
NO_OUTCOME: Final = "NoOutcome"

# Events without a condition of the same name.
PLANNED: Final = "Planned"
PLAN_WARNING: Final = "PlanWarning"
STAGE_STARTED: Final = "StageStarted"
STAGE_SUCCEEDED: Final = "StageSucceeded"
RUN_STARTED: Final = "RunStarted"
RESUMED: Final = "Resumed"
STATUS_UNREADABLE: Final = "StatusUnreadable"
