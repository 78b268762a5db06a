"""Reads DiffuGen's configuration file: its keys, their meaning, and the keys that have no effect.

The keys are those that DiffuGen's three programs read (generate/txt2img.py, img2img.py and inpaint.py of
https://github.com/mshenoda/diffugen at 504bc72), and those that its sample files have and no program reads:
`dataset_classes`, `deterministic`, `txt2img.image_count` and `txt2img.textual_inversion.keyword`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from diffugen_generator.importers.json_fields import InvalidConfigError, JsonFields, Problem

VARIABLES: Final[Mapping[str, str]] = {
    "view_points": "view_point",
    "object_names": "object_name",
    "times_of_day": "time_of_day",
    "sky_conditions": "sky_condition",
    "weather_conditions": "weather_condition",
}
"""The five lists, and the field of the prompts that each one fills."""
CHANGED: Final = ("times_of_day", "sky_conditions", "weather_conditions")
"""The lists that img2img changes."""
YOLO: Final = "YOLOSeg"
_MOST = 2**31 - 1
_NOT_CLASSES: Final = ("stable_diffusion_model", "source_dataset")
_MODEL_FIX = 'give it a model, such as "ORG/NAME", or use --model'


@dataclass(frozen=True, slots=True)
class LabelModel:
    """`label_model`: the segmenter of the supervised mode."""

    type: str
    weights: str
    classes: str
    """The file that has the names of the model's classes, one a line."""


@dataclass(frozen=True, slots=True)
class TextualInversion:
    """`txt2img.textual_inversion`: a word that was trained for the text encoder."""

    weights: str
    keyword: str
    """Empty where the file has none; DiffuGen never reads it."""


@dataclass(frozen=True, slots=True)
class TextToImage:
    """`txt2img`: the set of images that all other sets are made from."""

    model: str
    prompts: list[str]
    lists: Mapping[str, list[str]]
    """The values of each list by the list's name; lists that are not in the file are absent."""
    negative: str
    seeds: tuple[int, int]
    seeds_per_prompt: int
    image_count: int | None
    inversion: TextualInversion | None


@dataclass(frozen=True, slots=True)
class ImageToImage:
    """`img2img`: the images of a set, drawn again with another time of day, sky or weather."""

    model: str
    source: str
    lists: Mapping[str, list[str]]


@dataclass(frozen=True, slots=True)
class Inpainting:
    """`inpaint`: the largest object of each image, replaced."""

    model: str
    source: str
    replacements: Mapping[str, list[str]]
    """What to draw in place of each object, by the object's name."""


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration file."""

    name: str
    root: str
    image_format: str
    width: int
    height: int
    steps: int
    unsupervised: bool
    images_per_shard: int
    dataset_classes: list[str]
    class_map: Mapping[str, str]
    label_model: LabelModel | None
    txt2img: TextToImage
    img2img: ImageToImage | None
    inpaint: Inpainting | None
    deterministic: bool | None
    unknown: Mapping[str, Any] = field(default_factory=dict)
    """Keys that neither DiffuGen nor this program reads, and their values."""

    def set_of(self, program: str) -> str:
        """Return the folder that a program (txt2img, img2img, inpaint) writes, as DiffuGen joins it."""
        return f"{self.root}/{self.name}/{program}"


def read_config(text: str) -> Config:
    """Read a configuration file; raise `InvalidConfigError` with all of its problems."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidConfigError([Problem("", f"it is not JSON: {where}: {error.msg}; correct it there")]) from None
    except RecursionError:
        raise InvalidConfigError(
            [Problem("", "it is nested too deeply; give a configuration file of DiffuGen")]
        ) from None
    except ValueError:
        raise InvalidConfigError([Problem("", "it has a number of too many digits; shorten it")]) from None
    if not isinstance(data, dict):
        raise InvalidConfigError([Problem("", "it is not a JSON object; give a configuration file of DiffuGen")])
    problems: list[Problem] = []
    config = _config(JsonFields(data, problems))
    if problems:
        raise InvalidConfigError(problems)
    return config


