"""Specs whose content addresses are stored in tests/api/golden: the examples, and 200 generated ones.

The generator must not change. It uses only `Random(seed).random()`, whose sequence Python guarantees. Do not change
what it yields. A new field of the spec goes into `LATER` of test_golden_addresses, with a test of its own.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import yaml

COUNT = 200
EXAMPLES = Path(__file__).parents[2] / "examples"
PINNED = ("shapes", "shapes-both", "shapes-graph")
"""The examples whose addresses are stored; an example that is added later needs no entry."""

T = TypeVar("T")

CLASSES: list[dict[str, Any]] = [
    {"name": "ball", "synonyms": ["sphere", "round thing"]},
    {"name": "star", "synonyms": ["pentagram"], "detectorClass": "five-pointed star"},
    {"name": "Traffic Light"},
    {"name": "box", "detectorClass": "square"},
    {"name": "cube", "detectorClass": "square"},
]
OBJECTS = ["ball", "star", "Traffic light", "box", "pentagram", "sphere", "cube"]
SCHEDULERS = [
    "ddim", "ddpm", "deis", "dpmsolver++", "dpmsolver++_karras", "dpmsolver++_sde", "euler", "euler_a", "heun", "lcm",
    "lms", "pndm", "unipc",
]  # fmt: skip


class Draw:
    """Choices from one seeded sequence of numbers in [0, 1)."""

    def __init__(self, seed: int) -> None:
        self._next = Random(seed).random

    def chance(self, of: float) -> bool:
        return self._next() < of

    def number(self, least: int, most: int) -> int:
        return least + int(self._next() * (most - least + 1))

    def real(self, least: float, most: float) -> float:
        return round(least + self._next() * (most - least), 3)

    def one(self, values: Sequence[T]) -> T:
        return values[int(self._next() * len(values))]

    def some(self, values: Sequence[T], count: int) -> list[T]:
        left = list(values)
        return [left.pop(int(self._next() * len(left))) for _ in range(min(count, len(left)))]

    def maybe(self, of: float, **fields: Any) -> dict[str, Any]:
        """Return each of the fields with probability `of`; every call takes as many numbers."""
        return {name: value for name, value in fields.items() if self._next() < of}


def examples() -> Iterator[tuple[str, dict[str, Any]]]:
    for name in PINNED:
        yield name, yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())["spec"]


def generated() -> Iterator[tuple[str, dict[str, Any]]]:
    for seed in range(COUNT):
        yield f"generated-{seed:03d}", a_generated_spec(Draw(seed))


def a_generated_spec(draw: Draw) -> dict[str, Any]:
    kept = ["name", "synonyms", *(["detectorClass"] if draw.chance(0.8) else [])]
    weigh = draw.one([compel, compel, a1111])
    return {
        "classes": [{name: each[name] for name in kept if name in each} for each in CLASSES],
        **draw.maybe(0.7, image=_image(draw), seed=draw.number(0, 2**53 - 1), suspend=draw.chance(0.5)),
        **draw.maybe(
            0.4, regenerateToken=draw.one(["", "again", "é 2"]), deletionPolicy=draw.one(["Retain", "Delete"])
        ),
        **draw.maybe(0.4, revisionHistoryLimit=draw.number(1, 10)),
        "prompts": _prompts(draw, weigh),
        "stages": _stages(draw, weigh),
        **draw.maybe(0.8, labeling=_labeling(draw), quality=_quality(draw)),
        **draw.maybe(0.7, output=_output(draw), run=_run(draw)),
    }


def _image(draw: Draw) -> dict[str, Any]:
    return draw.maybe(
        0.7,
        width=8 * draw.number(8, 256),
        height=8 * draw.number(8, 256),
        format=draw.one(["png", "jpeg", "webp"]),
    )


def compel(text: str) -> str:
    return f"({text})1.2"


def a1111(text: str) -> str:
    return f"({text}:1.3)"


def _prompts(draw: Draw, weigh: Callable[[str], str]) -> dict[str, Any]:
    templates = [
        "a {color} {object} on {place}",
        "{object} in the {color} light",
        "one {object}",
        f"{{{{a}}}} {{color}} {{object}}, {weigh('on {place}')}",
        "a photo of a {object}  on\t{place}, \\(plain\\)",
        f"{weigh('a {object}')} on {{place}}",
        "a {object}  and a {object} on {place}",
        "a red sphere, {place}",
        "Grüße: {object}, «{place}»",
    ]
    zipped = draw.chance(0.25)
    each = 3
    return {
        "templates": draw.some(templates, draw.number(1, 3)),
        "variables": {
            "object": draw.some(OBJECTS, each if zipped else draw.number(1, 3)),
            "color": draw.some(["red", "blue", "dark green", weigh("yellow"), "(pink)"], each if zipped else 2),
            "place": draw.some(["snow", "sand", "a table", "wet grass"], each if zipped else draw.number(1, 3)),
        },
        **({"combine": "zip"} if zipped else draw.maybe(0.3, combine="product")),
        **draw.maybe(0.25, sample=draw.number(1, 9)),
        **draw.maybe(0.4, negative=draw.one(["", "blurry", f"{weigh('blurry')}, low quality"])),
        **draw.maybe(0.4, samplesPerPrompt=draw.number(1, 4)),
        **draw.maybe(0.3, syntax=draw.one(["auto", "none", weigh.__name__])),
    }


def _stages(draw: Draw, weigh: Callable[[str], str]) -> list[dict[str, Any]]:
    stages: list[dict[str, Any]] = [_txt2img(draw, "base")]
    if draw.chance(0.2):
        stages.append(_txt2img(draw, "second"))
    if draw.chance(0.5):
        stages.append(_img2img(draw, weigh, "redrawn", draw.one([each["name"] for each in stages])))
    if draw.chance(0.5):
        stages.append(_inpaint(draw, weigh, "replaced", draw.one([each["name"] for each in stages])))
    if draw.chance(0.3):
        stages.append(_img2img(draw, weigh, "last", stages[-1]["name"]))
    return draw.some(stages, len(stages))


def _drawing(draw: Draw) -> dict[str, Any]:
    embeddings = [
        {"uri": "builtin://shapes/a.safetensors", "token": "<round-Thing>"},
        {"uri": "s3://words/b.pt", "token": "Pent-A"},
    ]
    # The stored addresses are from when the default scale was 7.5. A spec that names 7.5 has the same addresses.
    return {"guidanceScale": 7.5} | draw.maybe(
        0.4,
        steps=draw.number(1, 60),
        scheduler=draw.one(SCHEDULERS),
        guidanceScale=draw.one([1, 3, 7.5, draw.real(1, 50)]),
        modelSHA256=f"{draw.number(0, 2**52):064x}",
        embeddings=draw.some(embeddings, draw.number(0, 2)),
    )


def _txt2img(draw: Draw, name: str) -> dict[str, Any]:
    model = draw.one(["builtin://shapes", "hf://org/name@abc", "s3://models/sd15"])
    return {"name": name, "txt2img": {"model": model, **_drawing(draw)}}


def _img2img(draw: Draw, weigh: Callable[[str], str], name: str, source: str) -> dict[str, Any]:
    variables = {
        "place": draw.some(["mud", "snow", weigh("fog")], 2),
        **draw.maybe(0.4, object=draw.some(OBJECTS, 2)),
    }
    task = {"from": source, "variables": variables, **_drawing(draw)}
    task |= draw.maybe(0.4, strength=draw.one([1, draw.real(0.01, 1)]), model="hf://org/other@def")
    return {"name": name, "img2img": task}


def _inpaint(draw: Draw, weigh: Callable[[str], str], name: str, source: str) -> dict[str, Any]:
    replacements = {
        "ball": draw.some(["golden orb", "small star", "ball with stripes", weigh("moon")], 2),
        "star": draw.some(["sun", "gray box"], 1),
        "Traffic Light": ["street lamp"],
        "box": ["crate"],
        "cube": ["die"],
    }
    task: dict[str, Any] = {"from": source, "replacements": replacements, **_drawing(draw)}
    task |= draw.maybe(0.4, strength=draw.real(0.01, 1), model="hf://org/inpainting@def")
    task |= draw.maybe(0.4, instances=draw.one(["all", "largest"]), dilation=draw.real(0, 0.5))
    task |= draw.maybe(0.3, template="a painting of a {object}")
    return {"name": name, "inpaint": task}


def _labeling(draw: Draw) -> dict[str, Any]:
    attention = draw.maybe(
        0.5,
        capture=draw.one(["posthoc", "inline"]),
        refine=draw.chance(0.5),
        threshold=draw.one(["auto", draw.real(0.05, 0.95), 0.5]),
        ignoreBand=draw.one([0, draw.real(0, 0.5)]),
        minPresence=draw.one([0, draw.real(0, 1)]),
        snap=draw.chance(0.5),
        background=draw.some(["snow", "sand", "wet grass"], draw.number(0, 3)),
    )
    kind = draw.one(["transformers", "yolo", "open-vocabulary"])
    detector = {
        "type": kind,
        "model": draw.one(["builtin://shapes-segmenter", "hf://org/segmenter@abc"]),
        **({"sha256": "ab" * 32} if kind == "yolo" or draw.chance(0.2) else {}),
        **({"maskModel": "hf://org/sam2@abc"} if kind == "open-vocabulary" else {}),
        **draw.maybe(0.5, confidence=draw.one([1, draw.real(0.05, 1)]), iou=draw.one([0, draw.real(0, 1)])),
    }
    which = draw.one(["attention", "detector", "both"])
    return {
        **({"attention": attention} if which != "detector" else {}),
        **({"detector": detector} if which != "attention" else {}),
        **draw.maybe(0.5, agreement=draw.real(0, 1)),
    }


def _quality(draw: Draw) -> dict[str, Any]:
    return draw.maybe(
        0.5,
        minInstances=draw.number(0, 9),
        minAreaFraction=draw.real(0, 0.1),
        maxAreaFraction=draw.one([1, draw.real(0.2, 1)]),
        minBorderDistance=draw.number(0, 9),
        duplicates=draw.maybe(0.5, maxDistance=draw.number(0, 10)),
        clipScore={"model": "hf://org/clip@abc", **draw.maybe(0.5, min=draw.real(-1, 1))},
        safety={"model": "hf://org/checker@abc", **draw.maybe(0.5, max=draw.real(-1, 1))},
    )


def _output(draw: Draw) -> dict[str, Any]:
    s3 = {"endpoint": "http://minio:9000", "bucket": "datasets"}
    s3_more = draw.maybe(0.5, prefix=draw.one(["a", "a/b"]), region="eu-west-1", secretRef={"name": "store"})
    splits = draw.one([{"train": 1}, {"train": 0.8, "val": 0.2}, {"train": 0.5, "val": 0.25, "test": 0.25}])
    formats = draw.one([["coco"], ["yolo"], ["yolo", "coco"]])
    return draw.maybe(0.7, s3={**s3, **s3_more}, formats=formats, splits=splits)


def _run(draw: Draw) -> dict[str, Any]:
    return draw.maybe(
        0.5,
        samplesPerShard=draw.number(1, 100),
        parallelism=draw.number(1, 9),
        queueName="gpus",
        resources={"limits": {"nvidia.com/gpu": 1}, "requests": {"cpu": "500m"}},
        image="generator:1",
        podTemplate={"spec": {"nodeSelector": {"zone": "a"}}},
        backoffLimitPerShard=draw.number(0, 9),
        activeDeadlineSeconds=draw.number(1, 9999),
        dtype=draw.one(["auto", "float32", "float16", "bfloat16"]),
        batchSize=draw.number(1, 9),
        modelCache={"persistentVolumeClaim": "models"},
    )
