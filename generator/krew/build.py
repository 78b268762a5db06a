"""Build the archive and the manifest by which krew installs the kubectl plugin.

`python generator/krew/build.py FOLDER --url https://…/releases/download/v{version} --homepage https://…` writes
FOLDER/kubectl-labeleddataset-VERSION.tar.gz, the same bytes each time, and FOLDER/labeleddataset.yaml, which names that
archive below the URL with its digest.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import tarfile
from importlib.metadata import version
from pathlib import Path

import yaml

HERE = Path(__file__).parent
LICENSE = HERE.parent / "LICENSE"
LAUNCHER = HERE / "kubectl-labeleddataset"
VERSION = version("diffugen")


def archive() -> bytes:
    """Return the archive: the launcher of this version, and the license."""
    launcher = LAUNCHER.read_text().replace("@VERSION@", VERSION).encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content, mode in ((LAUNCHER.name, launcher, 0o755), ("LICENSE", LICENSE.read_bytes(), 0o644)):
            entry = tarfile.TarInfo(name)  # no time and no owner: the same bytes on every machine
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
    return gzip.compress(packed.getvalue(), mtime=0)


def manifest(content: bytes, *, url: str, homepage: str) -> str:
    """Return krew's manifest of an archive that is published below `url`."""
    platform = {
        # The package is for Linux and macOS, as DiffuGen is.
        "selector": {"matchExpressions": [{"key": "os", "operator": "In", "values": ["linux", "darwin"]}]},
        "uri": f"{url.format(version=VERSION).rstrip('/')}/{archive_name()}",
        "sha256": hashlib.sha256(content).hexdigest(),
        "bin": LAUNCHER.name,
        "files": [{"from": LAUNCHER.name, "to": "."}, {"from": "LICENSE", "to": "."}],
    }
    return yaml.safe_dump(
        {
            "apiVersion": "krew.googlecontainertools.github.com/v1alpha2",
            "kind": "Plugin",
            "metadata": {"name": "labeleddataset"},
            "spec": {
                "version": f"v{VERSION}",
                "homepage": homepage,
                "shortDescription": "Look at LabeledDatasets, and steer them",
                "description": "Stages with bars, rate and time left; logs; why a dataset is not ready and what to do "
                "next; retry, suspend and resume; the report in a browser.",
                "caveats": "Needs uv or pipx: the plugin is a Python package.",
                "platforms": [platform],
            },
        },
        sort_keys=False,
        width=120,
    )


def archive_name() -> str:
    """Return the archive's file name."""
    return f"kubectl-labeleddataset-{VERSION}.tar.gz"


def main() -> None:
    """Write both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--url", required=True, help="where the archive is published; {version} stands for the version")
    parser.add_argument("--homepage", required=True, help="the project's page")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    content = archive()
    (arguments.folder / archive_name()).write_bytes(content)
    (arguments.folder / "labeleddataset.yaml").write_text(
        manifest(content, url=arguments.url, homepage=arguments.homepage)
    )


if __name__ == "__main__":
    main()
