"""The commands for published datasets: pull, verify, export, merge, diff, prune, view.

Each finds the dataset at the location that the user gives (`commands.published_at`), and prints a table, or with
`--json` one JSON object.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffugen_generator.terminal import (
    Debug,
    Endpoint,
    Json,
    open_display,
    report_errors,
    show_result,
    stop_on_interrupt,
)

if TYPE_CHECKING:
    from diffugen_generator.publishing.reading import PublishedDataset

Where = Annotated[
    str,
    typer.Argument(
        metavar="URI",
        help="The dataset, or …/revisions/NAME of it: s3://BUCKET/PREFIX/NAMESPACE/NAME, or a folder.",
        show_default=False,
    ),
]
Wheres = Annotated[
    list[str], typer.Argument(metavar="URI…", help="Two or more datasets, as for pull.", show_default=False)
]
Formats = Annotated[
    list[str] | None,
    typer.Option("--format", metavar="FORMAT", help="A format; repeat for several.", show_default=False),
]


def pull(  # noqa: PLR0917 - a command's options
    uri: Where,
    target: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to fill.", show_default=False)],
    formats: Formats = None,
    output_layout: Annotated[
        str, typer.Option(metavar="published|diffugen", help="diffugen: folders and label files as DiffuGen has them.")
    ] = "published",
    endpoint: Endpoint = "",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Fetch a published dataset and check every file. DIR/current is the revision; stopped, it goes on where it was."""

    def do() -> None:
        from diffugen_api.plan import SpecError  # noqa: PLC0415
        from diffugen_generator.commands.diffugen_layout import pull_as_diffugen  # noqa: PLC0415
        from diffugen_generator.commands.published_tables import show_pull  # noqa: PLC0415
        from diffugen_generator.commands.pull import pull as pull_here  # noqa: PLC0415

        if output_layout not in {"published", "diffugen"}:
            raise SpecError(
                "UnknownLayout",
                f"--output-layout: {output_layout!r} is neither published nor diffugen; give one of them.",
            )
        if output_layout == "diffugen" and formats:
            raise SpecError("UnknownLayout", "--format has no meaning with --output-layout diffugen: leave one out.")
        display, stop = open_display(quiet=False), stop_on_interrupt()
        published = _published(uri, endpoint)
        if output_layout == "diffugen":
            result = pull_as_diffugen(published, target, display, stop=stop)
        else:
            result = pull_here(published, target, formats or (), display, stop=stop)
        show_result(result, show_pull, as_json=as_json)

    report_errors(do, debug=debug, as_json=as_json)


def verify(uri: Where, endpoint: Endpoint = "", as_json: Json = False, debug: Debug = False) -> None:
    """Check every file and every sample of a published dataset; name everything that is wrong and repair nothing."""
    faults = []

    def do() -> None:
        from diffugen_generator.commands.published_tables import show_verify  # noqa: PLC0415
        from diffugen_generator.commands.verify import verify as verify_here  # noqa: PLC0415

        result = verify_here(_published(uri, endpoint), open_display(quiet=False), stop=stop_on_interrupt())
        faults.extend(result.faults)
        show_result(result, show_verify, as_json=as_json)

    report_errors(do, debug=debug, as_json=as_json)
    if faults:
        from diffugen_api.contract import ExitCode  # noqa: PLC0415

        raise typer.Exit(ExitCode.BAD_SHARD)


