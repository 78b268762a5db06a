"""A dataset from Git, on a real cluster: what Argo CD and Flux see during a run, and whether Git drifts."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster.cluster import ClusterError
from tests.cluster.pods import eventually
from tests.cluster.test_kills import slow_stage
from tests.cluster.world import Json, World, merged
from tests.gitops.engines import PIPELINES, argocd_health, flux_checks, flux_status
from tests.operator.kstatus import kstatus

MANAGER = "--field-manager=argocd-controller"
CHECKS = dict(flux_checks())


class Git:
    """A manifest, and the GitOps manager that applies it server-side."""

    def __init__(self, world: World, **changes: Any) -> None:
        self._world = world
        self.manifest = world.manifest(**changes)

    def sync(self) -> Json:
        """Apply the manifest; returns the object."""
        self._world.cluster.kubectl("apply", "--server-side", MANAGER, "-f", "-", stdin=json.dumps(self.manifest))
        return self.object()

    def object(self) -> Json:
        """Return the object, with who manages which of its fields."""
        return self._world.cluster.get("lds", "shapes", namespace=self._world.namespace)

    def edit(self, **changes: Any) -> None:
        self.manifest["spec"] = merged(self.manifest["spec"], changes)

    def drift(self) -> str:
        """Return the differences between the manifest and the cluster, as the manager computes them."""
        try:
            self._world.cluster.kubectl("diff", "--server-side", MANAGER, "-f", "-", stdin=json.dumps(self.manifest))
        except ClusterError as error:
            return str(error)
        return ""

    def synced_twice_without_a_change(self, phase: str) -> None:
        before = self.object()
        assert self.drift() == "", phase
        for _ in range(2):
            after = self.sync()
            assert after["metadata"]["generation"] == before["metadata"]["generation"], phase
            assert after["spec"] == self.manifest["spec"], f"{phase}: nothing is added to the spec"
            assert after["metadata"].get("annotations", {}) == {}, phase
            entries = after["metadata"]["managedFields"]
            assert "argocd-controller" in {entry["manager"] for entry in entries if "subresource" not in entry}, phase
            others = [entry for entry in entries if entry["manager"] != "argocd-controller"]
            assert {entry["subresource"] for entry in others if "subresource" in entry} <= {"status"}, phase
            own = [entry["fieldsV1"] for entry in others if "subresource" not in entry]
            given = after["metadata"].get("finalizers", [])
            wanted = ["diffugen.dev/clean-up"] if after["spec"].get("deletionPolicy") == "Delete" else []
            assert given == wanted, phase
            message = f"{phase}: the operator writes the status, and its finalizer, alone"
            assert [fields for fields in own if not only_finalizers(fields)] == [], message


def only_finalizers(fields: Json) -> bool:
    """Return whether a manager's fields are finalizers, or none."""
    return set(fields) <= {"f:metadata"} and set(fields.get("f:metadata", {})) <= {"f:finalizers"}


@contextmanager
def watched(world: World, file: Path) -> Iterator[Callable[[], list[Json]]]:
    """Watch the namespace's datasets from now on; yields a function that returns every version received."""
    path = f"/apis/diffugen.dev/v1alpha1/namespaces/{world.namespace}/labeleddatasets?watch=true&timeoutSeconds=3600"
    command = ["kubectl", f"--kubeconfig={world.cluster.kubeconfig}", "get", "--raw", path]
    with file.open("wb") as output, subprocess.Popen(command, stdout=output) as watch:
        try:
            yield lambda: [
                json.loads(line)["object"] for line in file.read_text().splitlines(keepends=True) if "\n" in line
            ]
        finally:
            watch.terminate()


def test_every_version_of_a_run_is_judged_correctly_and_never_drifts_from_git(running: World, tmp_path: Path) -> None:
    running.operator.end()
    with watched(running, tmp_path / "watch") as seen:
        git = from_git(running)
        last = running.get()["metadata"]["resourceVersion"]
        eventually(lambda: seen()[-1]["metadata"]["resourceVersion"] == last)
        versions = seen()
    git.edit(deletionPolicy="Retain")
    git.sync()
    running.wait("without its finalizer", lambda d: not d["metadata"].get("finalizers"))
    git.synced_twice_without_a_change("kept in the store again")

    def course(read: Callable[[Json], str]) -> list[str]:
        return [said for said, _ in groupby(map(read, versions))]

    waiting = ["InProgress", "Current", "InProgress", "Failed", "InProgress", "Current"]
    assert course(lambda version: flux_status(version, CHECKS["datasets"])) == waiting
    assert course(kstatus) == waiting
    health = course(lambda version: argocd_health(version)[0])
    assert health.count("Suspended") == 1
    assert [status for status in health if status != "Progressing"] == ["Suspended", "Healthy", "Degraded", "Healthy"]
    planned = course(lambda version: flux_status(version, CHECKS["datasets-planned"]))
    assert planned[:2] == ["InProgress", "Current"]
    assert "Failed" in planned
    states = {version["status"].get("summary", {}).get("state", "") for version in versions}
    assert states == {"", "Pending", "Running", "Suspended", "Succeeded", "Failed"}


