"""The images of this checkout: built by `images/build.sh`, as users build them, and brought onto the node."""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from devcluster import Cluster
from devcluster.kubelet.archives import write_image

ROOT = Path(__file__).parents[2]
TAG = "e2e"
LOCAL_BASE = "localhost/diffugen-base:bookworm"
NAMES = {"operator": "operator", "light": "generator-light", "models": "generator"}
"""The short name of each image in build.sh, and the full name of the built image."""


def environment() -> dict[str, str]:
    """The environment for every call of buildah and of programs that call it."""
    return {"STORAGE_DRIVER": "overlay", **os.environ, "BUILDER": "buildah", "IMAGE_TAG": TAG, "BASE": base()}


@cache
def base() -> str:
    """$BASE, else a base of Debian's packages, made once."""
    if named := os.environ.get("BASE"):
        return named
    store = {"STORAGE_DRIVER": "overlay", **os.environ}
    found = subprocess.run(
        ["buildah", "inspect", "--type", "image", LOCAL_BASE], env=store, capture_output=True, check=False
    )
    if found.returncode != 0:
        subprocess.run([ROOT / "images" / "base.sh", LOCAL_BASE], env=store, check=True)
    return LOCAL_BASE


@cache
def built(image: str) -> str:
    """Build one of the three, from buildah's layers where nothing has changed, and return its name."""
    done = subprocess.run(
        [ROOT / "images" / "build.sh", image], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return f"localhost/diffugen/{NAMES[image]}:{TAG}"


def buildah(*arguments: str) -> str:
    """Run buildah and return its output."""
    return subprocess.run(
        ["buildah", *arguments], env=environment(), check=True, capture_output=True, text=True
    ).stdout.strip()


def configuration(name: str) -> dict[str, Any]:
    """The image's OCI configuration."""
    found: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", name))["OCIv1"]
    return found


def bring(cluster: Cluster, name: str, reference: str, scratch: Path) -> None:
    """Import an image of buildah's into the node under the name that pods call it by."""
    archive = scratch / "image.tar"
    buildah("push", "--quiet", "--disable-compression", name, f"docker-archive:{archive}:docker.io/{reference}")
    try:
        cluster.import_image(archive)
    finally:
        archive.unlink(missing_ok=True)


def bring_model(cluster: Cluster, folder: Path, repository: str, scratch: Path) -> str:
    """Build an image with nothing but a folder, bring it onto the node, and return its name with its digest."""
    scratch.mkdir(exist_ok=True)
    (scratch / "Containerfile").write_text("FROM scratch\nCOPY . /\n")
    buildah("build", "--quiet", "--tag", f"{repository}:{TAG}", "--file", str(scratch / "Containerfile"), str(folder))
    archive, digest = scratch / "model.tar", scratch / "digest"
    target = f"oci-archive:{archive}:{repository}:{TAG}"
    buildah("push", "--quiet", "--digestfile", str(digest), f"{repository}:{TAG}", target)
    cluster.import_image(archive)
    reference = f"{repository}@{digest.read_text().strip()}"
    cluster.name_image(f"{repository}:{TAG}", reference)  # as a pull by the digest does
    return reference


def bring_minio(cluster: Cluster, scratch: Path) -> None:
    """Import an image with nothing but devcluster's MinIO."""
    archive = scratch / "minio.tar"
    program = Path(cluster.directory.read_spec().binaries["minio"])
    write_image(archive, reference="docker.io/devcluster/minio:1", files={"/minio": program}, entrypoint=["/minio"])
    cluster.import_image(archive)
    archive.unlink()
