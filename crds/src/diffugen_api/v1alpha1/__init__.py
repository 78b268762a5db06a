"""LabeledDataset, version v1alpha1: the models from which the CRD and the API reference are rendered.

Every bound here becomes a bound in the CRD, every `cel(...)` a validation rule there, so `kubectl apply`
refuses a bad manifest at once. Defaults stay here: the API server writes none into users' objects. Fields are
camelCase in manifests and snake_case in Python.
"""

from diffugen_api.v1alpha1.base import WORD_PATTERN
from diffugen_api.v1alpha1.kinds.base import Drawing, Scheduler
from diffugen_api.v1alpha1.kinds.img2img import Img2Img
from diffugen_api.v1alpha1.kinds.inpaint import Inpaint
from diffugen_api.v1alpha1.kinds.textual_inversion import TextualInversion
from diffugen_api.v1alpha1.kinds.txt2img import Txt2Img
from diffugen_api.v1alpha1.labeling import LEAST_CONFIDENCE, AttentionLabeling, Calibration, DetectorLabeling, Labeling
from diffugen_api.v1alpha1.models import Embedding, Lora
from diffugen_api.v1alpha1.output import S3, Output, SecretRef, Splits
from diffugen_api.v1alpha1.prompts import Image, ObjectClass, Prompts
from diffugen_api.v1alpha1.quality import ClipScore, Duplicates, ImageScore, Quality, Safety
from diffugen_api.v1alpha1.resource import LabeledDataset
from diffugen_api.v1alpha1.run import ModelCache, Resources, Run
from diffugen_api.v1alpha1.spec import LabeledDatasetSpec, normalized
from diffugen_api.v1alpha1.stages import (
    Stage,
    embeddings_of,
    in_graph_order,
    loras_of,
    model_of,
    model_stage,
    tokens_of,
)
from diffugen_api.v1alpha1.status import (
    MOST_ATTEMPTS,
    Condition,
    DatasetStatus,
    HistoryEntry,
    LabeledDatasetStatus,
    SampleCounts,
    ShardStatus,
    StageStatus,
    Summary,
)

__all__ = [
    "LEAST_CONFIDENCE",
    "MOST_ATTEMPTS",
    "S3",
    "WORD_PATTERN",
    "AttentionLabeling",
    "Calibration",
    "ClipScore",
    "Condition",
    "DatasetStatus",
    "DetectorLabeling",
    "Drawing",
    "Duplicates",
    "Embedding",
    "HistoryEntry",
    "Image",
    "ImageScore",
    "Img2Img",
    "Inpaint",
    "LabeledDataset",
    "LabeledDatasetSpec",
    "LabeledDatasetStatus",
    "Labeling",
    "Lora",
    "ModelCache",
    "ObjectClass",
    "Output",
    "Prompts",
    "Quality",
    "Resources",
    "Run",
    "Safety",
    "SampleCounts",
    "Scheduler",
    "SecretRef",
    "ShardStatus",
    "Splits",
    "Stage",
    "StageStatus",
    "Summary",
    "TextualInversion",
    "Txt2Img",
    "embeddings_of",
    "in_graph_order",
    "loras_of",
    "model_of",
    "model_stage",
    "normalized",
    "tokens_of",
]
