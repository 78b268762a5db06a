"""The plan step: finds what is missing, before any GPU is asked for, and writes it down as shards.

For each stage: the model is found, the spec expanded, every sample looked up in what the store holds, and
what is missing written to `plans/<revision>/<stage>/`. `plan.json` comes last: with it the plan stands. One
pass, in constant memory but for the ids that the store holds and the prompts' fingerprints; a shard is on
its way to the store as soon as it is full.

Access is checked by the work itself: listing shows whether the store can be read, and
`plans/<revision>/spec.json`, written first, whether it can be written to. No permission is needed that the
run would not need anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from diffugen_api import layout
from diffugen_api.contract import Outcome, StagePlan
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import (
    SpecError,
    StageRecipe,
    canonical,
    check_weights,
    count_samples,
    samples_of,
    samples_per_shard,
    stage_recipe,
)
from diffugen_api.v1alpha1 import LabeledDatasetSpec, Stage, embeddings_of, model_of, model_stage
from diffugen_generator.embeddings import find_embeddings
from diffugen_generator.failures import Interrupted
from diffugen_generator.holdings import Holdings
from diffugen_generator.judges import judges_of
from diffugen_generator.models import ModelFolder, check_kind, resolve
from diffugen_generator.shard_writing import ShardCounter, ShardWriter, Sink
from diffugen_generator.shards import Need, ShardHeader, TaughtWord
from diffugen_generator.store import JSON, Store

MAX_SAMPLES = 5_000_000
"""Of one stage: beyond it, what plan and publish remember outgrows the small pods that they run in."""

_LOOK_EVERY = 5000
"""Samples between two reports of progress and two looks at `stop`."""

Progress = Callable[[int, int], None]
"""Called with how many samples were looked at, of all stages, and how many there are."""


@dataclass(frozen=True, slots=True)
class StageInPlan:
    """A stage, its model, and the addresses that follow from both."""

    stage: Stage
    model: ModelFolder
    recipe: StageRecipe
    judges: Mapping[str, str]
    """SHA-256 of the models beside it that label, by kind."""
    embeddings: tuple[TaughtWord, ...] = ()


def plan(
    order: WorkOrder,
    store: Store,
    *,
    on_progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Write the shards of what is missing, then `plan.json`; raise `SpecError` or a `Failure`."""
    stages = stages_of(order.spec)
    store.check()
    store.write(layout.planned_spec(order.revision), _document(_json(order.spec)), JSON)
    size = _shard_size(order.spec)
    watch = _Watch(len(stages) * count_samples(order.spec), on_progress, stop)
    plans = []
    for each in stages:
        with ShardWriter(store, _header(order, each), size) as shards:
            plans.append(_look_at(order.spec, each, Holdings(store, each.recipe), shards, watch))
    watch.finish()
    store.write(layout.plan_summary(order.revision), _document(_summary(order, stages, plans)), JSON)
    return Outcome(ok=True, reason="Planned", message=sentence(plans), plan=plans)


def survey(order: WorkOrder, store: Store | None = None, *, on_progress: Progress | None = None) -> list[StagePlan]:
    """Return what a plan would find, writing nothing; without a store everything is missing."""
    stages = stages_of(order.spec)
    if store is not None:
        store.check()
    size = _shard_size(order.spec)
    watch = _Watch(len(stages) * count_samples(order.spec), on_progress, lambda: False)
    plans = [_look_at(order.spec, each, Holdings(store, each.recipe), ShardCounter(size), watch) for each in stages]
    watch.finish()
    return plans


def stages_of(spec: LabeledDatasetSpec) -> list[StageInPlan]:
    """Find every stage's model; raise `SpecError` naming the field where the spec cannot be planned."""
    if (count := count_samples(spec)) > MAX_SAMPLES:
        raise SpecError(
            "TooManySamples",
            f"spec.prompts: templates, variables and samplesPerPrompt ask for {count:,} pictures a stage; "
            f"{MAX_SAMPLES:,} are the most: ask for fewer, or split the dataset.",
        )
    check_weights(spec)
    judges = {kind: judge.digest for kind, judge in judges_of(spec).items()}
    stages = []
    for number, stage in enumerate(spec.stages):
        if stage.source is not None:
            raise SpecError("UnsupportedStage", f"spec.stages[{number}].{stage.kind}: only txt2img is drawn as yet.")
        uri, field = model_of(spec.stages, stage)
        pin = model_stage(spec.stages, stage).task.model_sha256
        model = resolve(uri, field=field, s3=spec.output.s3, pin=pin, weights=False)
        check_kind(model, stage.kind, field)
        words = find_embeddings(embeddings_of(spec.stages, stage), model, spec.output.s3)
        digests = {word.token: word.digest for word in words}
        recipe = stage_recipe(spec, stage, model.digest, digests, judges=judges)
        stages.append(StageInPlan(stage, model, recipe, judges, words))
    return stages


