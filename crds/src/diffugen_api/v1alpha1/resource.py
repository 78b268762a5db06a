"""The resource itself."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from diffugen_api.contract import GROUP, KIND, VERSION
from diffugen_api.v1alpha1.base import Model
from diffugen_api.v1alpha1.spec import LabeledDatasetSpec
from diffugen_api.v1alpha1.status import LabeledDatasetStatus


class LabeledDataset(Model):
    """A labeled image dataset, declared here; the operator draws and publishes it."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    api_version: Literal["diffugen.dev/v1alpha1"] = f"{GROUP}/{VERSION}"  # type: ignore[assignment]  # equal, but not a literal to mypy
    kind: Literal["LabeledDataset"] = KIND  # type: ignore[assignment]  # equal, but not a literal to mypy
    metadata: dict[str, Any] = Field(default_factory=dict)
    spec: LabeledDatasetSpec
    status: LabeledDatasetStatus | None = None

    @property
    def name(self) -> str:
        """The resource's name."""
        return str(self.metadata.get("name", ""))

    @property
    def namespace(self) -> str:
        """The resource's namespace; `default` where the manifest names none."""
        return str(self.metadata.get("namespace") or "default")
