"""The models that made a dataset, with their digests and licenses, for the dataset card and Croissant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from diffugen_api.recipes import DETECTOR, MASKS, scores_of
from diffugen_api.v1alpha1 import LabeledDatasetSpec

UNKNOWN = "not stated"
"""The license of a model whose card states none."""


@dataclass(frozen=True, slots=True)
class Models:
    """The models of the stages and those beside them."""

    stages: Sequence[tuple[str, str]]
    """Each stage's model and its digest, in the order of the stages."""
    side_models: Mapping[str, str]
    """The digests of the further models that label, by kind."""
    licenses: Mapping[str, str] = field(default_factory=dict)
    """The license that a model's card states, by the model's digest."""

    def license_of(self, digest: str) -> str:
        """Return the license of a model by its digest."""
        return self.licenses.get(digest) or UNKNOWN

    def beside(self, spec: LabeledDatasetSpec) -> list[tuple[str, str, str]]:
        """Return kind, URI and digest of each model beside the diffusion models."""
        named: dict[str, str | None] = {kind: settings.model for kind, settings in scores_of(spec.quality).items()}
        if (detector := spec.labeling.detector) is not None:
            named |= {DETECTOR: detector.model, MASKS: detector.mask_model}
        return [(kind, uri, self.side_models[kind]) for kind, uri in named.items() if uri and kind in self.side_models]

    def known_licenses(self) -> list[str]:
        """Return the licenses of all models, each once; models without one are left out."""
        return sorted(set(self.licenses.values()) - {""})
