"""Devices: which exist, which is requested, and which error a failing device gives."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import sys

import pytest
import torch

from diffugen_api.contract import ExitCode
from diffugen_generator.diffusion.devices import open_device
from diffugen_generator.failures import DeviceFailed, UnknownDevice
from diffugen_generator.families.folder import ModelFolder
from diffugen_generator.families.unet.components import load


@pytest.mark.parametrize("name", ["bogus", "cuda:99", "meta", ""])
def test_a_missing_device_is_an_error_of_one_sentence(name: str) -> None:
    with pytest.raises(UnknownDevice, match=rf"^--device: there is no (device )?'{name}'.* leave it out\.$") as caught:
        open_device(name)

    assert caught.value.exit_code == ExitCode.BAD_SPEC


def test_a_failing_device_is_not_reported_as_a_fault_of_the_model(
    tiny_model: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(
            "CUDA error: uncorrectable ECC error encountered\nCUDA kernel errors might be reported later"
        )

    monkeypatch.setattr(torch.nn.Module, "to", fail)
    with pytest.raises(DeviceFailed, match="cpu failed .*: CUDA error: uncorrectable ECC error encountered$") as caught:
        load(tiny_model, torch.device("cpu"))

    assert (caught.value.reason, caught.value.exit_code) == ("DeviceFailed", ExitCode.TRY_AGAIN)


@pytest.mark.parametrize(("given", "warned"), [("GPU-5f1c", True), ("all", True), ("void", False), ("none", False)])
def test_a_gpu_that_the_pod_has_and_torch_does_not_see_is_reported(
    given: str, warned: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with caplog.at_level(logging.WARNING):
        assert open_device(None, {"NVIDIA_VISIBLE_DEVICES": given}) == torch.device("cpu")

    assert (f"NVIDIA_VISIBLE_DEVICES is {given}, but torch sees no GPU" in caplog.text) == warned


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc: other C libraries are left as they are")
def test_freed_memory_is_reused_by_the_next_operation() -> None:
    # Like a UNet, it holds tensors of some MB until its end.
    program = """
import resource, statistics, torch
from diffugen_generator.diffusion.devices import keep_freed_memory
torch.set_num_threads(1)
latents = torch.zeros(16, 64, 32, 32)
def faults():
    counts = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        held = [latents]
        for _ in range(10):
            held.append(torch.nn.functional.silu(held[-1]) + 1)
        del held
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return int(statistics.median(counts))
given_back = faults()
keep_freed_memory()
print(given_back, faults())
"""
    # By default glibc chooses the size from which blocks are returned at once by what was freed before.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, env=environment)
    given_back, kept = map(int, done.stdout.split())

    assert kept < given_back / 4  # a fault may bring one page or, as huge pages, hundreds
