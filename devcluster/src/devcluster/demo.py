"""The demo: runs a manifest with the operator on a temporary Kubernetes cluster and shows the resulting images.

All steps are those of a real cluster, but on this machine: `kubectl apply`, the operator with the rights that it is
published with, Indexed Jobs that request a (simulated) GPU, MinIO. Only the manifest's store endpoint is changed to
that of the temporary MinIO, because its port is not known before. A terminal shows live progress; other outputs get
plain lines.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from devcluster import kernel
from devcluster.cluster import Cluster

NAMESPACE = "demo"
SECRET_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
LOG_LINES = 20
"""How many lines of the operator's log are shown if it ended."""

Json = dict[str, Any]


class DemoFailedError(RuntimeError):
    """The dataset did not become Ready; the message has the status of the dataset."""


@dataclass(frozen=True, kw_only=True)
class Demo:
    """One run of the demo."""

    cluster: Cluster
    manifest: Json
    console: Console
    timeout_s: float

    @property
    def name(self) -> str:
        """The dataset's name."""
        return str(self.manifest["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """The dataset's namespace."""
        return str(self.manifest["metadata"]["namespace"])

    def dataset(self) -> Json:
        """Return the resource in its current state."""
        return self.cluster.get("lds", self.name, namespace=self.namespace)

    def table(self, *options: str) -> str:
        """Return the output of `kubectl get lds`."""
        return self.cluster.kubectl("get", "lds", self.name, "-n", self.namespace, *options).rstrip()

    def pods(self) -> list[str]:
        """Return a line for each pod that is not finished."""
        pods = self.cluster.items("pods", namespace=self.namespace)
        return [
            f"{pod['metadata']['name']}  {pod['status'].get('phase', '')}  {pod['status'].get('podIP', '')}"
            for pod in pods
            if pod["status"].get("phase") in {"Pending", "Running"}
        ]

    # --- the steps, in order ---

    def prepare(self) -> None:
        """Install the CRD and the operator's rights; create namespace, bucket and Secret."""
        root = project_root()
        self.cluster.apply_file(root / "crds" / "diffugen.dev_labeleddatasets.yaml")
        self.cluster.apply_file(root / "operator" / "rbac.yaml")
        store = self.manifest["spec"]["output"]["s3"]
        self.cluster.make_bucket(store["bucket"])
        access = self.cluster.minio
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": store["secretRef"]["name"], "namespace": self.namespace},
            "stringData": dict(zip(SECRET_KEYS, (access.access_key, access.secret_key), strict=True)),
        }
        namespace = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": self.namespace,
                "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
            },
        }
        self.cluster.apply(namespace)
        self.cluster.apply(secret)

    def follow(self, alive: Callable[[], None]) -> Json:
        """Show the dataset until it is Ready and return it; raise `DemoFailedError` where it stalls.

        `alive` raises it if the operator has ended, because then the dataset cannot become Ready.
        """
        end = time.monotonic() + self.timeout_s
        with self._display() as show:
            while time.monotonic() < end:
                dataset = self.dataset()
                show(dataset)
                if condition(dataset, "Ready").get("status") == "True":
                    return dataset
                if condition(dataset, "Stalled").get("status") == "True":
                    raise DemoFailedError(condition(dataset, "Stalled").get("message", "stalled"))
                alive()
                time.sleep(1)
        raise DemoFailedError(f"not Ready after {self.timeout_s:.0f} s")

    @contextmanager
    def _display(self) -> Iterator[Any]:
        if not self.console.is_terminal:
            yield self._plain_lines()
            return
        with Live(console=self.console, refresh_per_second=4) as live:
            yield lambda dataset: live.update(self._screen(dataset))

    def _plain_lines(self) -> Any:
        last = ""
        began = time.monotonic()

        def show(dataset: Json) -> None:
            nonlocal last
            line = status_line(dataset)
            if line != last:
                self.console.print(f"{time.monotonic() - began:6.1f} s  {line}", highlight=False)
                last = line

        return show

    def _screen(self, dataset: Json) -> RenderableType:
        summary = dataset.get("status", {}).get("summary", {})
        percent = summary.get("percent", 0)
        bar = Table.grid(padding=(0, 1))
        bar.add_row(ProgressBar(total=100, completed=percent, width=40), Text(f"{percent:3d} %"), Text(rate(summary)))
        pods = Text("\n".join(self.pods()), style="dim")
        return Group(Text(f"$ kubectl get lds {self.name}", style="bold"), Text(self.table()), Text(), bar, pods)

    def pull(self, dataset: Json, into: Path) -> Path:
        """Download the published revision; return the path of its report."""
        store = self.manifest["spec"]["output"]["s3"]
        client = self.cluster.minio.client()
        prefix = dataset["status"]["dataset"]["uri"].removeprefix(f"s3://{store['bucket']}/").rstrip("/") + "/"
        for item in client.list_objects(store["bucket"], prefix=prefix, recursive=True):
            name = str(item.object_name)
            client.fget_object(store["bucket"], name, str(into / name.removeprefix(prefix)))
        return into / "report.html"


