"""The plan step: finds the incomplete samples of every stage and writes them as shards, before any GPU is requested.

For each stage, in the order of the graph, the step resolves the model, expands the spec, looks up every sample in the
store, and writes the incomplete ones to `plans/<revision>/<stage>/`. `plan.json` is written last and marks the plan as
complete. The step makes one pass. Its memory holds the ids in the store and the fingerprints of the prompts, and
otherwise does not grow; a shard is written as soon as it is full.

Whether a sample can be drawn may depend on the labels of its source. If all of these exist, the plan decides, so that
a stage with only skipped samples gets no shards. Otherwise the worker decides.

The work itself checks the access: the listing needs read permission, and `plans/<revision>/spec.json`, written first,
needs write permission. The step needs no permission that the run does not need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffugen_api import layout
from diffugen_api.contract import Outcome, StagePlan
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import (
    Expansion,
    Sample,
    SpecError,
    StageRecipe,
    canonical,
    samples_per_shard,
    stage_recipe,
)
from diffugen_api.recipes import DETECTOR, MASKS, scores_of
from diffugen_api.v1alpha1 import (
    S3,
    Embedding,
    LabeledDatasetSpec,
    Stage,
    embeddings_of,
    in_graph_order,
    loras_of,
    model_of,
    model_stage,
    tokens_of,
)
from diffugen_generator.bounded_pool import in_order
from diffugen_generator.calibration.annotations import CALIBRATION, Annotations, adapted, annotations_of
from diffugen_generator.failures import Damaged, Interrupted
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.labeling.side_model_registry import side_models_of
from diffugen_generator.models.checks import check_kind, check_sampler, run_sampler
from diffugen_generator.models.embeddings import find_embeddings
from diffugen_generator.models.loras import find_loras
from diffugen_generator.models.model_cards import license_in
from diffugen_generator.models.resolve import resolve
from diffugen_generator.models.side_models import SideModel, pin_model_uris
from diffugen_generator.planning.holdings import Holdings
from diffugen_generator.planning.prompt_rows import expansion_of, put
from diffugen_generator.planning.shard_writing import ShardCounter, ShardWriter, Sink
from diffugen_generator.planning.trainings import Training, check_fit, trainings_of
from diffugen_generator.planning.warnings import warnings_of
from diffugen_generator.samples.documents import discard, sealed
from diffugen_generator.samples.shards import (
    DIGESTS_KEY,
    EVIDENCE_IDS_KEY,
    GIVEN,
    LoraFile,
    Need,
    ShardHeader,
    TaughtWord,
    origins_of,
)
from diffugen_generator.store.protocol import JSON, Store

MAX_SAMPLES = 5_000_000
"""The most samples of one stage: with more, plan and publish need more memory than their small pods have."""

_CHECK_EVERY = 5000
"""Samples between two reports of progress and two checks of `stop`."""

_READERS = 32
"""Parallel reads of labels of sources."""
_WINDOW = 256
"""Samples whose sources' labels are read ahead."""

Progress = Callable[[int, int], None]
"""Called with the number of samples looked up so far, over all stages, and the number of all samples."""


@dataclass(frozen=True, slots=True)
class StageInPlan:
    """A stage, its model, and the addresses that follow from both."""

    stage: Stage
    model: ModelFolder
    recipe: StageRecipe
    side_models: Mapping[str, SideModel]
    """The further models that label, by kind."""
    embeddings: tuple[TaughtWord, ...] = ()
    loras: tuple[LoraFile, ...] = ()
    calibration: str = ""
    """The content address of the attention's calibration; empty if there is none."""