def _config(top: JsonFields) -> Config:
    size = top.child("image_size", 'write {"width": 512, "height": 512}')
    text = top.child("txt2img", "DiffuGen's other programs read its prompts and its images")
    image = top.child("img2img")
    paint = top.child("inpaint")
    config = Config(
        name=top.text("dataset_name", "give the dataset a name"),
        root=top.text("dataset_root"),
        image_format=top.text("image_format") or "png",
        width=_side(size, "width"),
        height=_side(size, "height"),
        steps=top.integer("steps", 1, 1000, "write the number of sampling steps, such as 50"),
        unsupervised=top.flag("unsupervised", "write true for labels from attention, false for the label model's"),
        images_per_shard=top.integer("images_per_shard", 1, _MOST) if "images_per_shard" in top else 0,
        dataset_classes=top.texts("dataset_classes") if "dataset_classes" in top else [],
        class_map=top.map_of_texts("dataset_to_model_class_map"),
        label_model=_label_model(top),
        txt2img=_txt2img(text or JsonFields({}, [])),
        img2img=_img2img(image),
        inpaint=_inpaint(paint),
        deterministic=top.flag("deterministic") if "deterministic" in top else None,
    )
    unknown = dict(top.unread())
    return config if not unknown else _with_unknown(config, unknown)


def _with_unknown(config: Config, unknown: Mapping[str, Any]) -> Config:
    values = {name: getattr(config, name) for name in Config.__dataclass_fields__}
    return Config(**{**values, "unknown": unknown})


def _side(size: JsonFields | None, name: str) -> int:
    if size is None:
        return 512
    value = size.integer(name, 64, 2048, "write the size in pixels, such as 512")
    if value % 8:
        size.fault(name, f"{value} is not a multiple of 8, and DiffuGen's model refuses it too; write {value // 8 * 8}")
    return value


def _label_model(top: JsonFields) -> LabelModel | None:
    fields = top.child("label_model")
    if fields is None:
        return None
    return LabelModel(fields.text("type"), fields.text("weights"), fields.text("classes"))


def _txt2img(fields: JsonFields) -> TextToImage:
    seeds = fields.child("seed_range")
    inversion = fields.child("textual_inversion")
    found = TextToImage(
        model=fields.text("stable_diffusion_model"),
        prompts=fields.texts("prompts", "give it one prompt or more"),
        lists={name: fields.texts(name) for name in VARIABLES if name in fields},
        negative=fields.text("negative_prompt"),
        seeds=(0, 0) if seeds is None else (_seed(seeds, "min"), _seed(seeds, "max")),
        seeds_per_prompt=fields.integer(
            "seed_count_per_prompt", 1, 1_000_000, "write how many images each prompt gets"
        ),
        image_count=fields.integer("image_count", 0, _MOST) if "image_count" in fields else None,
        inversion=None
        if inversion is None
        else TextualInversion(
            inversion.text("weights", "write the path of the embedding's file"), inversion.text("keyword")
        ),
    )
    if found.seeds[0] > found.seeds[1]:
        fields.fault("seed_range", f"min {found.seeds[0]} is greater than max {found.seeds[1]}; exchange them")
    return found


def _seed(fields: JsonFields, name: str) -> int:
    return fields.integer(name, 0, 2**53 - 1, "write the seed at that end of the range")


def _img2img(fields: JsonFields | None) -> ImageToImage | None:
    if fields is None:
        return None
    return ImageToImage(
        model=fields.text("stable_diffusion_model"),
        source=fields.text("source_dataset", "write the folder of the set that is drawn again"),
        lists={name: fields.texts(name, "give it one value or more") for name in CHANGED},
    )


def _inpaint(fields: JsonFields | None) -> Inpainting | None:
    if fields is None:
        return None
    found = Inpainting(
        model=fields.text("stable_diffusion_model"),
        source=fields.text("source_dataset", "write the folder of the set whose objects are replaced"),
        replacements={name: fields.texts(name) for name in fields.names() if name not in _NOT_CLASSES},
    )
    if not found.replacements:
        fields.fault("<object>", 'no object has replacements; add a key such as "car": ["red car"]')
    return found


def model_problem(key: str) -> Problem:
    """Return the problem of a program without a model."""
    return Problem(key, f"it is missing; {_MODEL_FIX}")
