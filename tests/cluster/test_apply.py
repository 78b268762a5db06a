"""What `kubectl apply` refuses, and whether the message names the field and what to do."""

from typing import Any

import pytest

from tests.cluster.world import ROOT, Json, World

MANY_CLASSES = [{"name": f"object no. {n}"} for n in range(2000)]
STAGE = {"name": "base", "txt2img": {"model": "builtin://shapes"}}


def drawn_from(source: str) -> Json:
    return {"img2img": {"from": source, "variables": {"place": ["snow"]}}}


def refusals() -> list[Any]:
    return [
        pytest.param({"classes": []}, ["spec.classes", "at least 1"], id="no classes"),
        pytest.param({"classes": None}, ["spec.classes", "Required value"], id="classes missing"),
        pytest.param(
            {"classes": [{"name": "ball"}, {"name": "ball"}]},
            ["spec.classes[1]: Duplicate value", '"name":"ball"'],
            id="duplicate class names",
        ),
        pytest.param(
            {"classes": MANY_CLASSES, "output": {"formats": ["masks", "voc"]}},
            ["spec", "the masks of voc have values for at most 254 classes: remove voc from output.formats"],
            id="more classes than a mask of voc has values",
        ),
        pytest.param(
            {"classes": [*MANY_CLASSES[:1999], {"name": "object no. 7"}]},
            ["spec.classes[1999]: Duplicate value", '"name":"object no. 7"'],
            id="a duplicate among 2,000 classes",
        ),
        pytest.param({"classes": [*MANY_CLASSES, {"name": "ball"}]}, ["spec.classes", "2000"], id="one class too many"),
        pytest.param({"image": {"width": 100}}, ["spec.image.width", "multiple of 8"], id="width not a multiple of 8"),
        pytest.param(
            {"output": {"splits": {"train": 0.8, "val": 0.1}}},
            ["spec.output.splits", "splits must add up to 1: for example train 0.8, val 0.1, test 0.1"],
            id="splits that do not add up",
        ),
        pytest.param(
            {"stages": [STAGE, STAGE]},
            ["spec.stages", "stage names must be unique: rename or remove the duplicates"],
            id="two stages of one name",
        ),
        pytest.param(
            {"prompts": {"templates": []}},
            ["spec.prompts", "there is nothing to draw: give templates, a file, or both"],
            id="neither templates nor a file",
        ),
        pytest.param(
            {"labeling": {}},
            ["spec.labeling", "labeling names no labeler: give attention: {}, or a detector, or both"],
            id="no labeller",
        ),
        pytest.param(
            {"labeling": {"detector": {"type": "open-vocabulary", "model": "/models/owl"}}},
            ["spec.labeling.detector", "maskModel goes with type open-vocabulary"],
            id="boxes without masks",
        ),
        pytest.param(
            {"labeling": {"detector": {"type": "yolo", "model": "/models/m.pt"}}},
            ["spec.labeling.detector", "pin it by sha256"],
            id="a pickle without a pin",
        ),
        pytest.param({"colour": "red"}, ['unknown field "spec.colour"'], id="unknown field"),
        pytest.param(
            {"stages": [{"name": "base", "txt2img": {"model": "m", "stepz": 3}}]},
            ['unknown field "spec.stages[0].txt2img.stepz"'],
            id="unknown field in a list",
        ),
        pytest.param(
            {"stages": [{"name": "base"}]},
            ["spec.stages[0]", "a stage is exactly one of txt2img, img2img, inpaint and textualInversion: give it one"],
            id="a stage of no kind",
        ),
        pytest.param(
            {"stages": [{**STAGE, **drawn_from("base")}]},
            ["spec.stages[0]", "a stage is exactly one of txt2img, img2img, inpaint and textualInversion: give it one"],
            id="a stage of two kinds",
        ),
        pytest.param(
            {"stages": [STAGE, {"name": "snow", **drawn_from("bse")}]},
            ["spec.stages", "from must name another stage: rename it"],
            id="from no stage",
        ),
        pytest.param(
            {"stages": [STAGE, {"name": "snow", **drawn_from("snow")}]},
            ["spec.stages", "from must name another stage: rename it"],
            id="from itself",
        ),
        pytest.param(
            {"stages": [STAGE, *({"name": f"s{n}", **drawn_from(f"s{(n + 1) % 15}")} for n in range(15))]},
            [
                "spec.stages",
                "stages draw from one another in a circle: let one of them draw from a stage outside the circle",
            ],
            id="a circle of fifteen",
        ),
        pytest.param(
            {"stages": [STAGE, {"name": "new", "inpaint": {"from": "base", "replacements": {"bal": ["red ball"]}}}]},
            ["spec", "the keys of inpaint.replacements must be classes"],
            id="a replacement of no class",
        ),
        pytest.param(
            {"labeling": {"attention": {"threshold": 0.99}}},
            ["spec.labeling.attention.threshold", "should be less than or equal to 0.95"],
            id="a threshold above its range",
        ),
        pytest.param(
            {"labeling": {"attention": {"threshold": "otsu"}}},
            ["spec.labeling.attention.threshold", "^auto$"],
            id="a threshold that is neither a number nor auto",
        ),
        pytest.param(
            {"prompts": {"variables": {"2nd": ["a"]}}},
            ["spec.prompts.variables", "a variable's name is letters, digits and _"],
            id="a variable that no template can name",
        ),
        pytest.param(
            {"output": {"s3": {"endpoint": "minio:9000"}}},
            ["spec.output.s3.endpoint", "should match"],
            id="an endpoint without a scheme",
        ),
    ]


