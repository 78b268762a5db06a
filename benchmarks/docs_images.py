"""Draws the image of the guide's page on stages anew: `make docs-images`.

`docs/graph.png` shows three images of examples/shapes-graph.yaml, with `labeling.attention.fragmentFraction: 0.2`, and
beside each the images that the other stages draw from it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any

from PIL import Image, ImageDraw
from rich.console import Console

from diffugen_api.orders import WorkOrder
from diffugen_api.plan import Expansion
from diffugen_generator.commands.display import PlainDisplay
from diffugen_generator.commands.manifests import order_of, read_datasets
from diffugen_generator.commands.run import run
from diffugen_generator.planning.summary import read_summary
from diffugen_generator.publishing.contact_sheet import with_labels, write
from diffugen_generator.publishing.labeled_samples import LabeledSample, labeled_samples, recipes_of
from diffugen_generator.publishing.palette import color_of
from diffugen_generator.samples import image_files
from diffugen_generator.store.folder import FolderStore

ROOT = Path(__file__).parents[1]
PROMPTS = ("a ball on snow", "a ball and a star on snow", "a triangle and a square on snow")
"""The prompts of the rows of docs/graph.png; of each, the first image is shown."""
COLUMNS = (
    ("base", "", "base"),
    ("elsewhere", "sand", "elsewhere: img2img"),
    ("elsewhere", "night", ""),
    ("recolor", "", "recolor: inpaint"),
)
"""Stage, a word of the prompt, and heading of the columns of docs/graph.png."""
SIDE, GAP, MARGIN, CAPTION = 256, 14, 24, 30
BACKGROUND, TEXT, FAINT = (18, 21, 28), (236, 239, 244), (139, 148, 163)


def main() -> None:
    """Run the example and write the image."""
    with tempfile.TemporaryDirectory(prefix="docs-images-") as scratch:
        order, store = published("shapes-graph", Path(scratch), {"fragment_fraction": 0.2})
        recipes = recipes_of(order.spec, read_summary(store, order.revision))
        samples = list(labeled_samples(Expansion(order.spec), recipes, store))
        graph(rows_of(samples), [each.name for each in order.spec.classes], store).save(
            ROOT / "docs" / "graph.png", optimize=True
        )


def published(example: str, folder: Path, attention: Mapping[str, Any]) -> tuple[WorkOrder, FolderStore]:
    """Run an example, with some settings of `labeling.attention` changed, into a folder."""
    (dataset,) = read_datasets(ROOT / "examples" / f"{example}.yaml")
    labeling = dataset.spec.labeling
    if labeling.attention is None:
        raise ValueError("the examples label by attention")
    changed = labeling.model_copy(update={"attention": labeling.attention.model_copy(update=attention)})
    spec = dataset.spec.model_copy(update={"labeling": changed})
    order, store = order_of(dataset.model_copy(update={"spec": spec})), FolderStore(folder / example)
    run(order, store, PlainDisplay(Console(stderr=True)), device="cpu", stop=Event())
    return order, store


def rows_of(samples: Sequence[LabeledSample]) -> list[list[LabeledSample]]:
    """Return the rows of the image: the first image of each prompt, and those that were drawn from it."""
    rows = []
    for prompt in PROMPTS:
        first = next(each for each in samples if each.stage == "base" and each.sample.prompt == prompt)
        row = [first]
        for stage, word, _ in COLUMNS[1:]:
            row.append(
                next(
                    each
                    for each in samples
                    if each.stage == stage
                    and each.sample.source is not None
                    and each.sample.source.id == first.sample.id
                    and word in each.sample.prompt
                )
            )
        rows.append(row)
    return rows


def graph(rows: Sequence[Sequence[LabeledSample]], classes: Sequence[str], store: FolderStore) -> Image.Image:
    """Return the rows as one image, each image with its labels and its prompt."""
    width = 2 * MARGIN + len(COLUMNS) * SIDE + (len(COLUMNS) - 1) * GAP
    top = MARGIN + 22
    sheet = Image.new("RGB", (width, top + len(rows) * (SIDE + CAPTION) + MARGIN), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for column, (_, _, heading) in enumerate(COLUMNS):
        write(draw, (MARGIN + column * (SIDE + GAP), 14), heading, TEXT, 19)
    for number, row in enumerate(rows):
        for column, each in enumerate(row):
            x, y = MARGIN + column * (SIDE + GAP), top + number * (SIDE + CAPTION)
            image = image_files.decode(store.read(each.image))
            labeled = with_labels(
                image, each.verdict.instances, lambda name: color_of(classes.index(name)), (SIDE, SIDE)
            )
            sheet.paste(labeled, (x, y))
            write(draw, (x, y + SIDE + 5), each.sample.prompt, FAINT, 15)
    return sheet


if __name__ == "__main__":
    main()
