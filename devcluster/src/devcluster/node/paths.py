"""Maps a container's absolute paths to directories of this machine.

Without a mount namespace `/etc/diffugen` cannot be a volume. So the text of the container's command, args and
environment is changed: a mount path is replaced by the real directory where it is a whole path or the beginning of
one. `/data` is replaced in `--in=/data/x`, `"/data"` and `a:/data`, not in `/database`, `/my/data` or
`s3://bucket/data`.
"""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath


class PathMap:
    """The mount paths of one container and their real paths."""

    def __init__(self, mounts: Mapping[str, Path]) -> None:
        self._mounts = {str(PurePosixPath(inside)): outside for inside, outside in mounts.items()}
        # The longest first, so that a mount inside another is matched first.
        alternatives = "|".join(re.escape(inside) for inside in sorted(self._mounts, key=len, reverse=True))
        self._pattern = re.compile(rf"(?<![\w./-])(?:{alternatives})(?![\w.-])") if self._mounts else None

    def rewrite(self, text: str) -> str:
        """Return the text with every mount path replaced."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda match: str(self._mounts[match[0]]), text)

    def link_nested(self) -> None:
        """Make a mount inside another one visible there too, for programs that join paths by themselves."""
        for inside, outside in self._mounts.items():
            for parent in map(str, PurePosixPath(inside).parents):
                if parent in self._mounts and self._mounts[parent].is_dir():
                    link = self._mounts[parent] / PurePosixPath(inside).relative_to(parent)
                    link.parent.mkdir(parents=True, exist_ok=True)
                    if not link.exists():
                        link.symlink_to(outside)
                    break
