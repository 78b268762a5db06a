"""The version of this checkout: one for all distributions, images and the chart, read from git's tags.

At the tag v1.2.3 it is 1.2.3; after that tag, 1.2.4.dev0, the same for every commit, so that what did not change stays
equal. `$DIFFUGEN_VERSION` overrides it where there is no git, as in the images' builds. Without tags, as in a shallow
clone or an archive, it is `UNRELEASED`. A source distribution has its version in PKG-INFO.

`python version.py` prints it. Hatchling reads it here for each distribution, whose `version.py` is a link to this file.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

UNRELEASED = "0.1.0.dev0"
VARIABLE = "DIFFUGEN_VERSION"


def version() -> str:
    """Return the version of the checkout that this file is in."""
    if given := os.environ.get(VARIABLE):
        return given
    root = Path(__file__).resolve().parent
    if not (root / ".git").exists():  # in another project's repository its tags are not ours
        return UNRELEASED
    # Root builds images in checkouts of other users, which git would refuse to look into.
    command = ["git", "-c", f"safe.directory={root}", "-C", str(root)]
    command += ["describe", "--tags", "--long", "--match", "v[0-9]*"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return UNRELEASED
    return version_of(described.stdout) if described.returncode == 0 else UNRELEASED


def version_of(described: str) -> str:
    """Return the version of what `git describe --long` prints, TAG-COMMITS-gHASH; raise `ValueError` for an odd tag."""
    match = re.fullmatch(r"v(\d+)\.(\d+)\.(\d+)((?:a|b|rc)\d+)?-(\d+)-g[0-9a-f]+", described.strip())
    if match is None:
        raise ValueError(
            f"{described.strip()!r} is not after a tag of a version: a tag is vMAJOR.MINOR.PATCH, as v1.2.3, or a "
            "pre-release of it, as v1.2.3rc1; delete the other tag that begins with v and a digit"
        )
    major, minor, patch, pre_release, commits = match.groups()
    if commits == "0":
        return f"{major}.{minor}.{patch}{pre_release or ''}"
    return f"{major}.{minor}.{int(patch) + (pre_release is None)}.dev0"


def get_metadata_hook() -> type:
    """Return the hook by which hatchling completes the metadata: the version, and in the dependencies `{version}`."""
    from hatchling.metadata.plugin.interface import MetadataHookInterface  # noqa: PLC0415 - only where one builds

    class Hook(MetadataHookInterface):
        def update(self, metadata: dict[str, Any]) -> None:
            metadata["version"] = version()
            metadata["dependencies"] = [each.format(version=version()) for each in self.config["dependencies"]]

    return Hook


if __name__ == "__main__":
    print(version())
