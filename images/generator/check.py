"""Check the image without torch while it is built: the files that were removed from its packages are not needed.

The check imports every module of the generator, except those that need packages of the image with torch. It loads
every shared library in the packages, with the libraries that it links to. The tests of the image publish in every
format.
"""

from __future__ import annotations

import ctypes
import importlib
import pkgutil
import sys
import sysconfig
from pathlib import Path

import diffugen_generator

ELSEWHERE = {"diffusers", "regex", "scipy", "tokenizers", "torch", "torchvision", "transformers", "ultralytics"}
"""What only the image with models has."""


def imported() -> int:
    """Import the modules and return their number; raise `ImportError`."""
    count = 0
    for module in pkgutil.walk_packages(diffugen_generator.__path__, "diffugen_generator.", onerror=lambda _: None):
        if module.name.endswith("__main__"):  # runs the program
            continue
        try:
            importlib.import_module(module.name)
            count += 1
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in ELSEWHERE:
                raise
    return count


def loaded(folder: Path) -> int:
    """Load every shared library below `folder` and return their number; raise `OSError`."""
    libraries = sorted(folder.rglob("*.so*"))
    for library in libraries:
        ctypes.CDLL(str(library))
    return len(libraries)


if __name__ == "__main__":
    modules, libraries = imported(), loaded(Path(sysconfig.get_path("purelib")))
    if min(modules, libraries) < 50:
        sys.exit(
            f"images/generator/check.py: only {modules} modules and {libraries} libraries: it does not see the image"
        )