def condition(dataset: Json, kind: str) -> Mapping[str, str]:
    """Return a condition if it is of the dataset's current generation, else nothing."""
    for found in dataset.get("status", {}).get("conditions", []):
        if found["type"] == kind and found.get("observedGeneration") == dataset["metadata"]["generation"]:
            return dict(found)
    return {}


def rate(summary: Mapping[str, Any]) -> str:
    """Return rate and time left, if they are known."""
    parts = []
    if summary.get("imagesPerSecond"):
        parts.append(f"{summary['imagesPerSecond']} images/s")
    if summary.get("etaSeconds"):
        parts.append(f"{summary['etaSeconds']} s left")
    return ", ".join(parts)


def status_line(dataset: Json) -> str:
    """Return the progress in one plain line."""
    summary = dataset.get("status", {}).get("summary", {})
    shown = [summary.get("stage", ""), summary.get("progress", ""), summary.get("reason", ""), rate(summary)]
    return "  ".join(part for part in shown if part) or "applied"


def project_root() -> Path:
    """Return the checkout that this package is installed from: devcluster is not published as a package."""
    return Path(__file__).parents[3]


@contextmanager
def operator(cluster: Cluster, namespace: str, log: Path) -> Iterator[Callable[[], None]]:
    """Run the operator with its own user and rights during the block; yield a check that it still runs."""
    command = [
        str(Path(sys.executable).with_name("diffugen-operator")),
        f"--kubeconfig={cluster.operator_kubeconfig}",
        f"--namespace={namespace}",
    ]
    images = {
        "DIFFUGEN_GENERATOR_IMAGE": "diffugen/generator:dev",
        "DIFFUGEN_LIGHT_IMAGE": "diffugen/generator:dev",
    }
    pace = {"DIFFUGEN_SCRAPE_INTERVAL": "1", "DIFFUGEN_PROGRESS_INTERVAL": "2"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **images, **pace},
            preexec_fn=kernel.die_with_parent(),
        )
    try:
        yield lambda: check_runs(process, log)
    finally:
        process.terminate()
        process.wait(timeout=30)


def check_runs(process: subprocess.Popen[bytes], log: Path) -> None:
    """Raise `DemoFailedError` with the end of its log if the operator has ended."""
    if (code := process.poll()) is not None:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])
        raise DemoFailedError(f"the operator ended with exit status {code}; the end of {log}:\n{end}")


def load_manifest(file: Path, endpoint: str) -> Json:
    """Read the manifest, and set its store's endpoint to this MinIO's and its namespace to the demo's."""
    manifest: Json = yaml.safe_load(file.read_text())
    manifest["metadata"].setdefault("namespace", NAMESPACE)
    manifest["spec"]["output"]["s3"]["endpoint"] = endpoint
    return manifest


def run(file: Path, *, out: Path, gpus: int, timeout_s: float, console: Console, store: str = "minio") -> None:
    """Run a manifest until its dataset is published, on a temporary cluster; raise `DemoFailedError` if that fails."""
    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    with Cluster.start(gpus=gpus, store=store) as cluster:
        demo = Demo(
            cluster=cluster,
            manifest=load_manifest(file, cluster.minio.endpoint),
            console=console,
            timeout_s=timeout_s,
        )
        console.print(f"[green]✔[/] Kubernetes and {store} are up ({time.monotonic() - began:.1f} s)")
        demo.prepare()
        with operator(cluster, demo.namespace, out / "operator.log") as alive:
            console.print("[green]✔[/] CRD installed, operator started")
            console.print(
                f"[bold]$ kubectl apply -f {file}[/]   (its store: {cluster.minio.endpoint})", highlight=False
            )
            cluster.apply(demo.manifest)
            try:
                dataset = demo.follow(alive)
            except DemoFailedError:
                console.print(cluster.diagnose(), highlight=False, markup=False)
                raise
        published = dataset["status"]["dataset"]
        folder = out / published["revision"]
        report = demo.pull(dataset, folder)
        console.print(f"\n[bold]$ kubectl get lds {demo.name} -o wide[/]")
        console.print(demo.table("-o", "wide"), highlight=False, soft_wrap=True)
        console.print("\n[bold]status[/]")
        console.print(yaml.safe_dump(dataset["status"], sort_keys=False), highlight=False, markup=False)
    console.print(f"[green]✔[/] Ready after {time.monotonic() - began:.0f} s", highlight=False)
    console.print(f"  dataset   {published['uri']}", highlight=False, soft_wrap=True)
    console.print(f"  pulled to {folder}", highlight=False, soft_wrap=True)
    console.print(f"  [bold]look at   {report}[/]", highlight=False, soft_wrap=True)