@pytest.mark.parametrize(("changes", "said"), refusals())
def test_a_bad_manifest_is_refused_with_the_field_and_the_fix(world: World, changes: Json, said: list[str]) -> None:
    message = world.refusal(world.manifest(**changes))

    for words in said:
        assert words in message


def test_a_chain_of_sixteen_stages_is_accepted_in_any_order(world: World) -> None:
    chain = [{"name": f"s{n}", **drawn_from(f"s{n + 1}" if n < 14 else "base")} for n in range(15)]

    world.apply(stages=[*chain, STAGE], suspend=True)


def test_two_thousand_classes_are_accepted_with_fifteen_stages_that_replace_them(world: World) -> None:
    stages = [
        {
            "name": f"new{number}",
            "inpaint": {
                "from": "base",
                "replacements": {each["name"]: ["red ball"] for each in MANY_CLASSES[1999 - 32 * number :][:32]},
            },
        }
        for number in range(1, 16)
    ]
    variables = {"object": [each["name"] for each in MANY_CLASSES]}

    world.apply(classes=MANY_CLASSES, prompts={"variables": variables}, stages=[STAGE, *stages], suspend=True)

    assert [each["name"] for each in world.get()["spec"]["classes"]] == variables["object"]


@pytest.mark.parametrize("server_side", [False, True])
def test_another_order_of_the_classes_is_taken_over(world: World, *, server_side: bool) -> None:
    """The order gives the class ids in every export."""
    orders = [["ball", "star"], ["star", "ball"], ["box", "star"], ["star", "box", "ball"]]

    for names in orders:
        manifest = world.manifest(classes=[{"name": name} for name in names], suspend=True)
        world.applied(manifest, server_side=server_side)
        assert [each["name"] for each in world.get()["spec"]["classes"]] == names


def test_the_examples_are_accepted(world: World) -> None:
    files = [file for file in sorted((ROOT / "examples").glob("*.yaml")) if file.stem != "kueue"]  # which needs Kueue
    given = [word for file in files for word in ("-f", str(file))]

    done = world.kubectl("apply", "--dry-run=server", "--validate=strict", "-n", world.namespace, *given)

    assert done.count("created (server dry run)") == len(files) > 5, done


def test_splits_may_be_integers(world: World) -> None:
    world.apply(output={"splits": {"train": 1, "val": 0, "test": 0}}, suspend=True)


@pytest.mark.parametrize("threshold", ["auto", 0.5])
def test_a_threshold_is_a_number_or_auto(world: World, threshold: str | float) -> None:
    world.apply(labeling={"attention": {"threshold": threshold}}, suspend=True)

    assert world.get()["spec"]["labeling"]["attention"]["threshold"] == threshold


def test_the_api_server_writes_no_defaults_into_the_spec(world: World) -> None:
    manifest = world.apply(suspend=True)

    assert world.get()["spec"] == manifest["spec"]


def test_a_new_object_is_not_read_as_current(world: World) -> None:
    world.apply(suspend=True)

    assert world.get()["status"]["observedGeneration"] == -1, "no operator runs here, so nobody has observed it"
