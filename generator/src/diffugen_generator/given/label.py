"""`diffugen label`: labels the user's own images and publishes them as a dataset.

    folder or bucket ──> intake ──> labeled by the models of a stage ──> published like every dataset

No image is drawn. A shard here has the images of one size and format that are not labeled yet. Labels that the store
has already are not computed again. So a stopped run can be continued, and a second run labels only the images that
were added since.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from threading import Event
from typing import Any, get_args

from pydantic import ValidationError

from diffugen_api import layout
from diffugen_api.contract import Published, ShardCounts, StagePlan
from diffugen_api.derivations.base import vocabulary_of
from diffugen_api.faults import faults_of, first_of
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import SpecError, StageRecipe, address, revision_of
from diffugen_api.v1alpha1 import LabeledDatasetSpec
from diffugen_api.v1alpha1.output import Format
from diffugen_api.words import mentions
from diffugen_generator.class_options import class_of
from diffugen_generator.given.image_sources import ImageSource
from diffugen_generator.given.intake import STAGE, Given, Intake
from diffugen_generator.planning.plan import plan_given
from diffugen_generator.publishing.filling import NOTHING_ACCEPTED
from diffugen_generator.publishing.labeled_samples import LabeledSample, judged_together
from diffugen_generator.publishing.publish import publish
from diffugen_generator.publishing.published import dataset_of
from diffugen_generator.quality.verdicts import Verdict, verdict_on
from diffugen_generator.results import NO_CAPTION, LabelResult, RunResult, StageResult
from diffugen_generator.samples import labels
from diffugen_generator.samples.shards import Need, ShardHeader, ShardRow
from diffugen_generator.stages.local_shards import run_shards
from diffugen_generator.stages.session_cache import SessionCache
from diffugen_generator.store.protocol import Store
from diffugen_generator.telemetry.reporter import Reporter

NO_MODEL = "none"
"""The model's name where a detector alone labels: a stage must name a model, and this one is never resolved."""

_WITHOUT_CAPTIONS = (
    "attention finds every class that it is asked for, also where there is none. Write captions (cat.txt beside "
    "cat.png), or give --detector, or --presence 0.05 to keep a class only where its words help to predict the image."
)


def prompt_of(spec: LabeledDatasetSpec) -> str:
    """Return the text that images without a caption are read with: it names every class once."""
    return _prompt([each.name for each in spec.classes])


def spec_of(
    *,
    classes: Sequence[str] = (),
    model: str = "",
    detector: str = "",
    presence: float | None = None,
    formats: Sequence[str] = (),
    like: LabeledDatasetSpec | None = None,
) -> LabeledDatasetSpec:
    """Return the spec under which given images are labeled.

    Args:
        classes: `NAME` or `NAME=WORD,WORD`, with further words for the class.
        model: the diffusion model that runs on the images, for labels from its attention.
        detector: an instance segmenter of transformers that labels them. If `model` is set too, both label.
        presence: `spec.labeling.attention.minPresence`, for labels from attention.
        formats: names as in `spec.output.formats`; its default where there are none.
        like: a dataset that gives the classes, labeling, quality, formats and splits that are not set here.

    Raises:
        SpecError: no classes, neither model nor detector, an invalid value, or attention with `capture: inline`.
    """
    data: dict[str, Any] = {"output": {}}
    asked = bool(model)  # the model of a manifest draws; it does not mean that attention labels are wanted
    if like is not None:
        content = like.model_dump(mode="json", by_alias=True)
        data = {field: content[field] for field in ("classes", "labeling", "quality", "seed")}
        data["output"] = {field: content["output"][field] for field in ("formats", "splits", "s3", "coco", "yolo")}
        if asked and data["labeling"]["attention"] is None:
            data["labeling"]["attention"] = {}
        model = model or next((each.txt2img.model for each in like.stages if each.txt2img is not None), "")
    if classes:
        data["classes"] = [class_of(each) for each in classes]
    if formats:
        data["output"]["formats"] = list(formats)
        options = set(get_args(Format)) - set(formats)
        data["output"] = {field: value for field, value in data["output"].items() if field not in options}
    if detector:
        attention = data.get("labeling", {}).get("attention") if model else None
        data["labeling"] = {"detector": {"type": "transformers", "model": detector}, "attention": attention}
        if asked and attention is None:
            data["labeling"]["attention"] = {}
        model = model or NO_MODEL
    if presence is not None:
        labeling = data.setdefault("labeling", {"attention": {}})
        if labeling.get("attention") is None:
            raise SpecError("NoAttention", "--presence is for labels from attention: name a --model too.")
        labeling["attention"]["minPresence"] = presence
    if not data.get("classes"):
        raise SpecError("NoClasses", '--class: say what to look for: --class car --class "pickup=truck,ute".')
    if not model:
        raise SpecError(
            "NoModel",
            "--model: name the model that looks at the images, for example builtin://shapes, or --detector.",
        )
    names = [each["name"] for each in data["classes"]]
    data["prompts"] = {"templates": [_prompt(names)], "syntax": "none"}
    data["stages"] = [{"name": STAGE, "txt2img": {"model": model}}]
    try:
        spec = LabeledDatasetSpec.model_validate(data)
    except ValidationError as error:
        raise SpecError("InvalidSettings", first_of(faults_of(error, LabeledDatasetSpec, data, path="spec"))) from None
    attention = spec.labeling.attention
    if attention is not None and attention.capture == "inline":
        raise SpecError(
            "InlineCapture",
            "spec.labeling.attention.capture: inline reads attention while an image is drawn, and these are there "
            "already; take posthoc.",
        )
    return spec


