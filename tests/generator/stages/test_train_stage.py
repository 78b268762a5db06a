"""A stage that trains a token: planned, run, resumed, and used by the stages that draw."""

import json
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from PIL import Image

from diffugen_api import layout
from diffugen_api.contract import Outcome, ShardCounts, StagePlan, Step
from diffugen_api.errors import SpecError
from diffugen_api.orders import WorkOrder
from diffugen_api.plan import Expansion
from diffugen_generator import worker
from diffugen_generator.commands.display import PlainDisplay
from diffugen_generator.commands.run import run
from diffugen_generator.failures import Interrupted
from diffugen_generator.planning.plan import plan, survey
from diffugen_generator.stages.train_stage import train_stage
from diffugen_generator.store.opening import open_folder
from diffugen_generator.store.protocol import Store
from tests.generator.commands.test_run import a_terminal
from tests.generator.inversion.trainings import write_images
from tests.generator.made import an_order
from tests.generator.pipelines import write_shape

pytestmark = pytest.mark.usefixtures("quick_sample_grids")
TOKEN = "<gem>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_shape(tmp_path / "model", "sd1")
    write_images(tmp_path / "images")
    return tmp_path


def an_order_with_a_word(folder: Path, **changes: Any) -> WorkOrder:
    training = {
        "model": str(folder / "model"),
        "images": str(folder / "images"),
        "token": TOKEN,
        "initializer": "ball",
        "templates": ["a {}"],
        "steps": 6,
        "batchSize": 2,
        **changes,
    }
    drawing = {"model": str(folder / "model"), "steps": 1, "guidanceScale": 1, "embeddings": [{"from": "concept"}]}
    return an_order(
        "",
        classes=[{"name": "star", "synonyms": [TOKEN]}],
        prompts={"templates": ["a {object} on {place}"], "variables": {"object": [TOKEN], "place": ["snow", "sand"]}},
        stages=[{"name": "base", "txt2img": drawing}, {"name": "concept", "textualInversion": training}],
        quality={"minInstances": 0},
    )


def a_store(folder: Path, order: WorkOrder) -> Store:
    return open_folder(folder / "store", order.namespace, order.name)


def surveyed(folder: Path, order: WorkOrder) -> list[StagePlan]:
    """Return the plans of the stages, with the counts of the store."""
    return survey(Expansion(order.spec), a_store(folder, order))


def run_here(folder: Path, order: WorkOrder) -> Any:
    display = PlainDisplay(a_terminal())
    return run(order, a_store(folder, order), display, device="cpu", stop=Event())


def trained_in(folder: Path, order: WorkOrder) -> dict[str, Any]:
    """The parts of `plan.json` about the trainings, by stage."""
    summary = json.loads(a_store(folder, order).read(layout.plan_summary(order.revision)))
    return {each["name"]: each for each in summary["trainings"]}


def samples_in(folder: Path, order: WorkOrder) -> set[str]:
    return {key for key in a_store(folder, order).list(layout.SAMPLES) if key.endswith("recipe.json")}


def test_the_plan_has_one_sample_for_the_token(folder: Path) -> None:
    order = an_order_with_a_word(folder)

    base, concept = survey(Expansion(order.spec))

    assert (base.total, base.draw) == (2, 2)
    assert (concept.name, concept.total, concept.draw, concept.shards, concept.gpu) == ("concept", 1, 1, 1, True)


def test_a_run_trains_the_token_and_draws_with_it_and_repeats_neither(folder: Path) -> None:
    order = an_order_with_a_word(folder)

    first = run_here(folder, order)
    drawn = samples_in(folder, order)
    second = run_here(folder, order)

    assert [(stage.plan.name, stage.counts.labelled) for stage in first.stages] == [("base", 2), ("concept", 1)]
    assert [(stage.plan.reused, stage.counts.total) for stage in second.stages] == [(2, 0), (1, 0)]
    assert samples_in(folder, order) == drawn
    address = trained_in(folder, order)["concept"]["address"]
    files = {key.rpartition("/")[2] for key in a_store(folder, order).list(layout.trained(address, ""))}
    assert files == {"learned_embeds.safetensors", "card.json", "samples.png", "loss.png"}
    assert all(layout.is_ours(layout.trained(address, file)) for file in files)
    recipe = json.loads(a_store(folder, order).read(min(drawn)))
    assert recipe["drawing"]["embeddings"] == {TOKEN: address}


def test_a_changed_training_draws_again_and_other_prompts_train_nothing(folder: Path) -> None:
    run_here(folder, an_order_with_a_word(folder))

    other_seed = surveyed(folder, an_order_with_a_word(folder, seed=5))
    Image.new("RGB", (64, 64), "red").save(folder / "images/more.png")
    other_images = surveyed(folder, an_order_with_a_word(folder))
    (folder / "images/more.png").unlink()
    same = surveyed(folder, an_order_with_a_word(folder))

    assert [(each.draw, each.reused) for each in other_seed] == [(2, 0), (1, 0)]
    assert [(each.draw, each.reused) for each in other_images] == [(2, 0), (1, 0)]
    assert [(each.draw, each.reused) for each in same] == [(0, 2), (0, 1)]


