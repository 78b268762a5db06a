"""`devcluster`: the cluster for people, and for `make`."""

import shutil
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from devcluster.binaries import Tool, cache_directory, ensure_binaries, ensure_tool
from devcluster.building import ConsoleReporter
from devcluster.cluster import Cluster
from devcluster.ending import ClusterError, take_down
from devcluster.layout import ClusterSpec, StateDirectory, directories, is_alive, remove_stale, state_root

app = typer.Typer(help="A throwaway Kubernetes and MinIO.", no_args_is_help=True, pretty_exceptions_enable=False)

Store = Annotated[str, typer.Option(help="The object store: minio, or versitygw (an S3 gateway over a folder).")]
Name = Annotated[str, typer.Option(help="The cluster's name.")]


@app.command()
def up(
    name: Name = "default",
    gpus: Annotated[int, typer.Option(help="GPUs that each node pretends to have.", min=0)] = 2,
    nodes: Annotated[int, typer.Option(help="Nodes; 0 for a control plane alone.", min=0)] = 1,
    node: Annotated[str, typer.Option(help="process; or kubelet: a real node, which needs root.")] = "process",
    store: Store = "minio",
) -> None:
    """Start a cluster that stays until `down`; one that is up is left as it is."""
    if is_alive(StateDirectory(state_root() / name)):
        cluster = _cluster(name)
    else:
        try:
            cluster = Cluster.up(
                ClusterSpec(name=name, gpus=gpus, nodes=nodes, node_kind=node, store=store), ConsoleReporter()
            )
        except ClusterError as error:
            _fail(str(error))
    _show(cluster)


@app.command()
def down(
    name: Name = "default",
    everything: Annotated[bool, typer.Option("--all", help="Every named cluster.")] = False,
) -> None:
    """End a cluster and delete all of it."""
    doomed = [StateDirectory(state_root() / name)]
    if everything:
        doomed = [directory for directory in directories() if directory.path.parent == state_root()]
    try:
        for directory in doomed:
            take_down(directory)
    except ClusterError as error:
        _fail(str(error))
    for path in remove_stale():
        typer.echo(f"removed what was left in {path}")


@app.command()
def status() -> None:
    """List the clusters that are up, also those that belong to a running test."""
    remove_stale()
    for directory in directories():
        if directory.description.exists():
            _show(Cluster(directory))
        else:
            typer.echo(f"{directory.path.name}: starting")


@app.command()
def kubeconfig(name: Name = "default") -> None:
    """Print the path of the administrator's kubeconfig."""
    typer.echo(_cluster(name).kubeconfig)


@app.command()
def env(name: Name = "default") -> None:
    """Print shell exports: `eval "$(devcluster env)"`."""
    cluster = _cluster(name)
    exports = {
        "KUBECONFIG": str(cluster.kubeconfig),
        "MINIO_ENDPOINT": cluster.minio.endpoint,
        "MINIO_ACCESS_KEY": cluster.minio.access_key,
        "MINIO_SECRET_KEY": cluster.minio.secret_key,
    }
    for variable, value in exports.items():
        typer.echo(f"export {variable}={value}")
    if shutil.which("kubectl") is None:
        typer.echo(f'export PATH="$PATH:{cluster.kubectl_path.parent}"')


@app.command()
def bucket(bucket: Annotated[str, typer.Argument(help="The bucket's name.")], name: Name = "default") -> None:
    """Make a bucket in the cluster's MinIO."""
    _cluster(name).make_bucket(bucket)


@app.command()
def binaries(
    tool: Annotated[list[str], typer.Option(help="A tool of the tests, too: helm, kueue, versitygw.")] = [],  # noqa: B006
) -> None:
    """Build the programs that a cluster consists of, if the cache lacks them, and print where they are."""
    report = ConsoleReporter()
    ensure_binaries(report)
    typer.echo(cache_directory())
    for name in tool:
        typer.echo(ensure_tool(Tool[name.upper()], report))


@app.command()
def demo(
    manifest: Annotated[Path, typer.Argument(help="A LabeledDataset.", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Option(help="Where the images go.")] = Path("out/demo"),
    gpus: Annotated[int, typer.Option(help="GPUs that the node pretends to have.", min=0)] = 2,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for Ready.")] = 1800,
    store: Store = "minio",
) -> None:
    """Take a manifest from `kubectl apply` to its published dataset, on a cluster that ends with the demo."""
    from devcluster.demo import DemoFailedError, run  # noqa: PLC0415 - the other commands need none of it

    try:
        run(manifest, out=out, gpus=gpus, timeout_s=timeout, store=store, console=Console())
    except (ClusterError, DemoFailedError) as error:
        _fail(str(error))


@app.command()
def diagnose(name: Name = "default") -> None:
    """Print nodes, Jobs, pods, events and the ends of all logs."""
    typer.echo(_cluster(name).diagnose())


def _cluster(name: str) -> Cluster:
    try:
        return Cluster.named(name)
    except ClusterError as error:
        _fail(str(error))


def _show(cluster: Cluster) -> None:
    owner = "" if cluster.owner_pid is None else f", belongs to process {cluster.owner_pid}"
    gpus = f"{len(cluster.nodes)} x {cluster.gpus} GPUs"
    lines = [
        f"{cluster.name}: up ({gpus}, ready after {cluster.ready_after_s:.1f} s{owner})",
        f"  API server  {cluster.server}",
        f"  kubeconfig  {cluster.kubeconfig}",
        f"  MinIO       {cluster.minio.endpoint}  {cluster.minio.access_key} {cluster.minio.secret_key}",
        f"  logs        {cluster.directory.logs}",
    ]
    typer.echo("\n".join(lines))


def _fail(message: str) -> NoReturn:
    Console(stderr=True, highlight=False).print(message, style="red", markup=False)
    sys.exit(1)