def from_git(running: World) -> Git:
    """Take a dataset through every phase, and sync each phase twice."""
    git = Git(running, stages=[slow_stage()], run={"samplesPerShard": 4, "parallelism": 1})

    git.sync()
    git.synced_twice_without_a_change("created")
    running.operator.start()
    running.wait("planning", lambda d: d["status"].get("summary", {}).get("stage") == "planning")
    git.synced_twice_without_a_change("planning")
    running.wait("drawing", lambda d: d["status"]["summary"]["reason"] == "Drawing")
    git.synced_twice_without_a_change("drawing")
    git.edit(suspend=True)
    git.sync()
    running.wait("suspended", lambda d: d["status"]["summary"]["state"] == "Suspended")
    git.synced_twice_without_a_change("suspended")
    git.edit(suspend=False)
    git.sync()
    running.wait("publishing", lambda d: d["status"]["summary"].get("reason") == "Publishing")
    git.synced_twice_without_a_change("publishing")
    running.wait_ready()
    git.synced_twice_without_a_change("published")
    git.edit(output={"s3": {"bucket": "there-is-none"}})
    git.sync()
    running.wait_stalled("BucketNotFound")
    git.synced_twice_without_a_change("stalled")
    # No Kueue admits the Job, so it waits until the dataset leaves the queue.
    git.edit(output={"s3": {"bucket": running.bucket}}, run={"queueName": "gpus"}, deletionPolicy="Delete")
    git.sync()
    running.wait("queued", lambda d: running.condition("Queued", d)["reason"] == "NotAdmitted")
    git.synced_twice_without_a_change("queued, with the finalizer")
    git.edit(run={"queueName": None})
    git.sync()
    running.wait_ready()
    git.synced_twice_without_a_change("published, with the finalizer")
    return git


def pipeline_step(world: World, which: str, manifest: Json, folder: Path, request: str) -> tuple[int, str, Path]:
    """Run the script of Tekton's or Kubeflow's step; returns exit code, output and the folder of its results."""
    results = folder / request
    results.mkdir()
    text = json.dumps(manifest)
    if which == "tekton":
        step = yaml.safe_load((PIPELINES / "tekton-task.yaml").read_text())["spec"]["steps"][0]
        script = step["script"]
        for name in ("uri", "revision"):
            script = script.replace(f"$(results.{name}.path)", str(results / name))
        command, environment = ["sh", "-c", script], {"MANIFEST": text, "REQUEST": request}
    else:
        container = yaml.safe_load((PIPELINES / "kubeflow-component.yaml").read_text())["implementation"]["container"]
        command = [*container["command"], text, str(results / "uri"), str(results / "revision")]
        environment = {}
    own = {"KUBECONFIG": str(world.cluster.kubeconfig), "POLL_SECONDS": "1"}
    done = subprocess.run(
        command,
        env={**os.environ, **own, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    return done.returncode, done.stdout + done.stderr, results


@pytest.mark.parametrize("which", ["tekton", "kubeflow"])
def test_a_pipeline_step_ends_with_its_dataset(running: World, tmp_path: Path, which: str) -> None:
    small: Json = {"prompts": {"samplesPerPrompt": 1}}
    broken = running.manifest(**small, output={"s3": {"bucket": "there-is-none"}})

    code, said, _ = pipeline_step(running, which, broken, tmp_path, "first")
    assert code == 1
    assert "BucketNotFound: " in said

    code, said, results = pipeline_step(running, which, running.manifest(**small), tmp_path, "second")
    assert code == 0, said
    published = running.get()["status"]["dataset"]
    assert (results / "uri").read_text() == published["uri"]
    assert (results / "revision").read_text() == published["revision"]

    # The former failure does not fail this step: the bucket exists now.
    code, _, _ = pipeline_step(running, which, broken, tmp_path, "third")
    assert code == 1
    running.cluster.make_bucket("there-is-none")
    try:
        code, said, _ = pipeline_step(running, which, broken, tmp_path, "fourth")
        assert code == 0, said
    finally:
        for item in running.store.list_objects("there-is-none", recursive=True):
            running.store.remove_object("there-is-none", str(item.object_name))
        running.store.remove_bucket("there-is-none")
