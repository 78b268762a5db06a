"""LabeledDataset, version v1alpha1: the models from which the CRD and the API reference are rendered.

Every bound here becomes a bound in the CRD, every `cel(...)` a validation rule there, so `kubectl apply`
refuses a bad manifest at once. Defaults stay here: the API server writes none into users' objects. Fields are
camelCase in manifests and snake_case in Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator
from pydantic.alias_generators import to_camel

from diffugen_api.contract import GROUP, KIND, VERSION

Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=30, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
]
"""A stage's name: a DNS label, short enough to stand in the names of Jobs and pods."""

ClassName = Annotated[
    str, StringConstraints(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9]([A-Za-z0-9 _-]*[A-Za-z0-9])?$")
]
WORD_PATTERN = r"^\S(.*\S)?$"
Word = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=WORD_PATTERN)]
VariableName = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Format = Literal["coco", "yolo"]
Scheduler = Literal[
    "ddim", "ddpm", "deis", "dpmsolver++", "dpmsolver++_karras", "dpmsolver++_sde", "euler", "euler_a", "heun", "lcm",
    "lms", "pndm", "unipc",
]  # fmt: skip
Quantity = Annotated[str | int, Field(json_schema_extra={"x-kubernetes-int-or-string": True})]


def cel(rule: str, message: str) -> dict[str, str]:
    """Return one x-kubernetes-validations entry: a CEL rule over `self` and what to say where it fails."""
    return {"rule": rule, "message": message}


def validations(*rules: dict[str, str]) -> dict[str, Any]:
    """Return the schema extra that carries CEL rules."""
    return {"x-kubernetes-validations": list(rules)}


def _unique_names(what: str) -> dict[str, str]:
    return cel(
        "self.all(x, self.exists_one(y, y.name == x.name))",
        f"{what} names must be unique: rename or remove the duplicates",
    )