def export(  # noqa: PLR0917 - a command's options
    uri: Where,
    formats: Formats = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="The new folder; default: NAME-FORMAT.")
    ] = None,
    endpoint: Endpoint = "",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a published dataset in other formats, to a new folder. Nothing is drawn or labeled."""

    def do() -> None:
        from diffugen_generator.commands.published_tables import show_written  # noqa: PLC0415
        from diffugen_generator.commands.write_again import check_known, write  # noqa: PLC0415

        check_known(formats or ())
        published = _published(uri, endpoint)
        name = str(published.dataset.get("name") or "dataset")
        folder = output or Path("-".join([name, *(formats or ())]))
        result = write(name, [published], formats or (), folder, open_display(quiet=False), stop=stop_on_interrupt())
        show_result(result, show_written, as_json=as_json)

    report_errors(do, debug=debug, as_json=as_json)


def merge(  # noqa: PLR0917 - a command's options
    uris: Wheres,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The new folder.", show_default=False)],
    formats: Formats = None,
    name: Annotated[str, typer.Option(help="The name of the merged dataset.")] = "merged",
    endpoint: Endpoint = "",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write several published datasets as one, classes joined by name. Formats: those of the first, or --format."""

    def do() -> None:
        from diffugen_api.plan import SpecError  # noqa: PLC0415
        from diffugen_generator.commands.published_tables import show_written  # noqa: PLC0415
        from diffugen_generator.commands.write_again import write  # noqa: PLC0415

        if len(uris) < 2:
            raise SpecError("OneDataset", "URI: only one dataset is given; give two or more, or use `diffugen export`.")
        sources = [_published(uri, endpoint) for uri in uris]
        wanted = formats or sources[0].formats
        result = write(name, sources, wanted, output, open_display(quiet=False), stop=stop_on_interrupt())
        show_result(result, show_written, as_json=as_json)

    report_errors(do, debug=debug, as_json=as_json)


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A revision, as for pull.", show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one.", show_default=False)],
    endpoint: Endpoint = "",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what changed between two published revisions: samples, labels, counts, settings."""

    def do() -> None:
        from diffugen_generator.commands.diff import diff as diff_here  # noqa: PLC0415
        from diffugen_generator.commands.published_tables import show_diff  # noqa: PLC0415

        result = diff_here(_published(a, endpoint), _published(b, endpoint), open_display(quiet=as_json))
        show_result(result, show_diff, as_json=as_json)

    report_errors(do, debug=debug, as_json=as_json)


def prune(  # noqa: PLR0917 - a command's options
    uri: Annotated[
        str,
        typer.Argument(
            metavar="URI", help="The dataset: s3://BUCKET/PREFIX/NAMESPACE/NAME, or a folder.", show_default=False
        ),
    ],
    keep: Annotated[int, typer.Option(help="Revisions to keep, the current one included.")] = 3,
    delete: Annotated[bool, typer.Option("--delete", help="Delete; without it, only show what would be.")] = False,
    endpoint: Endpoint = "",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show which revisions, samples, evidence and labels no kept revision needs; with --delete, delete them."""

    def do() -> None:
        from diffugen_generator.commands.locations import store_of  # noqa: PLC0415
        from diffugen_generator.commands.prune import prune as prune_here  # noqa: PLC0415
        from diffugen_generator.commands.published_tables import show_prune  # noqa: PLC0415

        display, stop = open_display(quiet=False), stop_on_interrupt()
        result = prune_here(store_of(uri, endpoint), keep, display, delete=delete, stop=stop)
        show_result(result, show_prune, as_json=as_json)

    report_errors(do, debug=debug, as_json=as_json)


def view(
    uri: Where,
    port: Annotated[int, typer.Option(help="The port on 127.0.0.1; 0: any free one.", min=0, max=65535)] = 0,
    browser: Annotated[bool, typer.Option(help="Open a browser, or print the address alone.")] = True,
    endpoint: Endpoint = "",
    debug: Debug = False,
) -> None:
    """Serve a published dataset's report on this machine and open it in a browser, until Ctrl-C."""

    def do() -> None:
        import webbrowser  # noqa: PLC0415

        from diffugen_generator.commands.view import serving  # noqa: PLC0415

        stop = stop_on_interrupt("stopping")
        with serving(_published(uri, endpoint), port) as address:
            typer.echo(address)
            if browser:
                webbrowser.open(address)
            stop.wait()

    report_errors(do, debug=debug, as_json=False)


def _published(uri: str, endpoint: str) -> PublishedDataset:
    from diffugen_generator.commands.published_at import published_at  # noqa: PLC0415

    return published_at(uri, endpoint)


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (pull, verify, export, merge, diff, prune, view):
        app.command()(command)
