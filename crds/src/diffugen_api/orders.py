"""The work order: the input of a pod, a file from an immutable ConfigMap."""

from __future__ import annotations

from diffugen_api.contract import Message
from diffugen_api.v1alpha1 import LabeledDatasetSpec


class WorkOrder(Message):
    """One revision of one dataset, as every step of its run reads it.

    `spec` has the parts that decide content and store. What may be edited during a run has its default there; a pod's
    environment has the values that it needs (`contract.ENV_SAMPLES_PER_SHARD` and the like).
    """

    namespace: str
    name: str
    revision: str
    spec: LabeledDatasetSpec

    def dumps(self) -> str:
        """Return the order as JSON, the same text for the same order.

        Defaults are left out, so that a generator older than a field understands every order that does not use it.
        """
        return self.model_dump_json(by_alias=True, exclude_none=True, exclude_defaults=True)
