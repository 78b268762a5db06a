"""`run.compile`: blocks are compiled once for all batches, and the images and labels are the same to rounding."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffugen_api.errors import SpecError
from diffugen_api.orders import WorkOrder
from diffugen_generator.planning.plan import plan
from diffugen_generator.stages.run_shard import run_shard
from diffugen_generator.stages.session_cache import SessionCache
from diffugen_generator.store.folder import FolderStore
from tests.generator.graphs import an_order, base, samples_of_stage, shards_of, stored_image
from tests.generator.pipelines import write_shape


class Backend:
    """Compiles to the same operations."""

    def __init__(self) -> None:
        self.graphs = 0
        self.fault: Exception | None = None

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        if self.fault is not None:
            raise self.fault
        self.graphs += 1
        return graph.forward


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    found, compiling = Backend(), torch.nn.Module.compile

    def with_backend(module: torch.nn.Module, **options: Any) -> None:
        assert options == {"dynamic": False}
        compiling(module, backend=found, **options)

    monkeypatch.setattr(torch.nn.Module, "compile", with_backend)
    torch._dynamo.reset()
    yield found
    torch._dynamo.reset()


def drawn(order: WorkOrder, store: FolderStore) -> list[np.ndarray]:
    """Draw and label in batches of three: the last one has one sample."""
    plan(order, store)
    sessions = SessionCache.of(order.spec, device="cpu", environ={"DIFFUGEN_BATCH_SIZE": "3"})
    for header, rows in shards_of(order, store, "base"):
        assert run_shard(header, rows, store, sessions=sessions).labelled == len(rows) == 4
    return [stored_image(store, "base", sample.id) for sample in samples_of_stage(order, store, "base")]


@pytest.mark.parametrize("capture", ["posthoc", "inline"])
@pytest.mark.parametrize("shape", ["sd1", "xl"])
def test_compiled_blocks_draw_the_same_and_are_compiled_once(
    tmp_path: Path, backend: Backend, shape: str, capture: str
) -> None:
    stages = [base(str(write_shape(tmp_path / shape, shape)))]
    labeling = {"attention": {"capture": capture, "threshold": 0.4}}
    plain, compiled = (
        an_order(stages, labeling=labeling, run={"compile": compile_them}) for compile_them in (False, True)
    )
    expected = drawn(plain, FolderStore(tmp_path / "plain"))
    assert backend.graphs == 0

    found = drawn(compiled, FolderStore(tmp_path / "compiled"))

    furthest = max(int(np.abs(one.astype(int) - other).max()) for one, other in zip(expected, found, strict=True))
    assert furthest <= 2
    if capture == "posthoc":  # attention is read while nothing is compiled
        first = backend.graphs
        assert first > 0
        drawn(compiled, FolderStore(tmp_path / "again"))
        assert backend.graphs <= 2 * first


def test_blocks_that_cannot_be_compiled_are_named(tmp_path: Path, backend: Backend) -> None:
    backend.fault = RuntimeError("no C compiler")
    order = an_order([base(str(write_shape(tmp_path / "sd1", "sd1")))], run={"compile": True})

    with pytest.raises(SpecError, match=r"run\.compile: the model's blocks cannot be compiled: .*no C compiler"):
        drawn(order, FolderStore(tmp_path / "store"))


def test_a_reproduced_run_compiles_nothing(tmp_path: Path, backend: Backend) -> None:
    order = an_order([base(str(write_shape(tmp_path / "sd1", "sd1")))], run={"compile": True})
    store = FolderStore(tmp_path / "store")
    plan(order, store)
    [(header, _)] = shards_of(order, store, "base")
    sessions = SessionCache.of(order.spec, device="cpu", environ={}, reproduce=True)
    threads = torch.get_num_threads()
    try:
        session = sessions.open(header, store=store)
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(threads)

    assert session.batch == 1
    assert backend.graphs == 0