class Model(BaseModel):
    """Base of the API's models: camelCase outside, unknown fields refused, values frozen."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


# --- spec ---------------------------------------------------------------------------------------------------


class ObjectClass(Model):
    """A class of objects to label. The order of the classes gives their ids in every export, from 0."""

    name: ClassName = Field(description="The class's name in every export, and a word for it in prompts.")
    synonyms: list[Word] = Field(
        default_factory=list,
        max_length=16,
        description="Further words that mean this class; a prompt names the class by any of them.",
    )

    @property
    def words(self) -> tuple[str, ...]:
        """The words that name this class, its name first."""
        return (self.name, *self.synonyms)


class Image(Model):
    """The pictures: size in pixels and file format."""

    width: int = Field(default=512, ge=64, le=2048, multiple_of=8, description="Width in pixels, a multiple of 8.")
    height: int = Field(default=512, ge=64, le=2048, multiple_of=8, description="Height in pixels, a multiple of 8.")
    format: Literal["png", "jpeg", "webp"] = Field(
        default="png", description="File format; jpeg and webp are written at quality 95."
    )


class Prompts(Model):
    """What to draw: every template filled with combinations of the variables that it names."""

    templates: list[Annotated[str, StringConstraints(min_length=1, max_length=2000)]] = Field(
        min_length=1,
        max_length=256,
        description="Prompts with {name} for each variable; {{ and }} are the braces themselves.",
    )
    variables: dict[
        VariableName,
        Annotated[
            list[Annotated[str, StringConstraints(min_length=1, max_length=500)]],
            Field(min_length=1, max_length=1000),
        ],
    ] = Field(
        default_factory=dict,
        max_length=32,
        json_schema_extra=validations(
            cel(
                "self.all(name, name.matches('^[A-Za-z_][A-Za-z0-9_]*$'))",
                "a variable's name is letters, digits and _, and does not begin with a digit: rename it",
            )
        ),
        description=(
            "Values for each field of the templates; `combine` says how those of a template's own fields go "
            "together. The values of `object` must be classes or synonyms of one."
        ),
    )
    combine: Literal["product", "zip"] = Field(
        default="product",
        description="product: every value with every other. zip: the first values together, then the second, and so "
        "on; a template's own variables then need equally many.",
    )
    sample: int | None = Field(
        default=None,
        ge=1,
        le=5_000_000,
        description="Draw only this many combinations of each template, chosen by `spec.seed`; all where absent.",
    )
    negative: str = Field(default="", max_length=4000, description="What the pictures should not show.")
    syntax: Literal["auto", "compel", "a1111", "none"] = Field(
        default="auto",
        description="How weights are written, in the negative prompt too: compel `ball++ (a ball)1.3`, a1111 "
        "`(ball:1.3) ((ball)) [ball]`; auto tells by the marks; none reads every sign as text.",
    )
    samples_per_prompt: int = Field(
        default=1, ge=1, le=1_000_000, description="Pictures for each prompt, each with a seed of its own."
    )


class Txt2Img(Model):
    """Draw from text alone."""

    model: str = Field(
        min_length=1,
        max_length=512,
        description="A Stable Diffusion pipeline: builtin://NAME, or the path of a diffusers folder.",
    )
    steps: int = Field(default=25, ge=1, le=1000, description="Sampling steps.")
    scheduler: Scheduler | None = Field(
        default=None,
        description="The sampler, over the model's own noise schedule and step spacing; the model's own where absent.",
    )
    guidance_scale: float = Field(default=7.5, ge=1, le=50, description="Classifier-free guidance; 1 switches it off.")


class Stage(Model):
    """One stage of the dataset: a name, and how its pictures are drawn."""

    name: Name = Field(description="The stage's name; part of its Jobs' names and of its folder in the store.")
    txt2img: Txt2Img = Field(alias="txt2img", description="Draw from text alone.")

    @property
    def kind(self) -> str:
        """Which of the kinds this stage is."""
        return "txt2img"


class AttentionLabeling(Model):
    """Labels from the diffusion model's own cross-attention, without any detector.

    `posthoc` noises the finished picture a little and reads the attention of one more UNet pass over it.
    """

    capture: Literal["posthoc"] = Field(
        default="posthoc",
        description="When attention is read: posthoc is one extra pass over the finished picture.",
    )
    refine: bool = Field(
        default=True,
        description="Spread the maps along the model's self-attention, so that they fill their objects.",
    )
    threshold: float = Field(
        default=0.4,
        ge=0.05,
        le=0.95,
        description="Part of a map's range above which a pixel is the object's.",
    )
    snap: bool = Field(default=True, description="Snap uncertain borders to the picture's colours.")
    background: list[Word] = Field(
        default_factory=list,
        max_length=32,
        description="Words for what is no object; they compete for pixels that are not certain.",
    )


class Labeling(Model):
    """How the pictures are labelled."""

    attention: AttentionLabeling = Field(default_factory=AttentionLabeling)


_AREAS = "minAreaFraction must not be above maxAreaFraction, or no object is kept: lower the one or raise the other"


class Quality(Model):
    """Which pictures are good enough. Rejected ones stay in the manifest, with the reason."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            cel(
                "(has(self.minAreaFraction) ? double(self.minAreaFraction) : 0.002) <= "
                "(has(self.maxAreaFraction) ? double(self.maxAreaFraction) : 0.95)",
                _AREAS,
            )
        )
    )

    min_instances: int = Field(default=1, ge=0, le=1000, description="Fewest objects in a picture.")
    min_area_fraction: float = Field(
        default=0.002,
        ge=0,
        le=1,
        description="Smallest object as a fraction of the picture; smaller ones are dropped.",
    )
    max_area_fraction: float = Field(
        default=0.95,
        ge=0,
        le=1,
        description="Largest object, as a fraction of the picture; larger ones are dropped.",
    )

    @model_validator(mode="after")
    def _leaves_room(self) -> Quality:
        if self.min_area_fraction > self.max_area_fraction:
            raise ValueError(_AREAS)
        return self


class SecretRef(Model):
    """A Secret in the dataset's own namespace."""

    name: str = Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")


_NO_DOTS = "a folder's name may not be . or ..: write the prefix without it"


class S3(Model):
    """An S3 bucket: MinIO or any other store that speaks the protocol."""

    endpoint: str = Field(
        max_length=512,
        pattern=r"^https?://([A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?/?$",
        description="Scheme, host and port, e.g. http://minio.storage:9000.",
    )
    bucket: str = Field(min_length=3, max_length=63, pattern=r"^[a-z0-9][a-z0-9.-]*[a-z0-9]$")
    prefix: str = Field(
        default="",
        max_length=512,
        pattern=r"^[A-Za-z0-9._/-]*$",
        json_schema_extra=validations(cel("!self.matches('(^|/)[.][.]?(/|$)')", _NO_DOTS)),
        description="Folder in the bucket.",
    )
    region: str = Field(default="us-east-1", max_length=63)
    secret_ref: SecretRef | None = Field(
        default=None,
        description="A Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
    )

    @field_validator("prefix")
    @classmethod
    def _has_no_dots(cls, prefix: str) -> str:
        if {".", ".."} & set(prefix.split("/")):
            raise ValueError(_NO_DOTS)
        return prefix