def label(
    name: str,
    spec: LabeledDatasetSpec,
    source: ImageSource,
    store: Store,
    display: Reporter,
    *,
    device: str | None = None,
    stop: Event,
) -> LabelResult:
    """Label the images in `source` and publish them in `store` as a dataset called `name`.

    Raises `SpecError` where there are no images, or none passes, and a `Failure` of the stores.
    """
    began = time.monotonic()
    if f"{source.uri}/".startswith(f"{store.uri}/"):
        raise SpecError("OwnOutput", f"DIR: {source.uri} is a folder of the dataset that --store and --name name.")
    source.check()
    store.check()
    intake = Intake(source, store, prompt_of(spec), captions_only=_needs_captions(spec))
    given = _take(intake, display)
    wanted = [each for each in given if not each.reason]
    if not wanted:
        if any(each.reason == NO_CAPTION for each in given):
            raise SpecError("NoCaptions", f"{source.uri}: no image has a caption; {_WITHOUT_CAPTIONS}")
        raise SpecError("NoPictures", f"{source.uri}: there is no image that can be labeled; {_reasons(given)}.")
    ids = address([revision_of(spec), [each.sample.id for each in given]], 10)
    order = WorkOrder(namespace="default", name=name, revision=ids, spec=spec)
    header = plan_given(order, store, len(wanted))
    counts = _look(header, wanted, store, display, spec, device=device, stop=stop)
    seconds = time.monotonic() - began
    attended = wanted if spec.labeling.attention is not None else []
    words = vocabulary_of(spec, {})
    nameless = sum(not mentions(each.caption, words) for each in attended if each.caption)
    published = _publish(order, given, store, display, nameless, stop=stop)
    dataset = dataset_of(store)
    classes = {each: sum(splits.values()) for each, splits in dataset["classes"].items()}
    found = StagePlan(name=STAGE, total=len(wanted), reused=0, draw=0, relabel=len(wanted), shards=0, gpu=True)
    result = RunResult(
        order,
        [StageResult(found, counts, seconds)],
        published,
        time.monotonic() - began,
        classes,
        dataset["splits"],
    )
    skipped = _counted(given)
    return LabelResult(
        result,
        skipped,
        others=intake.others,
        converted=sum(bool(each.converted) for each in wanted),
        rejected={reason: count for reason, count in dataset["rejectedByReason"].items() if reason not in skipped},
        uncaptioned=sum(not each.caption for each in attended),
        nameless=nameless,
    )


