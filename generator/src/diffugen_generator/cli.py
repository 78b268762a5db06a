"""`diffugen`: the command line, for people and for pods.

Each command imports its modules when it runs, so the start is fast. `--help`, `validate`, `publish` and `plan` never
import torch, except for `plan --run-schedulers`. An error is one clear sentence on stderr and an exit code of the
contract; `--debug` adds the traceback.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from diffugen_generator.published_commands import add_to
from diffugen_generator.terminal import (
    Debug,
    Device,
    Endpoint,
    Json,
    open_console,
    open_display,
    print_json,
    report_errors,
    show_result,
    stop_on_interrupt,
)

if TYPE_CHECKING:
    from diffugen_api.plan import Expansion
    from diffugen_api.v1alpha1 import LabeledDataset
    from diffugen_generator.store.protocol import Store

T = TypeVar("T")

app = typer.Typer(
    help="Make labeled image datasets from a manifest: draw images, label them, publish the dataset.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
worker = typer.Typer(help="Run one step of a run, as a pod does.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(worker, name="worker")

File = Annotated[
    Path, typer.Argument(metavar="FILE", help="A manifest: a YAML file with a LabeledDataset.", show_default=False)
]
StoreFolder = Annotated[
    Path | None,
    typer.Option("--store", help="Use this folder in place of the bucket of spec.output.s3.", show_default=False),
]
StorePlace = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="A folder, or s3://BUCKET/PREFIX, in place of the bucket of spec.output.s3.",
        show_default=False,
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Make every warning an error.")]
OrderFile = Annotated[
    Path | None,
    typer.Option("--order", help="The work order; default: $DIFFUGEN_ORDER.", show_default=False),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 - rarely used

        typer.echo(f"diffugen {version('diffugen')}")
        raise typer.Exit


@app.callback()
def diffugen(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Make labeled image datasets from a manifest: draw images, label them, publish the dataset."""


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the dataset.", show_default=False)],
    classes: Annotated[
        list[str],
        typer.Option("--class", metavar="NAME[=WORD,…]", help="What to label; once for each.", show_default=False),
    ],
    model: Annotated[
        str, typer.Option(help="The diffusion model: builtin://NAME, hf://…, a folder.", show_default=False)
    ] = "",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file to write; NAME.yaml where absent.", show_default=False)
    ] = None,
    debug: Debug = False,
) -> None:
    """Write a commented manifest to edit."""

    def do() -> None:
        from diffugen_generator.commands.new_manifest import write_manifest  # noqa: PLC0415

        file = out if out is not None else Path(f"{name}.yaml")
        write_manifest(name, classes, model=model, file=file)
        open_console().print(f"[green]✔[/] wrote {file}; next: diffugen plan {file}", highlight=False, soft_wrap=True)

    report_errors(do, debug=debug, as_json=False)