class Splits(Model):
    """Parts of the dataset as fractions that add up to 1. A picture's split follows from its id, for ever."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            cel(
                "[(has(self.train) ? double(self.train) : 0.0) + (has(self.val) ? double(self.val) : 0.0) + "
                "(has(self.test) ? double(self.test) : 0.0)].all(sum, sum > 0.999999 && sum < 1.000001)",
                "splits must add up to 1: for example train 0.8, val 0.1, test 0.1",
            )
        )
    )

    train: float = Field(default=0, ge=0, le=1)
    val: float = Field(default=0, ge=0, le=1)
    test: float = Field(default=0, ge=0, le=1)

    @model_validator(mode="after")
    def _add_up_to_one(self) -> Splits:
        if abs(self.train + self.val + self.test - 1) > 1e-6:
            raise ValueError("splits must add up to 1: for example train 0.8, val 0.1, test 0.1")
        return self


class Output(Model):
    """Where the dataset goes, and in which formats."""

    s3: S3 | None = Field(default=None, description="The object store; `diffugen run --store` replaces it.")
    formats: list[Format] = Field(
        default_factory=lambda: list[Format](("coco", "yolo")),
        min_length=1,
        max_length=2,
        json_schema_extra={"x-kubernetes-list-type": "set"},
        description="coco: instances with RLE masks. yolo: Ultralytics segmentation, with polygons.",
    )
    splits: Splits = Field(default_factory=lambda: Splits(train=0.8, val=0.1, test=0.1))


class Resources(Model):
    """Container resources, as Kubernetes has them."""

    limits: dict[str, Quantity] = Field(default_factory=dict, max_length=16)
    requests: dict[str, Quantity] = Field(default_factory=dict, max_length=16)


class Run(Model):
    """How the work runs. Nothing here changes the dataset."""

    samples_per_shard: int = Field(
        default=200,
        ge=1,
        le=10_000,
        description="Pictures for each index of a stage's Job.",
    )
    parallelism: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="Pods, and so GPUs, at once, all stages together; an edit reaches running Jobs.",
    )
    queue_name: str | None = Field(
        default=None,
        min_length=1,
        max_length=63,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        description="Kueue's LocalQueue, in which every Job of the dataset waits; they start at once where absent.",
    )
    resources: Resources = Field(
        default_factory=lambda: Resources(limits={"nvidia.com/gpu": 1}),
        description="For pods that run a model; one GPU where nothing is said.",
    )
    image: str | None = Field(
        default=None,
        min_length=1,
        max_length=512,
        description="Generator image; the operator's own default where absent.",
    )
    pod_template: dict[str, Any] = Field(
        default_factory=dict,
        json_schema_extra={"x-kubernetes-preserve-unknown-fields": True},
        description="A PodTemplateSpec merged over the generated one: nodeSelector, tolerations, env ….",
    )
    backoff_limit_per_shard: int = Field(default=3, ge=0, le=100, description="Retries of one index before it fails.")
    active_deadline_seconds: int | None = Field(
        default=None, ge=1, le=31_536_000, description="Longest time for each Job, in seconds."
    )


class LabeledDatasetSpec(Model):
    """The dataset that is wanted."""

    classes: list[ObjectClass] = Field(
        min_length=1,
        max_length=200,
        json_schema_extra=validations(
            _unique_names("class"),
            cel(
                "self.all(x, self.exists_one(y, y.name.lowerAscii() == x.name.lowerAscii()))",
                "class names must differ by more than upper and lower case: rename or remove one",
            ),
        ),
    )
    image: Image = Field(default_factory=Image)
    seed: int = Field(default=0, ge=0, le=2**53 - 1, description="Every picture's seed derives from it.")
    prompts: Prompts
    stages: list[Stage] = Field(min_length=1, max_length=16, json_schema_extra=validations(_unique_names("stage")))
    labeling: Labeling = Field(default_factory=Labeling)
    quality: Quality = Field(default_factory=Quality)
    output: Output = Field(default_factory=Output)
    run: Run = Field(default_factory=Run)
    suspend: bool = Field(default=False, description="Stop the work and keep what is done; false goes on.")
    regenerate_token: str = Field(
        default="", max_length=253, description="Change it, to anything, to draw every picture anew."
    )

    @field_validator("classes")
    @classmethod
    def _words_are_of_one_class(cls, classes: list[ObjectClass]) -> list[ObjectClass]:
        # as prompts are read: any case, any white space between; names that are quite equal are told below
        owners: dict[str, ObjectClass] = {}
        for number, each in enumerate(classes):
            for place, word in enumerate(each.words, start=-1):
                owner = owners.setdefault(" ".join(word.lower().split()), each)
                if owner.name != each.name:
                    where = f"[{number}].name" if place < 0 else f"[{number}].synonyms[{place}]"
                    raise ValueError(
                        f"{where}: {word!r} names class {owner.name!r} already (case does not matter), so a prompt's "
                        f"{word!r} would never be {each.name!r}: rename or remove one"
                    )
        return classes

    @model_validator(mode="after")
    def _names_are_unique(self) -> LabeledDatasetSpec:
        for what, names in (
            ("class", [c.name for c in self.classes]),
            ("stage", [s.name for s in self.stages]),
        ):
            if duplicates := sorted({n for n in names if names.count(n) > 1}):
                raise ValueError(
                    f"{what} names must be unique: rename or remove the duplicates of {', '.join(duplicates)}"
                )
        return self


# --- status -------------------------------------------------------------------------------------------------


class Condition(Model):
    """A condition, as metav1.Condition has it."""

    type: str = Field(max_length=63)
    status: Literal["True", "False", "Unknown"]
    reason: str = Field(max_length=63)
    message: str = Field(default="", max_length=1024)
    last_transition_time: str = Field(max_length=32)
    observed_generation: int = -1


class Summary(Model):
    """The line that `kubectl get lds` shows."""

    stage: str = Field(
        default="", max_length=63, description="The step under way: planning, a stage's name, publishing."
    )
    progress: str = Field(default="", max_length=32, description="Samples done of all, as 1240/2400.")
    percent: int = Field(default=0, ge=0, le=100)
    images_per_second: str = Field(default="", max_length=16)
    eta_seconds: int | None = None
    reason: str = Field(default="", max_length=63)


class SampleCounts(Model):
    """A stage's samples."""

    total: int = 0
    done: int = 0
    reused: int = 0
    accepted: int | None = None
    rejected: int | None = None


