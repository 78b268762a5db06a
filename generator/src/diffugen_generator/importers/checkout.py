"""Finds and hashes the files that a DiffuGen configuration names, in DiffuGen's own folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Checkout:
    """The folders from which relative paths of a configuration file can start."""

    folders: Sequence[Path]

    @classmethod
    def of(cls, config: Path, root: Path | None) -> Checkout:
        """Search in `root`; without it in the working folder, the file's own folder and the parent of that folder.

        DiffuGen reads paths relative to its working folder, which is its checkout. The files are in its folder
        `datasets/`.
        """
        if root is not None:
            return cls([root.absolute()])
        here = config.absolute().parent
        return cls(list(dict.fromkeys((Path.cwd(), here, here.parent))))

    def find(self, path: str) -> Path | None:
        """Return the absolute path of an existing file or folder; None if there is none."""
        if not path:
            return None
        places = (folder / path for folder in self.folders)  # an absolute path stays as it is
        try:
            return next((place for place in places if place.exists()), None)
        except OSError:  # a name that is too long, or a folder that may not be read
            return None

    def sha256(self, path: Path) -> str:
        """Return the SHA-256 of a file in hex."""
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def lines(self, path: Path) -> list[str]:
        """Return the lines of a text file, without blanks around them and without empty ones."""
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        return [line.strip() for line in lines if line.strip()]

    def __str__(self) -> str:
        """Return the folders, for an error."""
        return ", ".join(str(folder) for folder in self.folders)