def sentence(plans: list[StagePlan]) -> str:
    """Return a plan in one sentence."""
    total, reused = sum(s.total for s in plans), sum(s.reused for s in plans)
    if total == reused:
        return f"all {total:,} samples are there already"
    draw, relabel, shards = (sum(getattr(s, part) for s in plans) for part in ("draw", "relabel", "shards"))
    return (
        f"{total:,} samples: {draw:,} to draw, {relabel:,} to label anew, {reused:,} there already; "
        f"{shards:,} shard{'' if shards == 1 else 's'}"
    )


def digests_of(summary: Mapping[str, Any]) -> dict[str, str]:
    """Return each stage's model digest, as `plan.json` says it: later steps find addresses without models."""
    return {stage["name"]: stage["modelDigest"] for stage in summary["stages"]}


def words_in(summary: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the digests of each stage's embeddings by their tokens, as `plan.json` says them."""
    return {
        stage["name"]: {word["token"]: word["digest"] for word in stage.get("embeddings", ())}
        for stage in summary["stages"]
    }


def judges_in(summary: Mapping[str, Any]) -> dict[str, Mapping[str, str]]:
    """Return each stage's digests of the models that label beside it, as `plan.json` says them."""
    return {stage["name"]: stage.get("judges", {}) for stage in summary["stages"]}


@dataclass
class _Watch:
    """Counts samples of all stages; every few thousand it reports, and looks whether to stop."""

    expected: int
    on_progress: Progress | None
    stop: Callable[[], bool]
    looked: int = 0

    def pass_one(self) -> None:
        self.looked += 1
        if self.looked % _LOOK_EVERY:
            return
        if self.stop():
            raise Interrupted("planning was stopped; it begins anew")
        if self.on_progress:
            self.on_progress(self.looked, self.expected)

    def finish(self) -> None:
        if self.on_progress:
            self.on_progress(self.looked, self.looked)


def _look_at(spec: LabeledDatasetSpec, each: StageInPlan, holdings: Holdings, shards: Sink, watch: _Watch) -> StagePlan:
    total, needs = 0, dict.fromkeys(Need, 0)
    for sample in samples_of(spec, each.recipe):
        need = holdings.need(sample.id)
        if need is not None:
            needs[need] += 1
            shards.add(sample, need)
        total += 1
        watch.pass_one()
    return StagePlan(
        name=each.stage.name,
        total=total,
        reused=total - sum(needs.values()),
        draw=needs[Need.DRAW],
        relabel=needs[Need.SEE] + needs[Need.LABEL],
        shards=shards.finish(),
        gpu=any(count for need, count in needs.items() if need.gpu),
    )


def _shard_size(spec: LabeledDatasetSpec) -> int:
    # by all samples, not by the missing ones: those are known only when the first shards are long written
    return samples_per_shard(spec, count_samples(spec))


def _header(order: WorkOrder, each: StageInPlan) -> ShardHeader:
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
        embeddings=each.embeddings,
        detector=order.spec.labeling.detector,
        agreement=order.spec.labeling.agreement,
        clip=order.spec.quality.clip_score,
        witnesses=each.recipe.witnesses,
        judges=each.judges,
    )


def _summary(order: WorkOrder, stages: list[StageInPlan], plans: list[StagePlan]) -> dict[str, Any]:
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
                **({"witnesses": dict(each.recipe.witnesses), "judges": dict(each.judges)} if each.judges else {}),
            }
            for each, found in zip(stages, plans, strict=True)
        ],
    }


def _json(model: LabeledDatasetSpec | StagePlan) -> dict[str, Any]:
    data: dict[str, Any] = model.model_dump(mode="json", by_alias=True)
    return data


def _document(value: Any) -> bytes:
    return canonical(value) + b"\n"