class ShardStatus(Model):
    """A stage's shards: the indexes of its Job."""

    total: int = 0
    succeeded: int = 0
    failed: int = 0


class StageStatus(Model):
    """One stage of the run."""

    name: str = Field(max_length=30)
    kind: str = Field(max_length=30)
    state: Literal["Pending", "Queued", "Running", "Succeeded", "Failed"] = "Pending"
    job: str = Field(default="", max_length=63)
    gpu: bool = Field(default=True, description="Whether the stage's pods ask for the resources of run.resources.")
    samples: SampleCounts = Field(default_factory=SampleCounts)
    shards: ShardStatus = Field(default_factory=ShardStatus)
    start_time: str | None = Field(default=None, max_length=32)
    completion_time: str | None = Field(default=None, max_length=32)
    message: str = Field(default="", max_length=128)


class DatasetStatus(Model):
    """The last good dataset. A new run never empties it."""

    uri: str = Field(max_length=1100)
    revision: str = Field(max_length=63)
    samples: int
    instances: int
    manifest_sha256: str = Field(alias="manifestSHA256", max_length=64)
    published_at: str = Field(max_length=32)


class LabeledDatasetStatus(Model):
    """What is, and how far it is."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    observed_generation: int = Field(default=-1, description="The generation that the conditions speak of.")
    revision: str = Field(
        default="", max_length=63, description="What is wanted, as a hash over all that decides the content."
    )
    attempt: int = Field(default=0, description="Counts the runs: a new revision and a retry each begin one.")
    store: str = Field(default="", max_length=63, description="The store of this run, as a hash.")
    planned: bool = Field(default=False, description="Whether this attempt's plan is done.")
    last_handled_retry_at: str = Field(
        default="", max_length=64, description="The retry annotation that was last acted upon."
    )
    last_progress_time: str | None = Field(
        default=None, max_length=32, description="When a step, a stage or a sample last moved."
    )
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    summary: Summary = Field(default_factory=Summary)
    stages: list[StageStatus] = Field(
        default_factory=list,
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    dataset: DatasetStatus | None = None


class LabeledDataset(Model):
    """A labelled image dataset, declared here; the operator draws and publishes it."""

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


def normalised(spec: LabeledDatasetSpec) -> Mapping[str, Any]:
    """Return the spec as JSON data with every default written out."""
    data: dict[str, Any] = spec.model_dump(mode="json", by_alias=True)
    return data