def plan(
    order: WorkOrder,
    store: Store,
    *,
    expansion: Expansion | None = None,
    run_samplers: bool = False,
    on_progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Write the shards of the incomplete samples, then `plan.json`; raise `SpecError` or a `Failure`.

    `expansion` is that of the order's spec, if the caller has it already. With `run_samplers`, the sampler of each
    stage that will draw is run over its steps, without the network; this imports torch.

    If labels of sources are found to be damaged, they are deleted and the plan is made once more.
    """
    store.check()
    expansion = expansion or expansion_of(order.spec)
    trainings = trainings_of(order.spec)
    stages = stages_of(expansion, trainings, store)
    store.write(layout.planned_spec(order.revision), _spec_document(order.spec), JSON)
    rows = expansion.rows
    prompts = put(rows, order.spec.prompts.file or "", store, order.revision) if rows is not None else None
    while True:
        damaged: dict[str, Damaged] = {}
        counter = _ProgressCounter(sum(expansion.most.values()), on_progress, stop)
        found = {name: training.plan(store) for name, training in trainings.items()}
        for each in stages:
            with ShardWriter(store, _header(order, each), _shard_size(expansion)) as shards:
                samples = _decided(expansion, each, store, found, damaged)
                found[each.stage.name] = _plan_of(samples, each, shards, counter)
        if not damaged:
            break
        for fault in damaged.values():
            discard(store, fault)
    if run_samplers:
        _run_samplers(stages, found, order.spec)
    plans = [found[stage.name] for stage in order.spec.stages]
    counter.finish()
    summary = _summary(order, stages, plans)
    if prompts is not None:
        summary["prompts"] = prompts
    if trainings:
        summary["trainings"] = [training.row() for training in trainings.values()]
    store.write(layout.plan_summary(order.revision), _document(sealed(summary)), JSON)
    return Outcome(ok=True, reason="Planned", message=sentence(plans), plan=plans, warnings=warnings_of(expansion))


def survey(
    expansion: Expansion,
    store: Store | None = None,
    *,
    run_samplers: bool = False,
    on_progress: Progress | None = None,
) -> list[StagePlan]:
    """Return the plans of all stages without writing; without a store every sample is incomplete.

    `run_samplers` is as in `plan`.
    """
    if store is not None:
        store.check()
    trainings = trainings_of(expansion.spec)
    stages = stages_of(expansion, trainings, store)
    size = _shard_size(expansion)
    counter = _ProgressCounter(sum(expansion.most.values()), on_progress, lambda: False)
    found = {name: training.plan(store) for name, training in trainings.items()}
    for each in stages:
        samples = _decided(expansion, each, store, found, {})
        found[each.stage.name] = _plan_of(samples, each, ShardCounter(size), counter)
    if run_samplers:
        _run_samplers(stages, found, expansion.spec)
    counter.finish()
    return [found[stage.name] for stage in expansion.spec.stages]


def _run_samplers(stages: Sequence[StageInPlan], found: Mapping[str, StagePlan], spec: LabeledDatasetSpec) -> None:
    """Run the samplers of the stages that will draw; raise `SpecError` if one fails."""
    numbers = {stage.name: number for number, stage in enumerate(spec.stages)}
    for stage, model in ((each.stage, each.model) for each in stages if found[each.stage.name].draw):
        run_sampler(model, stage.task, stage=f"spec.stages[{numbers[stage.name]}].{stage.kind}")


def stages_of(
    expansion: Expansion, trainings: Mapping[str, Training] | None = None, store: Store | None = None
) -> list[StageInPlan]:
    """Return the stages that draw in the order of the graph, each with its model.

    `trainings` are the stages that train, by name, and `store` is where their results are or will be.

    Raises `SpecError` naming the field where the spec cannot be planned.
    """
    spec = expansion.spec
    check_counts(expansion)
    expansion.check_weights()
    side_models = side_models_of(spec)
    seen = _digests(side_models)
    annotations = annotations_of(spec.labeling.attention, spec.output.s3)
    if annotations is not None:
        annotations.opened(spec.classes, (spec.image.width, spec.image.height), field=CALIBRATION)
    stages: dict[str, StageInPlan] = {}
    numbers = {stage.name: number for number, stage in enumerate(spec.stages)}
    for stage in in_graph_order(spec.drawing_stages):
        uri, field = model_of(spec.stages, stage)
        pin = model_stage(spec.stages, stage).task.model_sha256
        model = resolve(uri, field=field, s3=spec.output.s3, pin=pin, weights=False)
        check_kind(model, stage.task, field)
        drawing = f"spec.stages[{numbers[stage.name]}].{stage.kind}"
        check_sampler(model, stage.task, field=field, stage=drawing)
        words = _words(embeddings_of(spec.stages, stage), model, spec.output.s3, trainings or {}, store)
        digests = {word.token: word.digest for word in words}
        source = stages[stage.source].recipe if stage.source is not None else None
        loras = find_loras(loras_of(spec.stages, stage), model, spec.output.s3)
        added = [(each.digest, each.weight) for each in loras]
        calibration = _calibration(spec, annotations, model, adapted(words, loras))
        recipe = stage_recipe(
            spec,
            stage,
            model.digest,
            digests,
            loras=added,
            source=source,
            side_models=seen,
            calibration=calibration,
        )
        stages[stage.name] = StageInPlan(stage, model, recipe, side_models, words, loras, calibration)
    return list(stages.values())


def _calibration(
    spec: LabeledDatasetSpec, annotations: Annotations | None, model: ModelFolder, adapted_by: Mapping[str, str]
) -> str:
    """Return the address of the calibration of a stage's attention; empty if there is none."""
    attention, size = spec.labeling.attention, (spec.image.width, spec.image.height)
    if annotations is None or attention is None:
        return ""
    return annotations.address(attention, spec.classes, model.digest, adapted_by, size)


def _words(
    named: Mapping[str, Embedding],
    model: ModelFolder,
    s3: S3 | None,
    trainings: Mapping[str, Training],
    store: Store | None,
) -> tuple[TaughtWord, ...]:
    """Return the trained words of a stage's model: those from files, then those from stages."""
    words = list(find_embeddings(named, model, s3))
    for field, each in named.items():
        if each.source is not None:
            training = trainings[each.source]
            check_fit(training, model, field)
            words.append(replace(training.word(store), token=each.token))
    return tuple(words)


def check_counts(expansion: Expansion) -> None:
    """Raise `SpecError` if a stage has too many images or none; counts them without expanding the spec."""
    for number, stage in enumerate(expansion.spec.stages):
        if not stage.draws:
            continue
        _check_count(expansion, stage, expansion.most[stage.name], f"spec.stages[{number}].{stage.kind}")


def _check_count(expansion: Expansion, stage: Stage, count: int, field: str) -> None:
    """Raise `SpecError` if a stage, which has at most `count` images, has too many or none."""
    if count > MAX_SAMPLES and stage.source is not None:
        count = expansion.count_distinct_samples(stage.name)  # `count` is an upper bound only
    if count > MAX_SAMPLES:
        asking = f"{field}: it asks"
        if stage.source is None:
            asking = "spec.prompts: templates, variables and samplesPerPrompt ask"
            if expansion.rows is not None:
                asking = "spec.prompts: templates, variables, the rows of the file and samplesPerPrompt ask"
        raise SpecError(
            "TooManySamples",
            f"{asking} for {count:,} images a stage; the limit is {MAX_SAMPLES:,}: ask for fewer or split the dataset.",
        )
    if stage.source is not None and not expansion.has_samples(stage.name):
        raise SpecError(
            "NothingToDraw",
            f"{field}: every combination equals that of its source, stage {stage.source!r}; name other values.",
        )


def sentence(plans: list[StagePlan]) -> str:
    """Return a summary of the plan in one sentence."""
    total, reused = sum(s.total for s in plans), sum(s.reused for s in plans)
    if total == reused:
        skipped = sum(s.skipped for s in plans)
        but = f", except {skipped:,} whose source is rejected or has no label" if skipped else ""
        return f"all {total:,} samples exist already{but}"
    parts = ("draw", "relabel", "shards", "skipped")
    draw, relabel, shards, skipped = (sum(getattr(s, part) for s in plans) for part in parts)
    return (
        f"{total:,} samples: {draw:,} to draw, {relabel:,} to label again, {reused - skipped:,} reused"
        f"{f', {skipped:,} skipped' if skipped else ''}; {shards:,} shard{'' if shards == 1 else 's'}"
    )


@dataclass
class _ProgressCounter:
    """Counts the samples of all stages; reports progress and checks `stop` every few thousand."""

    expected: int
    on_progress: Progress | None
    stop: Callable[[], bool]
    count: int = 0

    def add_one(self) -> None:
        self.count += 1
        if self.count % _CHECK_EVERY:
            return
        if self.stop():
            raise Interrupted("planning was stopped; the next try starts again")
        if self.on_progress:
            self.on_progress(self.count, self.expected)

    def finish(self) -> None:
        if self.on_progress:
            self.on_progress(self.count, self.count)


_Decided = tuple[Sample, Need | None, str]
"""A sample, what it lacks, and why it is skipped (empty if it is not, or if the worker decides)."""


def _plan_of(samples: Iterable[_Decided], each: StageInPlan, shards: Sink, counter: _ProgressCounter) -> StagePlan:
    total, skipped, needs = 0, 0, dict.fromkeys(Need, 0)
    for sample, need, refusal in samples:
        if refusal:
            skipped += 1
        elif need is not None:
            needs[need] += 1
            shards.add(sample, need)
        total += 1
        counter.add_one()
    return StagePlan(
        name=each.stage.name,
        total=total,
        reused=total - sum(needs.values()),
        draw=needs[Need.DRAW],
        relabel=needs[Need.SEE] + needs[Need.LABEL],
        skipped=skipped,
        shards=shards.finish(),
        gpu=any(count for need, count in needs.items() if need.gpu),
    )


def _decided(
    expansion: Expansion,
    each: StageInPlan,
    store: Store | None,
    found: Mapping[str, StagePlan],
    damaged: dict[str, Damaged],
) -> Iterator[_Decided]:
    """Yield the stage's samples; `found` has the plans of the stages before it.

    Labels of sources that cannot be read are added to `damaged` by their key; the worker decides on those samples.
    """
    holdings = Holdings(store, each.recipe)
    looked_up = ((sample, holdings.need(sample.id)) for sample in expansion.samples_of(each.recipe))
    spec, origins = expansion.spec, origins_of(each.recipe)
    if store is None or not origins or any(found[o.stage].draw + found[o.stage].relabel for o in origins):
        yield from ((sample, need, "") for sample, need in looked_up)
        return
    from diffugen_generator.quality.sources import Sources  # noqa: PLC0415 - numpy and COCO, only where labels are read

    sources = Sources(store, origins, (spec.image.height, spec.image.width), spec.quality)

    def decide(look: tuple[Sample, Need | None]) -> _Decided:
        sample, need = look
        if need is not Need.DRAW or sample.source is None:
            return sample, need, ""
        try:
            return sample, need, sources.refusal(sample.source)
        except Damaged as error:
            damaged[error.key] = error
            return sample, need, ""

    yield from in_order(decide, looked_up, workers=_READERS, window=_WINDOW)


def _shard_size(expansion: Expansion) -> int:
    # from the number of all samples: that of incomplete ones is known only after the first shards are written
    return samples_per_shard(expansion.spec, max(expansion.most.values()))


def _header(order: WorkOrder, each: StageInPlan) -> ShardHeader:
    detector = order.spec.labeling.detector
    return ShardHeader(
        stage=each.stage.name,
        kind=each.stage.kind,
        revision=order.revision,
        index=0,
        model=each.model.uri,
        model_digest=each.model.digest,
        drawing=each.recipe.drawing,
        evidence_id=each.recipe.evidence_id,
        label_id=each.recipe.label_id,
        attention=order.spec.labeling.attention,
        classes=tuple(order.spec.classes),
        origins=origins_of(each.recipe),
        quality=order.spec.quality,
        embeddings=each.embeddings,
        loras=each.loras,
        tokens=tokens_of(order.spec.stages),
        detector=detector and pin_model_uris(detector, each.side_models, model=DETECTOR, mask_model=MASKS),
        agreement=order.spec.labeling.agreement,
        scores={
            kind: pin_model_uris(settings, each.side_models, model=kind)
            for kind, settings in scores_of(order.spec.quality).items()
        },
        side_evidence_ids=each.recipe.side_evidence_ids,
        side_models=_digests(each.side_models),
        calibration=each.calibration,
    )


def _summary(order: WorkOrder, stages: list[StageInPlan], plans: list[StagePlan]) -> dict[str, Any]:
    by_name = {each.stage.name: each for each in stages}
    return {
        "namespace": order.namespace,
        "name": order.name,
        "revision": order.revision,
        "stages": [
            {
                **_json(found),
                "model": each.model.uri,
                "modelDigest": each.model.digest,
                "evidenceId": each.recipe.evidence_id,
                "labelId": each.recipe.label_id,
                **({"embeddings": [word.row() for word in each.embeddings]} if each.embeddings else {}),
                **({"loras": [lora.row() for lora in each.loras]} if each.loras else {}),
                **({"calibration": each.calibration} if each.calibration else {}),
                **_side_models_row(each),
                **_licenses_row(each),
            }
            for found in plans
            if found.name in by_name
            for each in [by_name[found.name]]
        ],
    }


def _json(model: LabeledDatasetSpec | StagePlan) -> dict[str, Any]:
    data: dict[str, Any] = model.model_dump(mode="json", by_alias=True)
    return data


def _spec_document(spec: LabeledDatasetSpec) -> bytes:
    """Return the spec without `run`, which changes nothing that is drawn and may hold secrets in its podTemplate."""
    return _document(spec.model_dump(mode="json", by_alias=True, exclude={"run"}))


def _document(value: Any) -> bytes:
    return canonical(value) + b"\n"


def plan_given(order: WorkOrder, store: Store, total: int) -> ShardHeader:
    """Write the plan of a stage of the user's own `total` images; return their shard header.

    Without attention labels the stage's model is not resolved. Raises `SpecError` if a model cannot be resolved.
    """
    [stage] = (
        stages_of(Expansion(order.spec)) if order.spec.labeling.attention is not None else [_without_model(order.spec)]
    )
    found = StagePlan(name=stage.stage.name, total=total, reused=0, draw=0, relabel=total, shards=0, gpu=True)
    store.write(layout.planned_spec(order.revision), _spec_document(order.spec), JSON)
    store.write(layout.plan_summary(order.revision), _document(sealed(_summary(order, [stage], [found]))), JSON)
    return replace(_header(order, stage), kind=GIVEN)


def _without_model(spec: LabeledDatasetSpec) -> StageInPlan:
    """Return a stage of the user's own images that is labeled without its diffusion model."""
    [stage] = spec.stages
    side_models = side_models_of(spec)
    model = ModelFolder(model_of(spec.stages, stage)[0], Path(), digest="")
    return StageInPlan(
        stage, model, stage_recipe(spec, stage, model.digest, side_models=_digests(side_models)), side_models
    )


def _side_models_row(stage: StageInPlan) -> dict[str, Any]:
    if not stage.side_models:
        return {}
    return {EVIDENCE_IDS_KEY: dict(stage.recipe.side_evidence_ids), DIGESTS_KEY: _digests(stage.side_models)}


def _licenses_row(stage: StageInPlan) -> dict[str, Any]:
    """Return the licenses that the cards of a stage's models state, by the models' digests."""
    folders = {stage.model.digest: stage.model.path} if stage.model.digest else {}
    folders |= {each.digest: each.path for each in stage.side_models.values()}
    licenses = {digest: stated for digest, path in folders.items() if (stated := license_in(path))}
    return {"licenses": licenses} if licenses else {}


def _digests(side_models: Mapping[str, SideModel]) -> dict[str, str]:
    return {kind: side_model.digest for kind, side_model in side_models.items()}
