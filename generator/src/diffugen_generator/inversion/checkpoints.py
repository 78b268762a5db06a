"""Writes and reads a training's state as a safetensors file, with the step and the losses in its metadata."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from diffugen_generator.bounded_json import MOST_BYTES, json_of
from diffugen_generator.inversion.training import TrainingState


def dumps(state: TrainingState, address: str) -> bytes:
    """Return a state as a file; `address` is the content address of its training."""
    tensors: dict[str, torch.Tensor] = {}
    for number, (vectors, best, moments) in enumerate(zip(state.vectors, state.best, state.moments, strict=True)):
        tensors |= {
            f"vectors.{number}": vectors,
            f"best.{number}": best,
            f"mean.{number}": moments[0],
            f"square.{number}": moments[1],
        }
    metadata = {
        "address": address,
        "step": str(state.step),
        "losses": json.dumps(state.losses),
        "evaluations": json.dumps(state.evaluations),
        "plateaued": json.dumps(state.plateaued),
        "resumed": json.dumps(state.resumed),
    }
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, metadata)


def loads(data: bytes, address: str, like: Sequence[torch.Tensor]) -> TrainingState | None:
    """Return the state of a file; None if it belongs to another training. Raises `ValueError` if it is damaged.

    `like` are the trained vectors: the state is loaded to their device.
    """
    if len(data) > MOST_BYTES:
        raise ValueError(f"it has {len(data):,} bytes; the limit is {MOST_BYTES:,}")
    try:
        metadata = _metadata(data)
        if metadata.get("address") != address:
            return None
        tensors = load(data)

        state = TrainingState(
            step=int(metadata["step"]),
            vectors=_each(tensors, "vectors", like),
            best=_each(tensors, "best", like),
            moments=list(zip(_each(tensors, "mean", like), _each(tensors, "square", like), strict=True)),
            losses=[float(loss) for loss in json_of(metadata["losses"].encode())],
            evaluations=[(int(step), float(loss)) for step, loss in json_of(metadata["evaluations"].encode())],
            plateaued=bool(json_of(metadata["plateaued"].encode())),
            resumed=[int(step) for step in json_of(metadata.get("resumed", "[]").encode())],
        )
    except (SafetensorError, AttributeError, LookupError, OverflowError, TypeError, ValueError, struct.error) as error:
        raise ValueError(f"not a checkpoint: {str(error)[:200]}") from None
    if state.step < 0 or (state.step and not state.evaluations):
        raise ValueError("not a checkpoint: it has no evaluation")
    return state


def _each(tensors: Mapping[str, torch.Tensor], name: str, like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return the tensors `name.0`, `name.1` and so on; raise `ValueError` if they are not `like` those."""
    found = [tensors[f"{name}.{number}"].to(vectors) for number, vectors in enumerate(like)]
    for tensor, vectors in zip(found, like, strict=True):
        if tensor.shape != vectors.shape or not tensor.isfinite().all():
            raise ValueError(f"{name} is not {list(vectors.shape)} finite numbers")
    return found


def _metadata(data: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file: its first eight bytes are the length of the JSON header after them."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json_of(data[8 : 8 + length])
    metadata: dict[str, str] = header["__metadata__"]
    return metadata
