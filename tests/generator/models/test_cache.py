"""The model cache: any number of processes fetch a model once, and no process uses half a model."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from diffugen_generator.failures import CacheUnusable
from diffugen_generator.models import cache
from diffugen_generator.models.digests import FileDigest, hashed
from diffugen_generator.models.resolve import resolve
from tests.generator.hubs import Hub, a_hub

RESOLVE = "from diffugen_generator.models.resolve import resolve; print(resolve('hf://org/tiny').digest)"


def a_process(hub: Hub, folder: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"HF_ENDPOINT": hub.url, "DIFFUGEN_MODEL_CACHE": str(folder)}
    return subprocess.Popen([sys.executable, "-c", RESOLVE], env=environment, stdout=subprocess.PIPE, text=True)


def weights_in(hub: Hub) -> list[str]:
    return [name for name in hub.fetched() if name.endswith(".safetensors")]


def test_many_processes_at_once_fetch_a_model_once(tiny_folder: Path, tmp_path: Path) -> None:
    with a_hub() as hub:
        hub.publish("org/tiny", tiny_folder)
        hub.delay = 0.01
        processes = [a_process(hub, tmp_path / "cache") for _ in range(4)]
        answers = {process.communicate(timeout=120)[0].strip() for process in processes}

        assert answers == {resolve(str(tiny_folder)).digest}
        assert sorted(weights_in(hub)) == sorted(set(weights_in(hub)))


def test_after_a_kill_while_fetching_the_next_process_uses_no_partial_file(tiny_folder: Path, tmp_path: Path) -> None:
    with a_hub() as hub:
        hub.publish("org/tiny", tiny_folder)
        hub.delay = 0.3
        process = a_process(hub, tmp_path / "cache")
        began = time.monotonic()
        while not weights_in(hub) and time.monotonic() < began + 60:
            time.sleep(0.02)
        time.sleep(0.5)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        whole = [mark.parent for mark in (tmp_path / "cache" / "models").rglob(".complete.json")]
        parts = list((tmp_path / "cache" / "models").glob(".*.part"))
        fetched = weights_in(hub)

        assert fetched
        assert not whole
        assert len(parts) == 1
        hub.delay = 0
        digest, _ = a_process(hub, tmp_path / "cache").communicate(timeout=120)
        assert digest.strip() == resolve(str(tiny_folder)).digest
        assert not list((tmp_path / "cache" / "models").glob(".*.part"))


def a_fill(calls: list[Path]) -> Callable[[Path], dict[str, FileDigest]]:
    def fill(part: Path) -> dict[str, FileDigest]:
        calls.append(part)
        (part / "file").write_bytes(b"content")
        (part / "left").write_bytes(b"of a former try")
        return {"file": hashed(part / "file")}

    return fill


def test_an_entry_is_filled_once_and_has_only_the_counted_files(tmp_path: Path) -> None:
    calls: list[Path] = []

    first, files = cache.entry(["x"], a_fill(calls), tmp_path)
    again = cache.entry(["x"], a_fill(calls), tmp_path)

    assert (first, files) == again == cache.found(["x"], tmp_path)
    assert sorted(path.name for path in first.iterdir()) == [".complete.json", "file"]
    assert len(calls) == 1
    assert cache.found(["y"], tmp_path) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda entry: (entry / ".complete.json").unlink(),
        lambda entry: (entry / ".complete.json").write_bytes(b'{"files": {'),
        lambda entry: (entry / "file").write_bytes(b"cont"),
        lambda entry: (entry / "file").unlink(),
    ],
    ids=["no mark", "half a mark", "a shorter file", "no file"],
)
def test_an_incomplete_entry_is_filled_again(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    calls: list[Path] = []
    folder, _ = cache.entry(["x"], a_fill(calls), tmp_path)
    spoil(folder)

    assert cache.found(["x"], tmp_path) is None
    assert (cache.entry(["x"], a_fill(calls), tmp_path)[0] / "file").read_bytes() == b"content"
    assert len(calls) == 2


def changed(folder: Path) -> None:
    """Change an entry's file, with its size and its time kept."""
    before = (folder / "file").stat()
    (folder / "file").unlink()
    (folder / "file").write_bytes(b"CONTENT")
    os.utime(folder / "file", ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_changed_file_is_found_when_it_is_loaded_and_fetched_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[Path] = []
    folder, files = cache.entry(["x"], a_fill(calls), tmp_path, verify=True)
    changed(folder)

    assert cache.found(["x"], tmp_path) == (folder, files)
    with caplog.at_level(logging.WARNING):
        assert cache.found(["x"], tmp_path, verify=True) is None
    assert f"{folder / 'file'} is not the file that was fetched; it is fetched again" in caplog.messages
    assert cache.entry(["x"], a_fill(calls), tmp_path, verify=True) == (folder, files)
    assert (folder / "file").read_bytes() == b"content"
    assert len(calls) == 2


def test_the_check_of_loaded_files_can_be_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []
    folder, files = cache.entry(["x"], a_fill(calls), tmp_path)
    changed(folder)
    monkeypatch.setenv("DIFFUGEN_MODEL_VERIFY", "false")

    assert cache.entry(["x"], a_fill(calls), tmp_path, verify=True) == (folder, files)
    assert len(calls) == 1


def test_a_file_that_did_not_change_is_hashed_once_by_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = cache.entry(["x"], a_fill([]), tmp_path)
    opened: list[str] = []
    begin = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, *mode, **more: opened.append(path.name) or begin(path, *mode, **more)
    )

    for _ in range(3):
        assert cache.found(["x"], tmp_path, verify=True)
    assert opened.count("file") == 1
    changed(folder)
    opened.clear()
    for _ in range(3):
        assert cache.found(["x"], tmp_path, verify=True) is None
    assert opened.count("file") == 1


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK])
def test_without_locks_each_process_fills_its_own_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", no_locks)
    calls: list[Path] = []

    def fill(part: Path) -> dict[str, FileDigest]:
        if len(calls) == 0:  # another pod, at the same time
            calls.append(part)
            cache.entry(["x"], a_fill(calls), tmp_path)
        return a_fill(calls)(part)

    folder, _ = cache.entry(["x"], fill, tmp_path)

    assert (folder / "file").read_bytes() == b"content"
    assert calls[0] != calls[1]
    assert not list((tmp_path / "models").glob(".*.part"))


def test_a_cache_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder, to root neither")

    with pytest.raises(CacheUnusable, match=r"spec\.run\.modelCache"):
        cache.entry(["x"], a_fill([]), tmp_path / "file" / "cache")


def test_by_default_it_is_below_the_home_folder() -> None:
    assert cache.cache_folder({}) == Path.home() / ".cache" / "diffugen"
    assert cache.cache_folder({"DIFFUGEN_MODEL_CACHE": "/models"}) == Path("/models")
