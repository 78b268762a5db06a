"""The recipe of a sample: all inputs of its image, and the SHA-256 of the image file, which the recipe commits.

An image is read together with its recipe. If the file's SHA-256 differs from the one in the recipe, the sample is
damaged: both are deleted, so that the next plan draws it again. Recipes of earlier versions have no SHA-256; their
images are accepted without a check.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from diffugen_api import layout
from diffugen_api.plan import Sample, canonical
from diffugen_generator.failures import Damaged
from diffugen_generator.samples.documents import Schema, read_document, sealed
from diffugen_generator.samples.shards import ShardHeader
from diffugen_generator.store.protocol import Store

IMAGE_SHA256 = "imageSha256"
"""The field with the SHA-256 of the image file, in hex."""


class _Recipe(Schema):
    """The fields that are read back from a recipe; in earlier versions, each of them may be missing."""

    id: str = ""
    imageSha256: str = ""  # noqa: N815 - as in the file


def versions() -> dict[str, str]:
    """Return the versions of the programs that draw, by the names of their distributions."""
    return {name: version(name) for name in ("torch", "diffusers", "diffugen")}


@dataclass(frozen=True, slots=True)
class DrawnWith:
    """The machine and the programs that drew an image. They decide its rounding; they are not part of its address."""

    dtype: str
    """The type of the networks' weights, as in `run.dtype`: float32, float16 or bfloat16."""
    device: str
    """`cpu`, or the name of the GPU."""
    versions: Mapping[str, str] = field(default_factory=versions)
    """The versions of torch, diffusers and diffugen."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A stored image file."""

    data: bytes
    sha256: str
    """In hex."""
    recipe: Mapping[str, Any] = field(default_factory=dict)


def recipe_of(sample: Sample, header: ShardHeader, image_file: bytes, drawn_with: DrawnWith) -> bytes:
    """Return a sample's recipe.json: the same bytes for the same arguments."""
    content = {
        **sample.row(),
        "stage": header.stage,
        "model": header.model,
        "modelDigest": header.model_digest,
        "drawing": dict(header.drawing),
        **({"embeddings": [word.row() for word in header.embeddings]} if header.embeddings else {}),
        "dtype": drawn_with.dtype,
        "device": drawn_with.device,
        "versions": dict(drawn_with.versions),
        IMAGE_SHA256: hashlib.sha256(image_file).hexdigest(),
    }
    content = json.loads(canonical(content))
    return json.dumps(sealed(content), indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def read_image_file(store: Store, stage: str, sample_id: str, extension: str) -> ImageFile:
    """Return a sample's stored image file; raise `Missing`, or `Damaged` if it does not match its recipe."""
    image_key, recipe_key = layout.image(stage, sample_id, extension), layout.recipe(stage, sample_id)
    recipe = read_recipe(store, stage, sample_id)
    data = store.read(image_key)
    digest = hashlib.sha256(data).hexdigest()
    if recipe.get(IMAGE_SHA256, digest) != digest:
        why = f"its SHA-256 is {digest[:12]}…, and its recipe has {recipe[IMAGE_SHA256][:12]}…"
        raise Damaged(image_key, why, keys=(recipe_key, image_key))
    return ImageFile(data, digest, recipe)


def read_recipe(store: Store, stage: str, sample_id: str) -> dict[str, Any]:
    """Return a sample's recipe; raise `Missing` or `Damaged`."""
    key = layout.recipe(stage, sample_id)
    recipe = read_document(store, key, _Recipe)
    if recipe.get("id", sample_id) != sample_id:
        raise Damaged(key, f"it is the recipe of sample {recipe['id'][:40]}")
    return recipe
