"""Counts the images that each program of DiffuGen would draw for a configuration file."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import NamedTuple

from diffugen_generator.importers.config import Config


class Drawn(NamedTuple):
    """The data that DiffuGen stores with an image and reads again when the image is a source."""

    object_name: str
    time_of_day: str
    sky_condition: str
    weather_condition: str


def drawn_from_text(config: Config) -> Counter[Drawn]:
    """Return how many images of each description txt2img draws.

    DiffuGen fills every prompt with every combination of all five lists, also of those that the prompt does not name.
    """
    text = config.txt2img
    values = {name: text.lists.get(name, [""]) for name in ("object_names", "times_of_day", "sky_conditions")}
    each = len(text.prompts) * len(text.lists.get("view_points", [""])) * text.seeds_per_prompt
    drawn: Counter[Drawn] = Counter()
    for described in product(*values.values(), text.lists.get("weather_conditions", [""])):
        drawn[Drawn(*described)] += each
    return drawn


def drawn_from_images(config: Config, sources: Counter[Drawn]) -> Counter[Drawn]:
    """Return what img2img draws from `sources`: DiffuGen skips a new value that is part of the source's value."""
    drawn: Counter[Drawn] = Counter()
    if config.img2img is None:
        return drawn
    for source, number in sources.items():
        for time, sky, weather in product(*config.img2img.lists.values()):
            old = (source.time_of_day, source.sky_condition, source.weather_condition)
            if not any(new in before for new, before in zip((time, sky, weather), old, strict=True)):
                drawn[Drawn(source.object_name, time, sky, weather)] += number
    return drawn


def drawn_by_inpainting(config: Config, sources: Counter[Drawn]) -> Counter[Drawn]:
    """Return what inpaint draws from `sources`: one image for each replacement of the source's object."""
    drawn: Counter[Drawn] = Counter()
    if config.inpaint is None:
        return drawn
    for source, number in sources.items():
        for replacement in config.inpaint.replacements.get(source.object_name, []):
            drawn[source._replace(object_name=replacement)] += number
    return drawn
