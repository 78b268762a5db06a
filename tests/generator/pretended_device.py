"""A pretended GPU: tensors that are said to be on `cuda` are computed on the CPU, and mixing of devices is refused.

So a tensor that is left on the CPU fails a test on a machine without a GPU. Two modes of torch do this: one for
functions (what a tensor says its device is, moves, new tensors with `device=`), one for operations, which compares the
devices of all tensors. The device of a tensor is that of its storage, so views and `module.to` need no care.

As on a real GPU: numbers without dimensions may come from the CPU, an index may be on the CPU, `copy_` may cross
devices, random numbers of a device need a generator of that device, and numpy reads only the CPU's memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

CUDA = torch.device("cuda", 0)
CPU = torch.device("cpu")
_TENSOR: Any = torch.Tensor
"""Its properties have getters, which its types do not tell."""
_CROSSING = frozenset({"copy_", "_to_copy"})
_INDEXING = frozenset({"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"})


class _Places:
    """Which storages are pretended to be on the GPU."""

    def __init__(self) -> None:
        self._known: dict[int, StorageWeakRef] = {}  # a weak reference keeps the address from being used again

    def has(self, tensor: torch.Tensor) -> bool:
        return _address(tensor) in self._known

    def put(self, tensor: torch.Tensor, *, on_gpu: bool) -> None:
        if on_gpu:
            storage = torch.Tensor.untyped_storage(tensor)
            self._known[storage._cdata] = StorageWeakRef(storage)
        else:
            self._known.pop(_address(tensor), None)


def _address(tensor: torch.Tensor) -> int:
    return int(torch.Tensor.untyped_storage(tensor)._cdata)


def _tensors(tree: Any) -> list[torch.Tensor]:
    """Return the tensors in arguments or a result: in tuples, lists and dictionaries, at any depth."""
    if isinstance(tree, torch.Tensor):
        return [tree]
    if isinstance(tree, tuple | list):
        return [tensor for each in tree for tensor in _tensors(each)]
    return _tensors(list(tree.values())) if isinstance(tree, dict) else []


def _is_gpu(device: Any) -> bool:
    if isinstance(device, int) and not isinstance(device, bool):
        return True
    return device is not None and torch.device(device).type == "cuda"


class _Operations(TorchDispatchMode):
    """Refuses operations on tensors of two devices; a result is where its inputs are."""

    def __init__(self, places: _Places) -> None:
        super().__init__()
        self._places = places

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        given = _tensors(args[:1] if name in _INDEXING or name == "copy_" else (args, kwargs))
        if any(each.is_meta for each in given):
            return func(*args, **kwargs)
        sized = [each for each in given if each.dim()]
        on_gpu = {self._places.has(each) for each in sized or given}
        if len(on_gpu) > 1 and name not in _CROSSING and sized:
            raise RuntimeError(f"expected all tensors of {func} on one device, and found cuda and cpu")
        if name in _INDEXING and on_gpu == {False} and any(self._places.has(each) for each in _tensors(args[1:])):
            raise RuntimeError(f"the indices of {func} are on cuda, and what they index is on the cpu")
        result = func(*args, **kwargs)
        if name != "copy_":
            before = {_address(each) for each in _tensors((args, kwargs))}
            for each in _tensors(result):
                if _address(each) not in before:
                    self._places.put(each, on_gpu=True in on_gpu)
        return result


class _Functions(TorchFunctionMode):
    """Says where tensors are, moves them, and makes new ones there."""

    def __init__(self, places: _Places) -> None:
        super().__init__()
        self._places = places

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == _TENSOR.device.__get__:
            real = func(*args)
            return CUDA if real.type == "cpu" and self._places.has(args[0]) else real
        if func == _TENSOR.is_cuda.__get__:
            return self._places.has(args[0])
        if func in (torch.Tensor.numpy, torch.Tensor.__array__) and self._places.has(args[0]):
            raise TypeError("can't convert a tensor on cuda to numpy; copy it to the CPU first")
        if func in {torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.cuda}:
            return self._moved(func, args, kwargs)
        wanted = kwargs.get("device")
        if wanted is None or torch.device(wanted).type == "meta":
            return func(*args, **kwargs)
        generator = kwargs.get("generator")
        if generator is not None and _is_gpu(wanted):
            raise RuntimeError("expected a generator of the device cuda, and found one of the cpu")
        made = func(*args, **{**kwargs, "device": CPU})
        for each in _tensors(made):
            self._places.put(each, on_gpu=_is_gpu(wanted))
        return made

    def _moved(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        tensor, *rest = args
        if func is torch.Tensor.to:
            wanted, options = _target(rest, kwargs, self._places)
        else:
            wanted, options = (CUDA if func is torch.Tensor.cuda else CPU), {}
        if wanted is not None and torch.device(wanted).type == "meta":
            return torch.Tensor.to(tensor, device=wanted, **options)
        on_gpu = self._places.has(tensor) if wanted is None else _is_gpu(wanted)
        moved = torch.Tensor.to(tensor, **options) if options else tensor
        if on_gpu != self._places.has(moved):
            moved = moved.clone() if _address(moved) == _address(tensor) else moved
            self._places.put(moved, on_gpu=on_gpu)
        return moved


def _target(rest: list[Any], kwargs: dict[str, Any], places: _Places) -> tuple[Any, dict[str, Any]]:
    """Return the device of a call of `Tensor.to`, None without one, and the call's other arguments by name."""
    options, rest = dict(kwargs), list(rest)
    wanted = options.pop("device", None)
    other = options.pop("other", None)
    if rest and isinstance(rest[0], torch.Tensor):
        other = rest.pop(0)
    elif rest and (rest[0] is None or isinstance(rest[0], str | int | torch.device)):
        wanted = rest.pop(0)
    if other is not None:
        wanted, options["dtype"] = (CUDA if places.has(other) else CPU), other.dtype
        names = ["non_blocking", "copy"]
    else:
        names = ["dtype", "non_blocking", "copy"]
    options |= dict(zip(names, rest, strict=False))
    return wanted, {name: value for name, value in options.items() if value is not None}


@contextmanager
def a_pretended_gpu() -> Iterator[torch.device]:
    """Yield the pretended device, on which everything inside the block may be computed.

    Only the thread that enters it knows the device.
    """
    places = _Places()
    with _Functions(places), _Operations(places):
        yield CUDA
