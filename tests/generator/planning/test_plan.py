"""The plan step: missing results are planned, existing results are kept."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from diffugen_api import layout, prompts
from diffugen_api.contract import StagePlan
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import Expansion, SpecError
from diffugen_api.sample_families import sample_families_of
from diffugen_generator.failures import Interrupted, StoreUnreachable
from diffugen_generator.planning.plan import plan, stages_of, survey
from diffugen_generator.samples.shards import Need
from diffugen_generator.store.folder import FolderStore
from diffugen_generator.store.protocol import BINARY
from tests.generator.made import a_model, an_order, everything_in, planned_shards, run_shards, spec_data


@pytest.fixture
def model(tmp_path: Path) -> str:
    return a_model(tmp_path / "model")


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def needs(order: WorkOrder, store: FolderStore) -> list[list[Need]]:
    return [[row.do for row in rows] for _, rows in planned_shards(order, store)]


def relabeled(model: str) -> WorkOrder:
    return an_order(model, labeling={"attention": {"threshold": 0.6}})


def seen_anew(model: str) -> WorkOrder:
    return an_order(model, labeling={"attention": {"background": ["snow"]}})


def test_an_empty_store_lacks_everything(model: str, store: FolderStore) -> None:
    order = an_order(model, run={"samplesPerShard": 6})

    outcome = plan(order, store)

    assert outcome.reason == "Planned"
    assert outcome.message == "16 samples: 16 to draw, 0 to label again, 0 reused; 3 shards"
    assert outcome.plan == [StagePlan(name="base", total=16, reused=0, draw=16, relabel=0, shards=3, gpu=True)]
    assert needs(order, store) == [[Need.DRAW] * 6, [Need.DRAW] * 6, [Need.DRAW] * 4]


@pytest.mark.parametrize("run_samplers", [False, True])
def test_the_samplers_of_the_stages_that_draw_are_run_when_it_is_asked(
    own_model: Path, store: FolderStore, run_samplers: bool
) -> None:
    """The rules accept these settings. The steps give numbers that are not finite."""
    with_scheduler(own_model, _class_name="EulerAncestralDiscreteScheduler", beta_end=0.999)
    order = an_order(str(own_model))

    for planned in (
        lambda: survey(Expansion(order.spec), run_samplers=run_samplers),
        lambda: plan(order, store, run_samplers=run_samplers),
    ):
        if run_samplers:
            with pytest.raises(SpecError, match=r"^spec\.stages\[0\]\.txt2img\.steps: .* not finite; ") as caught:
                planned()
            assert caught.value.reason == "UnsupportedSteps"
        else:
            planned()


def test_the_samplers_of_the_stages_that_draw_nothing_are_not_run(own_model: Path, store: FolderStore) -> None:
    with_scheduler(own_model, _class_name="EulerAncestralDiscreteScheduler", beta_end=0.999)
    order = an_order(str(own_model))
    plan(order, store)
    run_shards(order, store)

    assert plan(order, store, run_samplers=True).message == "all 16 samples exist already"


def with_scheduler(model: Path, **settings: Any) -> None:
    file = model / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def test_a_finished_store_lacks_nothing(model: str, store: FolderStore) -> None:
    order = an_order(model)
    plan(order, store)
    run_shards(order, store)

    outcome = plan(order, store)

    assert outcome.message == "all 16 samples exist already"
    assert outcome.plan == [StagePlan(name="base", total=16, reused=16, draw=0, relabel=0, shards=0, gpu=False)]


@pytest.mark.parametrize(("edited", "need", "gpu"), [(relabeled, Need.LABEL, False), (seen_anew, Need.SEE, True)])
def test_an_edit_of_the_labeling_draws_nothing(
    edited: Callable[[str], WorkOrder], need: Need, gpu: bool, model: str, store: FolderStore
) -> None:
    plan(an_order(model), store)
    run_shards(an_order(model), store)

    outcome = plan(edited(model), store)

    assert outcome.plan == [StagePlan(name="base", total=16, reused=0, draw=0, relabel=16, shards=1, gpu=gpu)]
    assert needs(edited(model), store) == [[need] * 16]


def test_a_new_value_draws_only_what_is_new(model: str, store: FolderStore) -> None:
    plan(an_order(model), store)
    run_shards(an_order(model), store)
    prompts = spec_data(model)["prompts"]
    prompts["variables"]["color"].append("green")

    outcome = plan(an_order(model, prompts=prompts), store)

    assert outcome.plan == [StagePlan(name="base", total=24, reused=16, draw=8, relabel=0, shards=1, gpu=True)]


def test_an_image_without_its_recipe_is_drawn_again(model: str, store: FolderStore) -> None:
    order = an_order(model)
    plan(order, store)
    run_shards(order, store)
    [recipe, *_] = [key for key in store.list("samples/") if key.endswith("recipe.json")]
    (store.root / recipe).unlink()

    assert plan(order, store).plan == [
        StagePlan(name="base", total=16, reused=15, draw=1, relabel=0, shards=1, gpu=True)
    ]


def test_samples_to_draw_come_first_in_a_mixed_shard(model: str, store: FolderStore) -> None:
    order = an_order(model)
    plan(order, store)
    run_shards(order, store)
    ids = [key.split("/")[-2] for key in store.list("samples/") if key.endswith("recipe.json")]
    [stage] = stages_of(Expansion(order.spec))
    for number, sample in enumerate(ids[:3]):
        (store.root / layout.label("base", stage.recipe.label_id, sample)).unlink()
        if number >= 1:
            (store.root / layout.evidence("base", stage.recipe.evidence_id, sample)).unlink()
        if number >= 2:
            (store.root / layout.recipe("base", sample)).unlink()

    plan(order, store)

    assert needs(order, store) == [[Need.DRAW, Need.SEE, Need.LABEL]]


def test_full_shards_have_work_of_one_kind(model: str, store: FolderStore) -> None:
    plan(an_order(model), store)
    run_shards(an_order(model), store)
    prompts = spec_data(model)["prompts"]
    prompts["variables"]["color"].insert(0, "green")
    order = an_order(model, prompts=prompts, labeling={"attention": {"threshold": 0.6}}, run={"samplesPerShard": 5})

    plan(order, store)

    kinds = [sorted({need.value for need in shard}) for shard in needs(order, store)]
    assert kinds == [["draw"], ["label"], ["label"], ["label"], ["draw", "label"]]


def test_a_large_listing_is_split_over_the_folders(
    model: str, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = an_order(model)
    plan(order, store)
    run_shards(order, store)
    monkeypatch.setattr("diffugen_generator.planning.holdings._PEEK", 5)

    outcome = plan(order, store)

    assert outcome.plan
    assert outcome.plan[0].reused == 16


def test_evidence_is_not_listed_unless_it_is_needed(model: str, tmp_path: Path) -> None:
    listed: list[str] = []

    class Listening(FolderStore):
        def list(self, prefix: str) -> Iterator[str]:
            listed.append(prefix.split("/", maxsplit=1)[0])
            return super().list(prefix)

    order, store = an_order(model), Listening(tmp_path / "store")
    plan(order, store)
    run_shards(order, store)
    plan(order, store)
    assert "evidence" not in listed

    plan(relabeled(model), store)
    assert listed.count("evidence") == 1


def test_foreign_objects_are_skipped(model: str, store: FolderStore) -> None:
    store.write("samples/base/zz/not-an-id/recipe.json", b"{}")
    store.write("samples/base/README.md", b"hello")

    outcome = plan(an_order(model), store)

    assert outcome.plan
    assert outcome.plan[0].draw == 16


def test_every_stage_is_planned(model: str, store: FolderStore) -> None:
    stages = [{"name": name, "txt2img": {"model": model}} for name in ("one", "two")]

    outcome = plan(an_order(model, stages=stages), store)

    assert [(stage.name, stage.draw) for stage in outcome.plan or []] == [("one", 16), ("two", 16)]


def test_warnings_of_the_spec_are_in_the_outcome(model: str, store: FolderStore) -> None:
    prompts = spec_data(model)["prompts"]
    prompts["variables"]["weather"] = ["rain", "fog"]

    outcome = plan(an_order(model, prompts=prompts), store)

    [warning] = outcome.warnings
    assert warning.startswith("spec.prompts.variables.weather: no template has the field {weather}")


def test_the_summary_comes_last_and_names_the_models(model: str, store: FolderStore) -> None:
    order = an_order(model)

    plan(order, store)

    summary = json.loads(store.read(layout.plan_summary(order.revision)))
    [stage] = stages_of(Expansion(order.spec))
    assert summary["revision"] == order.revision
    assert summary["stages"][0]["modelDigest"] == stage.model.digest
    written = sorted((store.root / key).stat().st_mtime_ns for key in store.list("plans/"))
    assert (store.root / layout.plan_summary(order.revision)).stat().st_mtime_ns == written[-1]


def test_planning_twice_writes_the_same_bytes(model: str, store: FolderStore) -> None:
    order = an_order(model, run={"samplesPerShard": 3})
    plan(order, store)
    first = everything_in(store.root)

    plan(order, store)

    assert everything_in(store.root) == first


def test_the_plan_parses_each_template_once_and_finds_the_sample_families_once(
    model: str, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            calls[name] += 1
            return function(*given)

        return call

    monkeypatch.setattr(prompts, "parsed", counted("parsed", prompts.parsed))
    monkeypatch.setattr("diffugen_api.plan.sample_families_of", counted("families", sample_families_of))
    order = an_order(model)

    plan(order, store)

    assert calls == {"parsed": len(order.spec.prompts.templates), "families": 1}


def test_a_survey_writes_nothing(model: str, store: FolderStore) -> None:
    order = an_order(model, run={"samplesPerShard": 6})

    found = survey(Expansion(order.spec), store)

    assert found == survey(Expansion(order.spec)) == plan(order, FolderStore(store.root / "other")).plan
    assert not list(store.list("plans/"))


def test_a_shard_that_cannot_be_written_fails_the_plan(model: str, tmp_path: Path) -> None:
    class Failing(FolderStore):
        def write(self, key: str, data: bytes, content_type: str = BINARY) -> None:
            if key.endswith(".jsonl.gz"):
                raise StoreUnreachable("away")
            super().write(key, data, content_type)

    order, store = an_order(model, run={"samplesPerShard": 1}), Failing(tmp_path / "store")

    with pytest.raises(StoreUnreachable, match="away"):
        plan(order, store)

    assert not store.exists(layout.plan_summary(order.revision))


def test_a_plan_can_be_stopped(model: str, store: FolderStore) -> None:
    prompts = {**spec_data(model)["prompts"], "samplesPerPrompt": 1000}
    order = an_order(model, prompts=prompts)

    with pytest.raises(Interrupted, match="planning was stopped"):
        plan(order, store, stop=lambda: True)

    assert not store.exists(layout.plan_summary(order.revision))


def test_progress_ends_at_the_exact_count(model: str, store: FolderStore) -> None:
    prompts = {**spec_data(model)["prompts"], "templates": ["a {object}"] * 2, "samplesPerPrompt": 2000}
    seen: list[tuple[int, int]] = []

    plan(an_order(model, prompts=prompts), store, on_progress=lambda done, total: seen.append((done, total)))

    assert seen == [(5000, 16000), (8000, 8000)]


def test_an_unknown_model_names_its_stage(store: FolderStore) -> None:
    with pytest.raises(SpecError, match=r"spec.stages\[0\].txt2img.model: ") as failure:
        plan(an_order("/models/none"), store)

    assert failure.value.reason == "UnknownModel"
    assert not store.root.exists()


def test_too_many_samples_are_refused_at_once(model: str, store: FolderStore) -> None:
    prompts = {**spec_data(model)["prompts"], "samplesPerPrompt": 1_000_000}

    with pytest.raises(SpecError, match="ask for 16,000,000 images a stage") as failure:
        plan(an_order(model, prompts=prompts), store)

    assert failure.value.reason == "TooManySamples"


def test_a_template_that_omits_classes_of_some_images_is_refused_before_any_write(
    model: str, store: FolderStore
) -> None:
    alone = {"name": "alone", "inpaint": {"from": "base", "replacements": {"ball": ["moon"]}, "template": "a {object}"}}
    prompts = {
        "templates": ["a {object} {beside}"],
        "variables": {"object": ["ball"], "beside": ["here", "and a star"]},
    }

    with pytest.raises(SpecError, match="'a moon' does not name star") as failure:
        plan(an_order(model, prompts=prompts, stages=[*spec_data(model)["stages"], alone]), store)

    assert failure.value.reason == "ObjectLeftOut"
    assert not store.root.exists()
