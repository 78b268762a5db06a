"""The images of this checkout: built by `images/build.sh`, as users build them, and brought onto the node."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from devcluster import Cluster

ROOT = Path(__file__).parents[2]
TAG = "e2e"
"""The tag in buildah's store."""
CHART = ROOT / "charts" / "diffugen-operator"
VERSION = str(yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"])
"""The tag on the node: the one that the chart uses if its values name no tag."""
LOCAL_BASE = "localhost/diffugen-base:bookworm"
MINIO = "localhost/diffugen-minio:e2e"
NAMES = {"operator": "operator", "light": "generator-light", "models": "generator"}
"""The short name of each image in build.sh, and the full name of the built image."""
_STORE = {"STORAGE_DRIVER": "overlay", **os.environ}


def environment() -> dict[str, str]:
    """The environment for every call of buildah and of programs that call it."""
    return {**_STORE, "BUILDER": "buildah", "IMAGE_TAG": TAG, "BASE": base()}


@cache
def base() -> str:
    """$BASE, else a base of Debian's packages, made once."""
    if named := os.environ.get("BASE"):
        return named
    if not _exists(LOCAL_BASE):
        subprocess.run([ROOT / "images" / "base.sh", LOCAL_BASE], env=_STORE, check=True)
    return LOCAL_BASE


@cache
def built(image: str, version: str = VERSION) -> str:
    """Build one of the three, from buildah's layers where nothing has changed, and return its name."""
    of_version = {} if version == VERSION else {"DIFFUGEN_VERSION": version, "IMAGE_TAG": f"{TAG}-{version}"}
    done = subprocess.run(
        [ROOT / "images" / "build.sh", image],
        env={**environment(), **of_version},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return f"localhost/diffugen/{NAMES[image]}:{of_version.get('IMAGE_TAG', TAG)}"


def buildah(*arguments: str) -> str:
    """Run buildah and return its output."""
    return subprocess.run(
        ["buildah", *arguments], env=environment(), check=True, capture_output=True, text=True
    ).stdout.strip()


def configuration(name: str) -> dict[str, Any]:
    """The image's OCI configuration."""
    found: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", name))["OCIv1"]
    return found


def bring(cluster: Cluster, name: str, reference: str) -> None:
    """Import an image of buildah's into the node under the full reference of a registry that pods call it by."""
    push = ["buildah", "push", "--quiet", "--disable-compression", name, f"docker-archive:/dev/stdout:{reference}"]
    with subprocess.Popen(push, env=environment(), stdout=subprocess.PIPE) as pushing:
        assert pushing.stdout is not None
        cluster.import_image(pushing.stdout)
    assert pushing.returncode == 0


def bring_own(cluster: Cluster, image: str, version: str = VERSION) -> None:
    """Build one of the three images and import it, as `kind load docker-image` does."""
    bring(cluster, built(image, version), f"docker.io/diffugen/{NAMES[image]}:{version}")


def bring_minio(cluster: Cluster) -> None:
    """Import devcluster's MinIO, on the base image, under the chart's reference."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    image = values["minio"]["image"]
    program = cluster.directory.read_spec().binaries["minio"]
    with derived(base(), MINIO) as container:
        buildah("copy", container, program, "/usr/bin/minio")
    try:
        bring(cluster, MINIO, f"{image['repository']}:{image['tag']}")
    finally:
        buildah("rmi", MINIO)


def bring_model(cluster: Cluster, folder: Path, repository: str, scratch: Path) -> str:
    """Build an image with nothing but a folder, bring it onto the node, and return its name with its digest."""
    scratch.mkdir(exist_ok=True)
    (scratch / "Containerfile").write_text("FROM scratch\nCOPY . /\n")
    buildah("build", "--quiet", "--tag", f"{repository}:{TAG}", "--file", str(scratch / "Containerfile"), str(folder))
    archive, digest = scratch / "model.tar", scratch / "digest"
    target = f"oci-archive:{archive}:{repository}:{TAG}"
    buildah("push", "--quiet", "--digestfile", str(digest), f"{repository}:{TAG}", target)
    with archive.open("rb") as file:
        cluster.import_image(file)
    reference = f"{repository}@{digest.read_text().strip()}"
    cluster.name_image(f"{repository}:{TAG}", reference)  # as a pull by the digest does
    return reference


@contextmanager
def derived(name: str, new: str) -> Iterator[str]:
    """Make the image `new` from `name` and what the caller does to the container that this yields."""
    container = buildah("from", "--pull-never", name)
    try:
        yield container
        buildah("commit", "--quiet", container, new)
    finally:
        buildah("rm", container)


def remove_leftovers(within_s: float) -> None:
    """Remove the working containers, and so the mounts, of builds that were killed; only those on our base.

    If buildah still runs after `within_s`, they may belong to that build, so they stay until the next call.
    """
    name = os.environ.get("BASE") or LOCAL_BASE
    if not _exists(name):
        return
    containers = buildah("containers", "--quiet", "--notruncate").split()
    end = time.monotonic() + within_s
    while _buildah_runs():
        if time.monotonic() > end:
            return
        time.sleep(0.2)
    first = _first_layer("image", name)
    for container in containers:
        with suppress(subprocess.CalledProcessError):  # its build has ended meanwhile
            if _first_layer("container", container) == first:
                buildah("rm", container)


def _exists(image: str) -> bool:
    command = ["buildah", "inspect", "--type", "image", image]
    return subprocess.run(command, env=_STORE, capture_output=True, check=False).returncode == 0


def _first_layer(kind: str, name: str) -> str:
    return str(json.loads(buildah("inspect", "--type", kind, name))["OCIv1"]["rootfs"]["diff_ids"][0])


def _buildah_runs() -> bool:
    for file in Path("/proc").glob("[0-9]*/comm"):
        try:
            if file.read_text().startswith("buildah"):
                return True
        except OSError:  # it has ended meanwhile
            continue
    return False