@app.command()
def run(  # noqa: PLR0917 - typer's options
    file: File,
    store: StorePlace = None,
    endpoint: Endpoint = "",
    device: Device = None,
    reproduce: Annotated[
        bool, typer.Option("--reproduce", help="Draw one by one on one thread: the same bytes each time, but slower.")
    ] = False,
    strict: Strict = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw, label and publish in this process, without a cluster. Samples in the store are reused."""

    def do() -> None:
        from diffugen_generator.commands.manifests import order_of  # noqa: PLC0415
        from diffugen_generator.commands.run import run as run_here  # noqa: PLC0415 - numpy, OpenCV, COCO
        from diffugen_generator.commands.tables import show_run  # noqa: PLC0415
        from diffugen_generator.commands.warnings import show_warnings  # noqa: PLC0415

        datasets = _datasets(file)
        expansions = [_expansion(dataset) for dataset in datasets]
        warnings = [_warnings(file, expansion, strict=strict) for expansion in expansions]
        stop = stop_on_interrupt()
        results = []
        for dataset, expansion, warned in zip(datasets, expansions, warnings, strict=True):
            show_warnings(open_console(stderr=True), warned)
            display = open_display(quiet=False)
            place = _store(dataset, store, endpoint)
            order = order_of(dataset)
            result = run_here(order, place, display, expansion=expansion, device=device, stop=stop, reproduce=reproduce)
            results.append({**result.row(), **({"warnings": warned} if warned else {})})
            if not as_json:
                show_run(open_console(), result)
        if as_json:
            print_json(results)

    report_errors(do, debug=debug, as_json=as_json)


@app.command()
def plan(  # noqa: PLR0917 - typer's options
    file: File,
    store: StorePlace = None,
    endpoint: Endpoint = "",
    run_schedulers: Annotated[
        bool,
        typer.Option(
            "--run-schedulers", help="Also run the scheduler of each stage over its steps, without the network; slower."
        ),
    ] = False,
    strict: Strict = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show the plan of a run: stages, samples, shards, prompts. --store also counts what would be reused."""

    def do() -> None:
        from diffugen_generator.commands.manifests import order_of  # noqa: PLC0415
        from diffugen_generator.commands.tables import first_prompts, show_plan  # noqa: PLC0415
        from diffugen_generator.planning.plan import survey  # noqa: PLC0415

        shown = []
        for dataset in _datasets(file):
            order, expansion = order_of(dataset), _expansion(dataset)
            warnings = _warnings(file, expansion, strict=strict)
            held = _store(dataset, store, endpoint) if store is not None else None
            with open_display(quiet=as_json).task("planning", "samples") as advance:
                plans = survey(expansion, held, run_samplers=run_schedulers, on_progress=advance)
            if as_json:
                stages = [found.model_dump(mode="json", by_alias=True) for found in plans]
                prompts = first_prompts(expansion)
                row = {"name": order.name, "revision": order.revision, "stages": stages, "prompts": prompts}
                shown.append({**row, **({"warnings": warnings} if warnings else {})})
            else:
                show_plan(open_console(), expansion, order.name, order.revision, plans, store_checked=held is not None)
        if as_json:
            print_json(shown)

    report_errors(do, debug=debug, as_json=as_json)


@app.command()
def validate(file: File, strict: Strict = False, as_json: Json = False, debug: Debug = False) -> None:
    """Check a manifest as `kubectl apply` and the plan step do; report every fault with its field."""

    def do() -> None:
        from diffugen_generator.commands.warnings import show_warnings  # noqa: PLC0415
        from diffugen_generator.planning.plan import check_counts  # noqa: PLC0415

        shown = []
        for dataset in _datasets(file):
            expansion = _expansion(dataset)
            check_counts(expansion)
            count = expansion.count_distinct_samples()
            warnings = _warnings(file, expansion, strict=strict)
            row = {"namespace": dataset.namespace, "name": dataset.name, "valid": True, "samples": count}
            shown.append({**row, **({"warnings": warnings} if warnings else {})})
            if not as_json:
                samples = f"{count:,} sample{'' if count == 1 else 's'}"
                open_console().print(f"[green]✔[/] {dataset.name}: valid, {samples}", highlight=False)
                show_warnings(open_console(), warnings)
        if as_json:
            print_json(shown)

    report_errors(do, debug=debug, as_json=as_json)


@app.command()
def label(  # noqa: PLR0917 - a command's options
    source: Annotated[str, typer.Argument(metavar="DIR", help="The images: a folder, or s3://BUCKET/PREFIX.")],
    store: Annotated[str, typer.Option("--store", help="Where to write the dataset: a folder, or s3://BUCKET/PREFIX.")],
    like: Annotated[
        Path | None,
        typer.Option("--like", metavar="FILE", help="Take classes, labeling, quality, formats and model from this."),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME[=WORD,…]", help="A class; repeat for each class."),
    ] = None,
    model: Annotated[str, typer.Option(help="The diffusion model that labels: builtin://NAME, hf://…, a folder.")] = "",
    detector: Annotated[str, typer.Option(help="An instance segmenter, in place of --model or together with it.")] = "",
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="As in spec.output.formats; once for each format.")
    ] = None,
    presence: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Keep a class only where its words help the model to predict the image by this fraction, for example "
            "0.05; for images without captions.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="The name of the dataset.")] = "labelled",
    endpoint: Endpoint = "",
    device: Device = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Label your own images and publish them as a dataset. A text file beside an image is its caption."""

    def do() -> None:
        from diffugen_api.errors import SpecError  # noqa: PLC0415
        from diffugen_generator.commands.locations import source_at, store_at  # noqa: PLC0415
        from diffugen_generator.commands.manifests import is_name, not_a_name  # noqa: PLC0415
        from diffugen_generator.commands.tables import show_labels  # noqa: PLC0415
        from diffugen_generator.given.label import label as label_here  # noqa: PLC0415
        from diffugen_generator.given.label import spec_of  # noqa: PLC0415

        if not is_name(name):
            raise SpecError("InvalidName", f"--name: {not_a_name(name)}.")
        manifest = _datasets(like)[0].spec if like is not None else None
        spec = spec_of(
            classes=classes or (),
            model=model,
            detector=detector,
            presence=presence,
            formats=formats or (),
            like=manifest,
        )
        given, kept = source_at(source, endpoint, store, name), store_at(store, endpoint, name)
        display = open_display(quiet=False)
        result = label_here(name, spec, given, kept, display, device=device, stop=stop_on_interrupt())
        show_result(result, show_labels, as_json=as_json)

    report_errors(do, debug=debug, as_json=as_json)


@app.command("import")
def import_(  # noqa: PLR0917 - a command's options
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="A configuration file of DiffuGen (JSON).", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the manifest here; stdout where absent.", show_default=False),
    ] = None,
    syntax: Annotated[
        str,
        typer.Option(
            metavar="auto|none",
            help="Weights in prompts, ++ and (…:1.4). auto applies them, as they were meant; none gives them to the "
            "model as text, as DiffuGen does.",
        ),
    ] = "auto",
    model: Annotated[str, typer.Option(help="A model in place of the file's: builtin://NAME, hf://…, a folder.")] = "",
    detector: Annotated[str, typer.Option(help="A segmenter of transformers in place of the file's label_model.")] = "",
    root: Annotated[
        Path | None,
        typer.Option(help="DiffuGen's folder, which the file's relative paths start from.", show_default=False),
    ] = None,
    debug: Debug = False,
) -> None:
    """Convert a configuration file of DiffuGen to a manifest, with a comment on each value that changed its meaning."""

    def do() -> None:
        from diffugen_api.errors import SpecError  # noqa: PLC0415
        from diffugen_generator.commands.import_config import import_config  # noqa: PLC0415
        from diffugen_generator.importers.manifest_draft import Options  # noqa: PLC0415

        if syntax not in {"auto", "none"}:
            raise SpecError("UnknownSyntax", f"--syntax: {syntax!r} is neither auto nor none; give one of them.")
        text = import_config(config, Options("none" if syntax == "none" else "auto", model, detector), root)
        if output is None:
            typer.echo(text, nl=False)
        else:
            output.write_text(text, encoding="utf-8")

    report_errors(do, debug=debug, as_json=False)


@app.command("train-token")
def train_token(  # noqa: PLR0917 - a command's options
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="A folder with 3 to 30 images.", show_default=False)],
    token: Annotated[str, typer.Option(help="The new word, such as '<piano>'.", show_default=False)],
    initializer: Annotated[str, typer.Option(help="A word of the model that comes near: piano.", show_default=False)],
    model: Annotated[
        str, typer.Option(help="A Stable Diffusion pipeline: builtin://NAME, hf://…, a folder.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder of the results.", show_default=False)],
    masks: Annotated[
        Path | None,
        typer.Option(help="A folder with a mask for each image, white where the object is.", show_default=False),
    ] = None,
    learn: Annotated[str, typer.Option(metavar="object|style", help="What the images have in common.")] = "object",
    templates: Annotated[
        list[str] | None,
        typer.Option(
            "--template", help="A sentence with {} for the word; replaces the built-in ones.", show_default=False
        ),
    ] = None,
    vectors: Annotated[int, typer.Option(help="Tokens that the word takes in a prompt.")] = 1,
    steps: Annotated[int, typer.Option(help="Updates, at most.")] = 2000,
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 0.005,
    batch: Annotated[int, typer.Option(help="Images at once.")] = 4,
    accumulate: Annotated[int, typer.Option(help="Batches of one update.")] = 1,
    seed: Annotated[int, typer.Option(help="All that is random derives from it.")] = 0,
    flip: Annotated[bool, typer.Option("--flip", help="Mirror images at random.")] = False,
    size: Annotated[str, typer.Option(help="Pixels: 512, or 768x512.")] = "512",
    clip: Annotated[
        str | None,
        typer.Option(help="A CLIP model that compares images with yours: hf://…, a folder.", show_default=False),
    ] = None,
    device: Device = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Teach a model a new word from a few images (textual inversion). Stopped, it goes on with the same command."""

    def do() -> None:
        from diffugen_generator.commands.train_token import settings_of, show_trained  # noqa: PLC0415
        from diffugen_generator.commands.train_token import train_token as train_here  # noqa: PLC0415

        settings = settings_of(
            token=token,
            initializer=initializer,
            vectors=vectors,
            learn=learn,
            templates=templates or (),
            steps=steps,
            learning_rate=learning_rate,
            batch=batch,
            accumulate=accumulate,
            seed=seed,
            flip=flip,
            size=size,
        )
        display, stop = open_display(quiet=False), stop_on_interrupt()
        card = train_here(model, images, settings, output, display, masks=masks, device=device, stop=stop, clip=clip)
        if as_json:
            print_json([card])
        else:
            show_trained(open_console(), card, output, "samples.png")

    report_errors(do, debug=debug, as_json=as_json)


