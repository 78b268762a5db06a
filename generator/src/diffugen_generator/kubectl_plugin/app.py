"""The verbs of `kubectl labeleddataset`. All of them read, but retry, suspend and resume."""

from __future__ import annotations

import json
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live

from diffugen_api.contract import LABEL_DATASET, LABEL_STAGE, LABEL_STEP, RETRY_ANNOTATION
from diffugen_generator.kubectl_plugin.explanation import Surroundings, explain
from diffugen_generator.kubectl_plugin.kubectl import RESOURCE, Kubectl, KubectlError
from diffugen_generator.kubectl_plugin.progress_table import dataset_view, datasets_table, state_of
from diffugen_generator.kubectl_plugin.published_files import REPORT, browser_address

app = typer.Typer(
    help="Look at LabeledDatasets, and steer them. Only retry, suspend and resume change anything.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_LOOK_SECONDS = 2.0
_OVER = ("Succeeded", "Failed")
_GITOPS = ("argocd", "kustomize-controller", "helm-controller")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The dataset's name.", show_default=False)]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="The namespace, as for kubectl.")]
Context = Annotated[str, typer.Option("--context", help="The context, as for kubectl.")]
Kubeconfig = Annotated[str, typer.Option("--kubeconfig", help="The kubeconfig, as for kubectl.")]


@app.command()
def status(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="One dataset; without it, all of the namespace.")] = "",
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Follow it until it is published or has failed.")
    ] = False,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Show the stages of a dataset with bars, rate and time left; with --watch exit 1 where it fails."""
    kubectl = Kubectl(namespace=namespace, context=context, kubeconfig=kubeconfig)
    console = Console()
    with _said():
        if not name:
            console.print(datasets_table(kubectl.datasets()))
            return
        dataset = kubectl.dataset(name)
        if not watch:
            console.print(dataset_view(dataset))
            return
        with Live(dataset_view(dataset), console=console, auto_refresh=False) as live:
            while state_of(dataset) not in _OVER:
                time.sleep(_LOOK_SECONDS)
                dataset = kubectl.dataset(name)
                live.update(dataset_view(dataset), refresh=True)
    raise typer.Exit(0 if state_of(dataset) == "Succeeded" else 1)


@app.command()
def logs(
    name: Name,
    *,
    stage: Annotated[str, typer.Option(help="Only pods of this stage.")] = "",
    step: Annotated[
        str, typer.Option(help="Only pods of this step: plan, stage, publish-shard, publish or delete.")
    ] = "",
    index: Annotated[int | None, typer.Option(help="Only pods of this shard.", min=0)] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as they write.")] = False,
    tail: Annotated[int, typer.Option(help="How many lines of each pod; -1: all.")] = -1,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Print the logs of a dataset's pods, each line with its pod."""
    kubectl = Kubectl(namespace=namespace, context=context, kubeconfig=kubeconfig)
    with _said():
        kubectl.dataset(name)
    selector = {LABEL_DATASET: name, LABEL_STAGE: stage, LABEL_STEP: step}
    labels = [f"{label}={value}" for label, value in selector.items() if value]
    if index is not None:
        labels.append(f"batch.kubernetes.io/job-completion-index={index}")
    flags = ["--container=generator", "--prefix", "--ignore-errors", f"--tail={tail}", "--max-log-requests=50"]
    raise typer.Exit(kubectl.show("logs", f"--selector={','.join(labels)}", *flags, *(["--follow"] if follow else [])))


@app.command()
def retry(name: Name, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = "") -> None:
    """Begin a stalled run once more, from what the store has."""
    kubectl = Kubectl(namespace=namespace, context=context, kubeconfig=kubeconfig)
    request = f"{RETRY_ANNOTATION}={datetime.now(UTC).isoformat(timespec='milliseconds')}"
    with _said():
        kubectl.run("annotate", RESOURCE, name, "--overwrite", request)
    typer.echo(f"{name}: asked for a retry")


@app.command()
def suspend(name: Name, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = "") -> None:
    """Stop a dataset's pods; what they have done is kept."""
    _set_suspend(Kubectl(namespace=namespace, context=context, kubeconfig=kubeconfig), name, suspended=True)


@app.command()
def resume(name: Name, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = "") -> None:
    """Let a suspended dataset go on."""
    _set_suspend(Kubectl(namespace=namespace, context=context, kubeconfig=kubeconfig), name, suspended=False)


def _set_suspend(kubectl: Kubectl, name: str, *, suspended: bool) -> None:
    with _said():
        patch = json.dumps({"spec": {"suspend": suspended}})
        kubectl.run("patch", RESOURCE, name, "--type=merge", "--patch", patch)
        managers = _gitops_managers(kubectl.get(RESOURCE, name, "--show-managed-fields"))
    typer.echo(f"{name}: {'suspended' if suspended else 'resumed'}")
    if managers:
        typer.echo(f"{managers[0]} manages it: set spec.suspend in Git too, or it is set back.", err=True)


def _gitops_managers(dataset: dict[str, Any]) -> list[str]:
    managers = [entry["manager"] for entry in dataset["metadata"].get("managedFields", [])]
    return sorted({manager for manager in managers if manager.startswith(_GITOPS)})


@app.command("open")
def open_(
    name: Name,
    *,
    file: Annotated[str, typer.Option(help="Which file of the published dataset.")] = REPORT,
    browser: Annotated[bool, typer.Option(help="Open it, or print the address alone.")] = True,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Open the published dataset's report in a browser; with --file another file, by an address signed for an hour."""
    kubectl = Kubectl(namespace=namespace, context=context, kubeconfig=kubeconfig)
    with _said(), browser_address(kubectl, kubectl.dataset(name), file) as (address, lasting):
        typer.echo(address)
        if browser:
            webbrowser.open(address)
        if lasting:
            typer.echo(f"{lasting} until you press Ctrl-C.", err=True)
            _until_interrupted()


def _until_interrupted(sleep: Callable[[float], None] = time.sleep) -> None:
    try:
        while True:
            sleep(3600)
    except KeyboardInterrupt:
        return


@app.command("explain")
def explain_(name: Name, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = "") -> None:
    """Say why a dataset is not ready, from all that belongs to it, and what to do next."""
    kubectl = Kubectl(namespace=namespace, context=context, kubeconfig=kubeconfig)
    with _said():
        findings = explain(_surroundings(kubectl, name))
    for finding in findings:
        typer.echo(f"- {finding.what}")
        if finding.todo:
            typer.echo(f"  next: {finding.todo}")


def _surroundings(kubectl: Kubectl, name: str) -> Surroundings:
    dataset = kubectl.dataset(name)
    uid, own = dataset["metadata"]["uid"], f"--selector={LABEL_DATASET}={name}"
    jobs = _readable(kubectl, "jobs", own)
    return Surroundings(
        dataset=dataset,
        jobs=[job for job in jobs if any(o["uid"] == uid for o in job["metadata"].get("ownerReferences", []))],
        pods=_readable(kubectl, "pods", own),
        workloads=_readable(kubectl, "workloads.kueue.x-k8s.io"),
        events=_readable(kubectl, "events"),
    )


def _readable(kubectl: Kubectl, *arguments: str) -> list[dict[str, Any]]:
    """Return the items of a list, or none with a line that says why: what can be read still explains a lot."""
    try:
        return kubectl.items(*arguments)
    except KubectlError as error:
        typer.echo(f"{arguments[0]} cannot be read: {error}", err=True)
        return []


@contextmanager
def _said() -> Iterator[None]:
    """Turn kubectl's complaint into a line and exit code 1."""
    try:
        yield
    except KubectlError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    app()
