"""Which derivation each kind of stage has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from diffugen_api.derivations.base import Derivation
from diffugen_api.derivations.img2img import ChangedVariables
from diffugen_api.derivations.inpaint import Replacements
from diffugen_api.v1alpha1 import Img2Img, Inpaint, LabeledDatasetSpec

DERIVATIONS: Mapping[str, Callable[[LabeledDatasetSpec, Any, str], Derivation]] = {
    Img2Img.kind: ChangedVariables,
    Inpaint.kind: Replacements,
}
"""Each kind that has a source, with its derivation: called with the spec, the task of that kind, and its field."""


def derivations_of(spec: LabeledDatasetSpec) -> dict[str, Derivation]:
    """Return the derivation of each stage that has a source, by the stage's name; raise `SpecError`."""
    return {
        stage.name: DERIVATIONS[stage.kind](spec, stage.task, f"spec.stages[{number}].{stage.kind}")
        for number, stage in enumerate(spec.stages)
        if stage.source is not None
    }