@app.command()
def prompts(  # noqa: PLR0917 - a command's options
    model: Annotated[
        str,
        typer.Option(
            help="A chat model of transformers: hf://ORG/NAME@REVISION, s3://…, a folder.", show_default=False
        ),
    ],
    classes: Annotated[
        list[str],
        typer.Option("--class", metavar="NAME[=WORD,…]", help="What to name; once for each.", show_default=False),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file to write: .txt or .jsonl.", show_default=False)
    ],
    count: Annotated[int, typer.Option(help="The number of prompts.")] = 500,
    about: Annotated[str, typer.Option(help="What the photos are about.", show_default=False)] = "",
    together: Annotated[int, typer.Option(help="The most classes that one prompt is asked to name.")] = 1,
    temperature: Annotated[float, typer.Option(help="How much replies vary; 0: not at all.")] = 0.9,
    seed: Annotated[int, typer.Option(help="All that is random derives from it.")] = 0,
    batch: Annotated[int, typer.Option(help="Requests at once.")] = 8,
    tries: Annotated[int, typer.Option(help="How often a prompt is asked for before it is given up.")] = 5,
    most_tokens: Annotated[int, typer.Option("--max-tokens", help="The longest reply.")] = 120,
    dtype: Annotated[
        str, typer.Option(metavar="auto|float32|bfloat16|float16", help="auto: bfloat16 on a GPU, float32 on a CPU.")
    ] = "auto",
    device: Device = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write prompts that name your classes with a chat model, into a file for `prompts.file` of a manifest."""

    def do() -> None:
        from diffugen_generator.commands.prompts import generation_of, show_written, wanted_of, write_file  # noqa: PLC0415

        wanted = wanted_of(classes, count=count, together=together, about=about, seed=seed, batch=batch, tries=tries)
        generation = generation_of(dtype=dtype, temperature=temperature, most_tokens=most_tokens)
        display, stop = open_display(quiet=False), stop_on_interrupt()
        result = write_file(model, wanted, generation, output, display, device=device, stop=stop)
        if as_json:
            print_json([result])
        else:
            show_written(open_console(), result)

    report_errors(do, debug=debug, as_json=as_json)


@app.command()
def calibrate(  # noqa: PLR0917 - a command's options
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="A folder with 1 to 64 images.", show_default=False)],
    masks: Annotated[
        Path, typer.Argument(metavar="MASKS", help="A folder of masks for each class.", show_default=False)
    ],
    model: Annotated[
        str, typer.Option(help="A Stable Diffusion pipeline: builtin://NAME, hf://…, a folder.", show_default=False)
    ],
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME[=WORD,…]", help="A class; repeat for each class.", show_default=False),
    ] = None,
    capture: Annotated[str, typer.Option(metavar="posthoc|inline", help="When attention is read.")] = "posthoc",
    refine: Annotated[bool, typer.Option(help="Spread the maps along self-attention.")] = True,
    snap: Annotated[bool, typer.Option(help="Move borders to where the colors change.")] = True,
    background_token: Annotated[
        bool, typer.Option("--background-token", help="Also train a token for what is no object.")
    ] = False,
    device: Device = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what `labeling.attention.calibration` chooses on annotated images, and what it is worth there."""

    def do() -> None:
        from diffugen_generator.commands.calibrate import calibrate as choose  # noqa: PLC0415
        from diffugen_generator.commands.calibrate import show_calibration  # noqa: PLC0415

        found = choose(
            model,
            images,
            masks,
            classes or (),
            open_display(quiet=False),
            capture=capture,
            refine=refine,
            snap=snap,
            background_token=background_token,
            device=device,
        )
        if as_json:
            print_json([found])
        else:
            show_calibration(open_console(), found, images, masks)

    report_errors(do, debug=debug, as_json=as_json)


add_to(app)


@worker.command("plan")
def worker_plan(order: OrderFile = None, store: StoreFolder = None) -> None:
    """Find the incomplete samples and write them as shards."""
    from diffugen_api.contract import Step  # noqa: PLC0415

    _work(Step.PLAN, order, store)


@worker.command("stage")
def worker_stage(
    stage: Annotated[str, typer.Option(help="The stage's name.", show_default=False)],
    order: OrderFile = None,
    store: StoreFolder = None,
) -> None:
    """Draw and label one shard; $JOB_COMPLETION_INDEX is its number."""
    from diffugen_api.contract import Step  # noqa: PLC0415

    _work(Step.STAGE, order, store, stage)


Shards = Annotated[
    int, typer.Option(help="Number of shards in which the dataset is published.", min=1, show_default=False)
]
SamplesPerShard = Annotated[
    int, typer.Option(help="Samples of a shard; the last one has all that follow.", min=1, show_default=False)
]


@worker.command("publish-shard")
def worker_publish_shard(
    shards: Shards, samples_per_shard: SamplesPerShard, order: OrderFile = None, store: StoreFolder = None
) -> None:
    """Write one shard of a large dataset; $JOB_COMPLETION_INDEX is its number. `publish` joins the shards."""
    from diffugen_api.contract import Step  # noqa: PLC0415

    _work(Step.PUBLISH_SHARD, order, store, division=(shards, samples_per_shard))


@worker.command("publish")
def worker_publish(
    shards: Annotated[
        int | None,
        typer.Option(
            help="Number of the shards that `publish-shard` has written, to join them; give --samples-per-shard too.",
            min=1,
            show_default=False,
        ),
    ] = None,
    samples_per_shard: Annotated[
        int | None, typer.Option(help="Samples of a shard, as `publish-shard` got it.", min=1, show_default=False)
    ] = None,
    order: OrderFile = None,
    store: StoreFolder = None,
) -> None:
    """Write the dataset in its formats and move the pointer current.json."""
    from diffugen_api.contract import Step  # noqa: PLC0415

    if (shards is None) != (samples_per_shard is None):
        raise typer.BadParameter("--shards and --samples-per-shard belong together: give both, or none.")
    division = (shards, samples_per_shard) if shards is not None and samples_per_shard is not None else None
    _work(Step.PUBLISH, order, store, division=division)


@worker.command("delete")
def worker_delete(order: OrderFile = None, store: StoreFolder = None) -> None:
    """Delete all objects of the dataset in the store."""
    from diffugen_api.contract import Step  # noqa: PLC0415

    _work(Step.DELETE, order, store)


def _work(
    step: Any, order: Path | None, store: Path | None, stage: str = "", division: tuple[int, int] | None = None
) -> None:
    from diffugen_generator.worker import work  # noqa: PLC0415

    raise typer.Exit(work(step, order_file=order, stage=stage, folder=store, division=division))


def _datasets(file: Path) -> list[LabeledDataset]:
    from diffugen_generator.commands.manifests import read_datasets  # noqa: PLC0415

    return read_datasets(file)


def _expansion(dataset: LabeledDataset) -> Expansion:
    """Return the expansion of a dataset; its prompts file, if any, is read now and checked."""
    from diffugen_api.plan import Expansion  # noqa: PLC0415

    if dataset.spec.prompts.file is None:
        return Expansion(dataset.spec)
    from diffugen_generator.planning.prompt_rows import expansion_of  # noqa: PLC0415 - few manifests have a file

    return expansion_of(dataset.spec)


def _warnings(file: Path, expansion: Expansion, *, strict: bool) -> list[str]:
    """Return the warnings of a dataset; with `strict` they are faults of the manifest."""
    from diffugen_generator.commands.manifests import refuse_warnings  # noqa: PLC0415
    from diffugen_generator.planning.warnings import warnings_of  # noqa: PLC0415

    warnings = warnings_of(expansion)
    if strict:
        refuse_warnings(file, warnings)
    return warnings


def _store(dataset: LabeledDataset, place: str | None, endpoint: str) -> Store:
    from diffugen_generator.commands.locations import store_at  # noqa: PLC0415
    from diffugen_generator.store.opening import open_bucket  # noqa: PLC0415

    if place is not None:
        return store_at(place, endpoint, dataset.name, dataset.namespace)
    return open_bucket(dataset.spec.output.s3, dataset.namespace, dataset.name)


def main() -> None:
    """Run `diffugen`: the console script. The process ends without Python's cleanup."""
    from diffugen_generator.exit_codes import leave_at_once  # noqa: PLC0415
    from diffugen_generator.garbage_collection import search_garbage_rarely  # noqa: PLC0415

    search_garbage_rarely()
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # the caller closed it, as `diffugen … >&-` does
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - open until the end
    try:
        app(prog_name="diffugen")
    except SystemExit as ended:
        leave_at_once(ended.code if isinstance(ended.code, int) else int(ended.code is not None))
