"""Embeddings: new words for a text encoder, trained by textual inversion (Gal et al. 2022).

A file holds one or more vectors for one word, as diffusers (`{token: vectors}`) or A1111 (`emb_params`,
`string_to_param`) write them. For Stable Diffusion XL it has one set for each text encoder (`clip_l`, `clip_g`). The
manifest gives the word; the name in the file does not count. The plan checks all of this, so this module does not need
torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from diffugen_api import v1alpha1 as api
from diffugen_api.plan import SpecError
from diffugen_api.v1alpha1 import S3
from diffugen_generator.families.embedding import Embedding, Vectors
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.registry import family_of, token_limit
from diffugen_generator.models.pickled_tensors import read_tensors
from diffugen_generator.models.small_files import open_file
from diffugen_generator.samples.shards import TaughtWord

PLACES: Final = ("clip_l", "clip_g")
"""Names in files for the text encoders of Stable Diffusion XL, the first and the second."""
_A1111: Final = ("emb_params", "string_to_param")
_PIVOTAL: Final = {"text_encoders_0": "clip_l", "text_encoders_1": "clip_g"}
"""Names of the text encoders in embeddings.pti, the file of pivotal tuning."""
_SECOND: Final = "_2"
"""The end of the name of the second file of a pair."""
_DEFAULT: Final = "learned_embeds.safetensors"


def open_embedding(path: Path, token: str, model: ModelFolder, *, field: str, second: Path | None = None) -> Embedding:
    """Read the embedding at `path` for `model`; `field` is the manifest's entry, `….embeddings[0]`.

    `second` is the file for the second text encoder, if the first file has the vectors of only one encoder.

    Raises `SpecError` with reason `UnsupportedEmbedding` if the file is not an embedding or does not fit this model,
    and with reason `TokenTaken` if the model already has a word of that name.
    """
    try:
        vectors = _for_model(_vectors_at(path, second, token), model)
    except ValueError as error:
        raise SpecError("UnsupportedEmbedding", f"{field}.uri: {path.name} {error}.") from None
    room = token_limit(model) - family_of(model.pipeline).marks
    if len(vectors[0]) > room:
        raise SpecError(
            "UnsupportedEmbedding",
            f"{field}.uri: {path.name} has {len(vectors[0])} vectors, and the text encoder reads {room} at once; "
            "train one with fewer.",
        )
    if token.lower() in family_of(model.pipeline).vocabulary(model.path):
        raise SpecError(
            "TokenTaken",
            f"{field}.token: {token!r} is a word that the model knows already; "
            f"write another, such as '<{token.strip('<>')}-1>', here and in the prompts.",
        )
    return Embedding(token, vectors)


def find_embeddings(named: Mapping[str, api.Embedding], model: ModelFolder, s3: S3 | None) -> tuple[TaughtWord, ...]:
    """Find and check the embeddings that a manifest names. The keys of `named` are the manifest's fields.

    Raises as `open_embedding` does.
    """
    return tuple(_find(field, each, model, s3) for field, each in named.items() if each.source is None)


def open_embeddings(words: Sequence[TaughtWord], model: ModelFolder, s3: S3 | None, *, stage: str) -> list[Embedding]:
    """Open the embeddings that the plan used; raise `SpecError` if a file has changed since then."""
    opened = []
    for number, word in enumerate(words):
        field = f"embeddings[{number}] of stage {stage}"
        _, path, second, digest = _files(word.uri, word.token, model, s3, field)
        if digest != word.digest and not word.trained:
            raise SpecError(
                "ModelChanged",
                f"{field}: {word.uri} has the digest {digest[:12]} here, and had {word.digest[:12]} in the plan; "
                "give plan and stages the same file, or plan again.",
            )
        opened.append(open_embedding(path, word.token, model, field=field, second=second))
    return opened


def _find(field: str, each: api.Embedding, model: ModelFolder, s3: S3 | None) -> TaughtWord:
    uri, path, second, digest = _files(each.uri, each.token, model, s3, field)
    open_embedding(path, each.token, model, field=field, second=second)
    return TaughtWord(each.token, uri, digest)


def _files(uri: str, token: str, model: ModelFolder, s3: S3 | None, field: str) -> tuple[str, Path, Path | None, str]:
    """Return an embedding's URI, its file, the file for a second text encoder, and the digest of both files.

    The script of diffusers for Stable Diffusion XL writes a pair: NAME.safetensors and NAME_2.safetensors.
    """
    uri, path, digest = open_file(uri, field=f"{field}.uri", default=_DEFAULT, s3=s3)
    if len(family_of(model.pipeline).embedding_sets(model)) == 1 or not _is_of_one_encoder(path, token):
        return uri, path, None, digest
    stem, dot, suffix = uri.rpartition(".")
    try:
        _, second, other = open_file(f"{stem}{_SECOND}{dot}{suffix}", field=f"{field}.uri", s3=s3)
    except SpecError:
        return uri, path, None, digest  # `open_embedding` refuses a single file and names what is missing
    return uri, path, second, hashlib.sha256(f"{digest}{other}".encode()).hexdigest()


def _is_of_one_encoder(path: Path, token: str) -> bool:
    try:
        return list(_vectors_in(read_tensors(path), token)) == [""]
    except ValueError:
        return False  # `open_embedding` reports the error


def _vectors_at(path: Path, second: Path | None, token: str) -> dict[str, Vectors]:
    """Return the vectors for each text encoder in a file, or in a pair of files."""
    first = _vectors_in(read_tensors(path), token)
    if second is None:
        return first
    other = _vectors_in(read_tensors(second), token)
    return dict(zip(PLACES, (*first.values(), *other.values()), strict=True))


def _vectors_in(content: Any, token: str) -> dict[str, Vectors]:
    """Return the vectors for each text encoder in a file's content.

    If the file does not name text encoders, the key is the empty name. If it has several words, only the vectors of
    `token` are returned.
    """
    if isinstance(content, np.ndarray):
        return {"": _shaped(content)}
    if not isinstance(content, Mapping):
        raise ValueError("holds no embedding; give a file that textual inversion wrote")  # noqa: TRY004
    tensors = {str(name): value for name, value in content.items() if isinstance(value, np.ndarray)}
    named = {_PIVOTAL.get(name, name): value for name, value in tensors.items()}
    if any(place in named for place in PLACES):
        return {place: _shaped(named[place]) for place in PLACES if place in named}
    for name in _A1111:
        if name in content:
            inner = content[name]
            inner = next(iter(inner.values()), None) if isinstance(inner, Mapping) else inner
            if isinstance(inner, np.ndarray):
                return {"": _shaped(inner)}
    if len(named) != 1:
        own = [value for name, value in named.items() if name.lower() == token.lower()]
        if len(own) == 1:
            return {"": _shaped(own[0])}
        raise ValueError(
            f"holds {len(named)} tensors and none is called {token!r} ({', '.join(sorted(named)[:8])}); an embedding "
            "has one, or clip_l and clip_g, or one for each word: give the token of one, or another file"
        )
    return {"": _shaped(next(iter(named.values())))}


def _shaped(vectors: NDArray[Any]) -> Vectors:
    """Return vectors as [n, width]."""
    whole = vectors[None] if vectors.ndim == 1 else vectors
    if whole.ndim != 2 or not len(whole) or not np.isfinite(whole).all():
        raise ValueError(f"holds a tensor of shape {list(vectors.shape)} that is no list of vectors; train it again")
    return whole.astype(np.float32)


def _for_model(vectors: Mapping[str, Vectors], model: ModelFolder) -> tuple[Vectors, ...]:
    """Return the vectors for each of the model's text encoders; raise `ValueError` if they do not fit."""
    sets = family_of(model.pipeline).embedding_sets(model)
    fix = "give one that was trained for such a model"
    if len(sets) == 1:
        found = [vectors.get("", next(iter(vectors.values())))]
    elif missing := [place for place, _ in sets if place not in vectors]:
        raise ValueError(f"has no {' and '.join(missing)}, which Stable Diffusion XL needs; {fix}")
    else:
        found = [vectors[place] for place, _ in sets]
    for each, (_, width) in zip(found, sets, strict=True):
        if each.shape[1] != width:
            raise ValueError(f"has vectors of {each.shape[1]} numbers where {model.uri} reads {width}; {fix}")
    if len({len(each) for each in found}) > 1:
        raise ValueError(f"has {len(found[0])} vectors in clip_l and {len(found[1])} in clip_g; train it again")
    return tuple(found)
