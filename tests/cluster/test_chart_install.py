"""The chart installed by Helm, with a dataset: upgraded during a run, rolled back, removed, installed again.

The operator's pods are processes of this machine, with the rights of the chart's own service account. Such a process
cannot have a token at the usual path or its own network; extraEnv sets replacements for both.
"""

from __future__ import annotations

import copy
import itertools
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.chart.helm import CHART, RELEASE, Json, helm
from tests.cluster.conftest import reported
from tests.cluster.faults.runs import created_jobs
from tests.cluster.operator_process import OperatorProcess
from tests.cluster.pods import eventually
from tests.cluster.test_kills import slow_stage
from tests.cluster.world import World

SELECTOR = f"app.kubernetes.io/instance={RELEASE}"

KINDS = (
    "deploy",
    "svc",
    "sa",
    "roles",
    "rolebindings",
    "poddisruptionbudgets",
    "configmaps",
    "secrets",
    "networkpolicies",
)
"""The types of objects that the chart installs in its namespace."""


class Installation:
    """A release in a dataset's namespace."""

    def __init__(self, world: World, kubeconfig: Path) -> None:
        self._world = world
        self._kubeconfig = kubeconfig
        own_address = {"name": "DIFFUGEN_HTTP_HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
        self.values: Json = {
            "store": {
                "endpoint": world.cluster.minio.endpoint,
                "bucket": world.bucket,
                "prefix": "datasets",
                "secretName": "store",
            },
            "settings": {"scrapeInterval": 1, "progressInterval": 2},
            "extraEnv": [{"name": "KUBECONFIG", "value": str(kubeconfig)}, own_address],
        }

    def helm(self, command: str, *arguments: str | Path, values: Json | None = None) -> str:
        namespace = ("--namespace", self._world.namespace)
        return helm(command, RELEASE, *arguments, *namespace, values=values, kubeconfig=self._world.cluster.kubeconfig)

    def install(self) -> str:
        said = self.helm("install", CHART, values=self.values)
        self._give_token()
        self.rolled_out()
        return said

    def upgrade(self, settings: Json) -> None:
        values = {**self.values, "settings": {**self.values["settings"], **settings}}
        self.helm("upgrade", CHART, values=values)
        self.rolled_out()

    def rolled_out(self) -> None:
        self._world.kubectl("rollout", "status", f"deployment/{RELEASE}", "-n", self._world.namespace, "--timeout=240s")

    def operators(self) -> list[Json]:
        """Return the operator's pods that are not being deleted."""
        pods = self._world.cluster.items("pods", namespace=self._world.namespace, selector=SELECTOR)
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def leader(self) -> str:
        lease = self._world.cluster.get("lease", RELEASE, namespace=self._world.namespace)
        return str(lease["spec"].get("holderIdentity") or "")

    def left(self) -> list[str]:
        """Return the objects of the release in its namespace."""
        found = [self._world.cluster.items(kind, namespace=self._world.namespace, selector=SELECTOR) for kind in KINDS]
        items = itertools.chain.from_iterable(found)
        return [f"{item['kind']}/{item['metadata']['name']}" for item in items]

    def _give_token(self) -> None:
        config = copy.deepcopy(yaml.safe_load(self._world.cluster.kubeconfig.read_text()))
        token = self._world.kubectl("create", "token", RELEASE, "-n", self._world.namespace, "--duration=2h").strip()
        config["users"][0]["user"] = {"token": token}
        draft = self._kubeconfig.with_suffix(f".{secrets.token_hex(3)}")
        draft.write_text(yaml.safe_dump(config))
        draft.rename(self._kubeconfig)


@pytest.fixture
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A namespace on a separate cluster: the chart installs the CRD."""
    with reported(request.config, gpus=2) as cluster:
        nobody = OperatorProcess(kubeconfig=cluster.operator_kubeconfig, namespace="vision", log=tmp_path / "log")
        yield World(cluster, "vision", nobody)


@pytest.fixture
def installation(world: World) -> Iterator[Installation]:
    # Not below /tmp: that is a volume of the operator's pods, and its path in their environment means the volume.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Installation(world, Path(folder) / "kubeconfig")


def requests(world: World) -> list[Json]:
    """Return the operator's requests to the API server, from the audit log."""
    return world.cluster.audit_events(f"system:serviceaccount:{world.namespace}:{RELEASE}")


def refused(events: list[Json]) -> list[str]:
    """Return the requests for which it had no right."""
    assert events, "the operator's requests are in the audit log"
    decision = "authorization.k8s.io/decision"
    denied = [event for event in events if event.get("annotations", {}).get(decision) == "forbid"]
    return [f"{event['verb']} {event['requestURI']}" for event in denied]


def test_no_dataset_is_lost_or_drawn_again_from_install_to_reinstall(world: World, installation: Installation) -> None:
    said = installation.install()
    assert f"serves the namespace {world.namespace}" in said
    assert len(installation.operators()) == 2
    eventually(installation.leader)

    # Upgraded while it draws.
    one_by_one: Json = {"stages": [slow_stage()], "run": {"samplesPerShard": 2, "parallelism": 1}}
    dataset: Json = {**one_by_one, "output": {"s3": None, "formats": ["coco"]}}
    world.apply(**dataset)
    world.wait("drawing", lambda d: d["status"].get("summary", {}).get("reason") == "Drawing")
    old = {pod["metadata"]["name"] for pod in installation.operators()}
    installation.upgrade({"workers": 3})
    eventually(lambda: old.isdisjoint(pod["metadata"]["name"] for pod in installation.operators()))
    published = world.wait_ready()["status"]
    assert published["attempt"] == 1
    assert set(created_jobs(world).values()) == {1}, "each Job was created once, over the change of operators"
    drawn = world.drawn_at()

    installation.helm("rollback", "1")
    installation.rolled_out()
    eventually(installation.leader)
    assert world.get()["status"] == published

    assert refused(requests(world)) == []
    installation.helm("uninstall", "--wait")
    assert installation.left() == []
    eventually(lambda: not installation.operators())
    eventually(lambda: not world.cluster.items("leases", namespace=world.namespace))
    assert world.get()["status"] == published, "the CRD stays, and the dataset with it"
    # Its rights may be deleted before its pods, which then cannot release the Lease.
    before = len(requests(world))

    installation.install()
    world.apply(**dataset, quality={"minInstances": 1})
    former = published["dataset"]["revision"]
    again = world.wait("published again", lambda d: d["status"]["dataset"]["revision"] != former)
    assert again["status"]["attempt"] == 2
    assert world.drawn_at() == drawn
    assert refused(requests(world)[before:]) == []
