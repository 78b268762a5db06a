"""Writes a first manifest to edit: every field that people usually change, with a comment that explains it.

The text is written by hand and not dumped from the models, since comments and order are what a reader needs. It is
checked as any other manifest is before it is written, so what `new` writes is always valid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from diffugen_api.faults import Fault
from diffugen_api.v1alpha1.kinds.base import GUIDANCE_SCALE
from diffugen_generator.class_options import class_of
from diffugen_generator.commands.manifests import InvalidManifest, check

BUILTIN = "builtin://shapes"
BUILTIN_CLASSES = frozenset({"ball", "square", "triangle", "star"})
"""The classes that the built-in model can draw, from its card."""
USUAL = "hf://stable-diffusion-v1-5/stable-diffusion-v1-5@main"
"""The model for other classes, where none is named."""

_TEMPLATE = """\
# A dataset of labeled images.
#
#   diffugen validate {file}                      names what is wrong, field by field
#   diffugen plan {file}                          shows what a run would draw
#   diffugen run {file} --store ./datasets        draws, labels and publishes on this machine
#   kubectl apply -f {file}                       does the same on a cluster with the operator
apiVersion: diffugen.dev/v1alpha1
kind: LabeledDataset
metadata:
  name: {name}
spec:
  # What to label. The order of the classes gives their ids, from 0. Synonyms are other words for a class in prompts.
  classes:
{classes}
  # Size in pixels, a multiple of 8.
  image: {{width: {size}, height: {size}}}
  # Another seed gives other images of the same prompts.
  seed: 0
  prompts:
    # A template is drawn for every combination of the variables that it names, samplesPerPrompt times each. A + after a
    # word gives it more weight: {{object}}++ on {{{place}}}.
    templates:
      - {template}
    variables:
      # `object` is the variable that names what is labeled.
      object: {objects}
{variables}
    # What images should not show.
    negative: ""
    samplesPerPrompt: 4
  stages:
    # More stages can draw from this one with img2img (other surroundings) and inpaint (other objects).
    - name: base
      txt2img:
        # {model_comment}
        model: {model}
        steps: {steps}
        # 2 to 3 makes better training data than diffusers' default of 7.5; distilled models (Turbo, LCM) need 1.
        guidanceScale: {guidance}
  labeling:
    # Labels come from the model's own attention. `detector:` beside or instead of it names an instance segmenter.
    attention:
      # Higher gives smaller masks.
      threshold: 0.4
  output:
    # Where the dataset goes on a cluster: a bucket and a Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
    # The command `diffugen run` takes --store FOLDER instead; the operator may have a default store.
    # s3: {{endpoint: "http://minio.storage:9000", bucket: datasets, secretRef: {{name: datasets-store}}}}
    formats: [coco, yolo]
    splits: {{train: 0.8, val: 0.1, test: 0.1}}
"""


@dataclass(frozen=True, slots=True)
class _Scene:
    """The text that differs between the built-in model and other models."""

    size: int
    template: str
    place: str
    variables: str
    steps: int
    comment: str


_SHAPES = _Scene(
    size=64,
    template='"a {color} {object} on {place}"',
    place="place",
    variables="      color: [red, green, blue]\n      place: [snow, stone]",
    steps=20,
    comment="A small model that is part of the package: nothing to download, no GPU needed.",
)
_PHOTOS = _Scene(
    size=512,
    template='"a photo of a {object}, {view}, {setting}"',
    place="setting",
    variables="      view: [front view, side view]\n      setting: [outdoors in daylight, in a white room]",
    steps=30,
    comment="A repository of the hub, a folder in diffusers' layout, s3://BUCKET/FOLDER or builtin://shapes.",
)


def write_manifest(name: str, classes: Sequence[str], *, model: str = "", file: Path) -> None:
    """Write a commented manifest of a dataset to `file`, which must not exist.

    Args:
        name: the dataset's name.
        classes: `NAME` or `NAME=WORD,WORD`, with further words for the class.
        model: the diffusion model; where empty, the built-in one if it can draw all classes, else Stable Diffusion 1.5.
        file: where the manifest goes.

    Raises:
        InvalidManifest: a name or class is not valid, or the file exists.
    """
    text = manifest_text(name, classes, model=model, file=file)
    _, faults = check(yaml.safe_load(text))
    if faults:
        raise InvalidManifest(file, faults)
    try:
        with file.open("x", encoding="utf-8") as output:
            output.write(text)
    except FileExistsError:
        raise InvalidManifest(file, [Fault("", "it exists; name another file with --out, or remove it")]) from None
    except OSError as error:
        raise InvalidManifest(file, [Fault("", f"it cannot be written: {error.strerror}")]) from error


def manifest_text(name: str, classes: Sequence[str], *, model: str = "", file: Path) -> str:
    """Return the text of the manifest; it is YAML whatever `name` and `classes` are."""
    wanted = [class_of(each) for each in classes]
    names = [each["name"] for each in wanted]
    model = model or (BUILTIN if names and BUILTIN_CLASSES.issuperset(names) else USUAL)
    scene = _SHAPES if model == BUILTIN else _PHOTOS
    return _TEMPLATE.format(
        file=file,
        name=_flow(name),
        classes="\n".join(f"    - {_flow(each)}" for each in wanted) or "    []",
        size=scene.size,
        template=scene.template,
        place=scene.place,
        objects=_flow(names),
        variables=scene.variables,
        model_comment=scene.comment,
        model=_flow(model),
        steps=scene.steps,
        guidance=f"{GUIDANCE_SCALE:g}",
    )


def _flow(value: object) -> str:
    """Return a value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
    return text.removesuffix("...\n").strip()