def test_a_damaged_checkpoint_is_named_and_the_training_begins_anew(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    order, steps = an_order_with_a_word(folder), list[int]()
    store = a_store(folder, order)
    plan(order, store)
    key = layout.trained(trained_in(folder, order)["concept"]["address"], "checkpoint.safetensors")
    store.write(key, b"\x02\0\0\0\0\0\0\0{}")

    train_stage(order.spec, "concept", store, device="cpu", on_progress=lambda state, _: steps.append(state.step))

    assert f"{key} is damaged (not a checkpoint: '__metadata__')" in caplog.text
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_killed_training_continues_from_the_checkpoint_in_the_store(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    order, whole = an_order_with_a_word(folder), an_order_with_a_word(folder)
    store, stop, steps = a_store(folder, order), Event(), list[int]()
    plan(order, store)

    def stop_at_half_time(state: Any, total: int) -> None:
        assert total == 6
        if state.step == 3:
            stop.set()

    with pytest.raises(Interrupted, match="stopped after 3 of 6 steps"):
        train_stage(order.spec, "concept", store, device="cpu", on_progress=stop_at_half_time, stop=stop)
    counts = train_stage(
        order.spec, "concept", store, device="cpu", on_progress=lambda state, _: steps.append(state.step)
    )
    again = train_stage(order.spec, "concept", store, device="cpu")

    assert steps == [4, 5, 6]
    assert "damaged" not in caplog.text
    assert (counts, again) == (ShardCounts(total=1, labelled=1), ShardCounts(total=1, reused=1))
    other = open_folder(folder / "other", whole.namespace, whole.name)
    train_stage(whole.spec, "concept", other, device="cpu")
    key = layout.trained(trained_in(folder, order)["concept"]["address"], "learned_embeds.safetensors")
    assert store.read(key) == other.read(key)


@pytest.mark.parametrize("file", ["learned_embeds.safetensors", "card.json"])
def test_a_damaged_result_is_named_and_trained_again(file: str, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    order = an_order_with_a_word(folder)
    store = a_store(folder, order)
    plan(order, store)
    train_stage(order.spec, "concept", store, device="cpu")
    address = trained_in(folder, order)["concept"]["address"]
    key, vectors = (layout.trained(address, name) for name in (file, "learned_embeds.safetensors"))
    before = store.read(vectors)
    data = bytearray(store.read(key))
    data[-1] ^= 1 if file.endswith("safetensors") else 255
    store.write(key, bytes(data))

    assert [each.draw for each in surveyed(folder, order) if each.name == "concept"] == [1]
    assert f"{key} is damaged" in caplog.text
    assert train_stage(order.spec, "concept", store, device="cpu").labelled == 1
    assert store.read(vectors) == before
    assert train_stage(order.spec, "concept", store, device="cpu").reused == 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"images": "/nowhere"}, r"spec\.stages\[1\]\.textualInversion\.images: there is no folder '/nowhere'"),
        ({"images": "s3://bucket/images"}, r"spec\.stages\[1\]\.textualInversion\.images: .* give spec\.output\.s3"),
        (
            {"token": "star"},
            r"spec\.stages\[1\]\.textualInversion\.token: 'star' is a word that the model knows already",
        ),
        ({"vectors": 32}, r"spec\.stages\[1\]\.textualInversion\.vectors: 32 is more than the 18 tokens of a prompt"),
        ({"model": "/gone"}, r"spec\.stages\[1\]\.textualInversion\.model: there is no folder '/gone'"),
    ],
)
def test_the_plan_refuses_trainings_that_cannot_run(folder: Path, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(SpecError, match=expected):
        survey(Expansion(an_order_with_a_word(folder, **changes).spec))


def test_a_token_for_other_text_encoders_is_refused(folder: Path) -> None:
    write_shape(folder / "other", "sd2")

    with pytest.raises(SpecError, match=r"embeddings\[0\]\.from: stage 'concept' trains with .*/other, whose text enc"):
        survey(Expansion(an_order_with_a_word(folder, model=str(folder / "other")).spec))


def test_the_steps_in_pods_train_draw_and_publish(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = an_order_with_a_word(folder)
    (folder / "order.json").write_text(order.dumps())
    log = folder / "termination-log"
    environ = {"DIFFUGEN_ORDER": str(folder / "order.json"), "DIFFUGEN_TERMINATION_LOG": str(log)}
    monkeypatch.setattr(worker, "_stop_on_signals", Event)

    def step(step: Step, stage: str = "") -> Outcome:
        code = worker.work(step, stage=stage, folder=folder / "store", environ={**environ, "JOB_COMPLETION_INDEX": "0"})
        outcome = Outcome.loads(log.read_text())
        assert outcome is not None
        assert code == 0, outcome.message
        return outcome

    planned = step(Step.PLAN).plan
    assert planned is not None
    assert [(each.name, each.total, each.shards) for each in planned] == [("base", 2, 1), ("concept", 1, 1)]
    assert step(Step.STAGE, "concept").message == "the word is trained"
    assert step(Step.STAGE, "concept").message == "the word was trained already"
    drawn = step(Step.STAGE, "base").counts
    assert drawn is not None
    assert (drawn.total, drawn.drawn, drawn.labelled) == (2, 2, 2)
    published = step(Step.PUBLISH).published
    assert published is not None
    assert published.samples == 2
