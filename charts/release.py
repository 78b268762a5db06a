"""Write a release's version and image registry into the chart, before `helm package`.

`python charts/release.py --version 1.2.3 --images ghcr.io/OWNER [--chart DIR]` changes Chart.yaml and values.yaml: the
chart's version and appVersion, the images of Artifact Hub's annotation, and the repositories of the values.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

CHART = Path(__file__).parent / "diffugen-operator"
_IMAGES = r"(operator|generator-light|generator)"


def release(chart: Path, *, version: str, images: str) -> None:
    """Change the chart in `chart`; `images` is what the images' names begin with, as ghcr.io/OWNER."""
    registry, _, owner = images.rstrip("/").partition("/")
    meta, values = chart / "Chart.yaml", chart / "values.yaml"
    new_meta = _replaced(
        meta.read_text(),
        (r"(?m)^(version|appVersion): .*$", rf"\1: {version}", 2),
        (rf"(?m)image: \S+/{_IMAGES}:\S+$", rf"image: {registry}/{owner}/\1:{version}", 3),
    )
    new_values = _replaced(
        values.read_text(),
        (r"(?m)^  registry: .*$", f"  registry: {registry}", 1),
        (rf"repository: diffugen/{_IMAGES}\b", rf"repository: {owner}/\1", 3),
    )
    meta.write_text(new_meta)
    values.write_text(new_values)


def _replaced(text: str, *changes: tuple[str, str, int]) -> str:
    for pattern, replacement, times in changes:
        text, count = re.subn(pattern, replacement, text)
        if count != times:
            raise SystemExit(
                f"charts/release.py: {pattern!r} was found {count} times, not {times}: adapt it to the chart"
            )
    return text


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--version", required=True)
    parser.add_argument("--images", required=True, help="what the images' names begin with, as ghcr.io/OWNER")
    parser.add_argument("--chart", type=Path, default=CHART)
    arguments = parser.parse_args()
    release(arguments.chart, version=arguments.version, images=arguments.images)


if __name__ == "__main__":
    main()
