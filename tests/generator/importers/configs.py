"""Configuration files in DiffuGen's format, written for the tests: the keys are DiffuGen's, the texts are not."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import yaml

from diffugen_generator.commands.import_config import import_config
from diffugen_generator.importers.manifest_draft import Options

SUPERVISED: dict[str, Any] = {
    "dataset_name": "boats",
    "dataset_root": "drawn",
    "image_format": "png",
    "image_size": {"width": 256, "height": 256},
    "steps": 30,
    "dataset_classes": ["boat", "ferry", "canoe", "kayak", "ship"],
    "dataset_to_model_class_map": {
        "boat": "boat",
        "ferry": "boat",
        "canoe": "canoe",
        "kayak": "canoe",
        "ship": "ship",
    },
    "label_model": {"type": "YOLOSeg", "weights": "seg/boats-seg.pt", "classes": "seg/names.txt"},
    "unsupervised": False,
    "deterministic": True,
    "images_per_shard": 100,
    "txt2img": {
        "stable_diffusion_model": "harbor/photo-model",
        "seed_range": {"min": 11, "max": 999},
        "seed_count_per_prompt": 1,
        "object_names": ["boat", "ferry", "canoe", "kayak", "ship"],
        "view_points": ["side", "top"],
        "times_of_day": ["dawn", "day", "noon", "dusk"],
        "sky_conditions": ["blue", "gray"],
        "weather_conditions": ["calm", "stormy"],
        "prompts": [
            "a {view_point} view of a {object_name}++ at a pier, {sky_condition}, {weather_condition} {time_of_day}",
            "a {view_point} view of a {object_name}++ on a lake, {sky_condition}, {weather_condition} {time_of_day}",
            "a {view_point} view of a {object_name}++ at sea, {sky_condition}, {weather_condition} {time_of_day}",
        ],
        "negative_prompt": "(sketch, painting:1.4), fog",
    },
    "img2img": {
        "stable_diffusion_model": "harbor/photo-model",
        "source_dataset": "drawn/boats/txt2img",
        "times_of_day": ["day"],
        "sky_conditions": ["white"],
        "weather_conditions": ["heavy rain", "snowy", "misty", "windy"],
    },
    "inpaint": {
        "stable_diffusion_model": "harbor/fill-model",
        "source_dataset": "drawn/boats/txt2img",
        "boat": ["red boat", "old tub", "green dinghy"],
        "ferry": ["white steamer", "blue steamer", "black steamer", "gray steamer"],
        "canoe": ["wooden canoe", "red canoe", "blue canoe", "white canoe"],
        "kayak": ["red kayak", "blue kayak", "white kayak"],
    },
}
"""Of the shape of a set with all three programs: 3 prompts of 160 combinations, five objects, four replaced."""

TAUGHT: dict[str, Any] = {
    **{key: SUPERVISED[key] for key in SUPERVISED if key not in {"txt2img", "img2img", "inpaint"}},
    "dataset_name": "collisions",
    "txt2img": {
        "stable_diffusion_model": "harbor/photo-model",
        "seed_range": {"min": 11, "max": 999},
        "seed_count_per_prompt": 1,
        "textual_inversion": {"weights": "words/regatta.pt", "keyword": "<regatta>"},
        "object_names": ["boat", "ferry", "canoe"],
        "view_points": ["side", "top"],
        "times_of_day": ["dawn", "day", "noon", "night"],
        "sky_conditions": ["blue", "gray"],
        "weather_conditions": ["sunny", "stormy", "misty"],
        "prompts": [
            "a {view_point} view of <regatta> where a {object_name}++ leads, {weather_condition}, {time_of_day}",
            "a {view_point} view of <regatta> where a {object_name}++ turns, {weather_condition}, {time_of_day}",
        ],
        "negative_prompt": "fog",
    },
}
"""No prompt names the sky, and one word is taught."""

UNSUPERVISED: dict[str, Any] = {
    **{key: SUPERVISED[key] for key in SUPERVISED if key not in {"txt2img", "img2img", "inpaint"}},
    "dataset_name": "lamp-on-a-road",
    "unsupervised": True,
    "txt2img": {
        "stable_diffusion_model": "harbor/photo-model",
        "seed_range": {"min": 11, "max": 999},
        "seed_count_per_prompt": 12,
        "image_count": 250,
        "object_names": ["lamp"],
        "view_points": ["full"],
        "times_of_day": ["day"],
        "sky_conditions": ["blue"],
        "weather_conditions": ["sunny"],
        "prompts": ["a {view_point} view of a tall++ {object_name} on a road, {weather_condition} {time_of_day}"],
        "negative_prompt": "fog",
    },
}
"""One object that the class list does not have, labeled by attention."""


def changed(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a copy with other values for keys (`txt2img.prompts`); the value `...` removes a key."""
    made = copy.deepcopy(config)
    for key, value in changes.items():
        *parents, last = key.split(".")
        here = made
        for parent in parents:
            here = here[parent]
        if value is ...:
            del here[last]
        else:
            here[last] = value
    return made


def a_checkout(folder: Path) -> Path:
    """Return a folder with the files that the configurations name; they are not models: only their digest is read."""
    (folder / "seg").mkdir(parents=True, exist_ok=True)
    (folder / "words").mkdir(exist_ok=True)
    (folder / "seg/boats-seg.pt").write_bytes(b"weights")
    (folder / "seg/names.txt").write_text("boat\ncanoe\nship\n")
    (folder / "words/regatta.pt").write_bytes(b"vectors")
    return folder


def imported(folder: Path, config: dict[str, Any], **options: Any) -> str:
    """Return the manifest of a configuration, as text."""
    file = a_checkout(folder) / "config.json"
    file.write_text(json.dumps(config))
    return import_config(file, Options(**options), folder)


def spec_of(manifest: str) -> dict[str, Any]:
    """Return the spec of a manifest."""
    spec: dict[str, Any] = yaml.safe_load(manifest)["spec"]
    return spec


def comments_of(manifest: str) -> str:
    """Return all comments of a manifest in one line."""
    lines = (line.strip() for line in manifest.splitlines())
    return " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))