def _needs_captions(spec: LabeledDatasetSpec) -> bool:
    """Return whether only a caption can say what an image shows.

    Attention finds every word that it is asked for, also in images that do not show it. A detector, or the presence of
    each word, can say that a class is absent.
    """
    attention = spec.labeling.attention
    return attention is not None and spec.labeling.detector is None and attention.min_presence is None


def _prompt(names: Sequence[str]) -> str:
    return "a photo of " + " and ".join(f"a {name}" for name in names)


def _take(intake: Intake, display: Reporter) -> list[Given]:
    with display.task("reading", "files") as advance:
        files = intake.files()
        given = []
        for each in intake.take(files):
            given.append(each)
            advance(len(given), len(files))
    return given


def _look(
    header: ShardHeader,
    given: Sequence[Given],
    store: Store,
    display: Reporter,
    spec: LabeledDatasetSpec,
    *,
    device: str | None,
    stop: Event,
) -> ShardCounts:
    """Run the models on the images, those of one size and format together."""
    alike: dict[tuple[int, int, str], list[ShardRow]] = {}
    for each in given:
        alike.setdefault((each.width, each.height, each.format), []).append(ShardRow(each.sample, Need.SEE))
    shards = []
    for index, ((width, height, kind), rows) in enumerate(sorted(alike.items())):
        image = {**header.drawing["image"], "width": width, "height": height, "format": kind}
        shards.append((replace(header, index=index, drawing={**header.drawing, "image": image}), rows))
    with display.task("labeling", "images") as advance:
        return run_shards(
            shards,
            store,
            advance,
            on_done=lambda done: advance(done, len(given)),
            sessions=SessionCache.of(spec, device=device),
            stop=stop,
        )


def _publish(
    order: WorkOrder, given: Sequence[Given], store: Store, display: Reporter, nameless: int, *, stop: Event
) -> Published:
    """Publish the labeled images; if none is accepted, the error mentions captions that name no class."""
    try:
        with display.task("publishing", "images") as advance:
            published = publish(
                order,
                store,
                on_progress=advance,
                stop=stop.is_set,
                samples=lambda recipes: _labeled_samples(order.spec, recipes[0], given, store),
                drawn=False,
                total=len(given),
            ).published
    except SpecError as refused:
        if refused.reason != NOTHING_ACCEPTED or not nameless:
            raise
        why = f"Captions that name no class: {nameless:,}; attention labels nothing in their images."
        raise SpecError(refused.reason, f"{refused} {why}") from None
    if published is None:
        raise AssertionError("a publish step that ends well has published")
    return published


def _labeled_samples(
    spec: LabeledDatasetSpec, recipe: StageRecipe, given: Sequence[Given], store: Store
) -> Iterator[LabeledSample]:
    """Yield a sample for each file, in order; skipped files are rejected with their reason."""
    return judged_together(lambda: (_labeled(spec, recipe, each, store) for each in given), spec)


def _labeled(spec: LabeledDatasetSpec, recipe: StageRecipe, given: Given, store: Store) -> LabeledSample:
    sample = given.sample
    found = labels.Label(sample.id, ())
    size = (given.height, given.width)
    if not given.reason:
        classes = {each.name for each in spec.classes}
        key = layout.label(STAGE, recipe.label_id, sample.id)
        found = labels.read_label(store, key, sample.id, size=size, classes=classes)
    return LabeledSample(
        sample=sample,
        stage=STAGE,
        split="",
        image=layout.image(STAGE, sample.id, given.format) if given.format else "",
        extension=given.format,
        width=given.width,
        height=given.height,
        verdict=Verdict((), given.reason) if given.reason else verdict_on(found, size, spec.quality),
        label=found,
        given=given.row(),
    )


def _counted(given: Sequence[Given]) -> dict[str, int]:
    reasons = sorted(each.reason for each in given if each.reason)
    return {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}


def _reasons(given: Sequence[Given]) -> str:
    counted = ", ".join(f"{reason} {count:,}" for reason, count in _counted(given).items())
    return f"skipped: {counted}" if counted else "none was found"
