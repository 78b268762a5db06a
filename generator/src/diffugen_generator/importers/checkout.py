"""The files that a DiffuGen configuration names: looked for in DiffuGen's own folder, and digested."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Checkout:
    """Where relative paths of a configuration file may start."""

    folders: Sequence[Path]

    @classmethod
    def of(cls, config: Path, root: Path | None) -> Checkout:
        """Look below `root`; without it below the working folder, the file's own folder and the one above that.

        DiffuGen reads paths from its working folder, which is its checkout: the files are in `datasets/` of it.
        """
        if root is not None:
            return cls([root.absolute()])
        here = config.absolute().parent
        return cls(list(dict.fromkeys((Path.cwd(), here, here.parent))))

    def find(self, path: str) -> Path | None:
        """Return the absolute path of a file or folder that is there; None where there is none."""
        if not path:
            return None
        places = (folder / path for folder in self.folders)  # an absolute path stays as it is
        return next((place for place in places if place.exists()), None)

    def sha256(self, path: Path) -> str:
        """Return the SHA-256 of a file in hex."""
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def lines(self, path: Path) -> list[str]:
        """Return the lines of a text file, without blanks around them and without empty ones."""
        lines = path.read_text(encoding="utf-8").splitlines()
        return [line.strip() for line in lines if line.strip()]

    def __str__(self) -> str:
        """Return the folders, for an error."""
        return ", ".join(str(folder) for folder in self.folders)
