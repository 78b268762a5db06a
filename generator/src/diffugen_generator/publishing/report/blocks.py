"""A block of the report: `SAMPLES` consecutive samples with their labels, attention maps and thumbnails.

A block is three files: the thumbnails in one JPEG (module `thumbnails`), the labels, and the maps. The page loads the
blocks of the samples that it shows.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffugen_generator.publishing.labeled_samples import LabeledSample
from diffugen_generator.publishing.report.previews import Preview

SAMPLES = 64

_INDEXED = frozenset({"drawing", "prompt", "stage", "split", "accepted"})
"""Fields of a sample's row that the index has."""


def row_of(sample: LabeledSample, row: Mapping[str, Any], with_thumbnail: bool) -> dict[str, Any]:
    """Return everything about a sample that the page shows, except what its index has already.

    Args:
        sample: the sample.
        row: its `row`.
        with_thumbnail: whether the block has its thumbnail.
    """
    accepted = set(map(id, sample.verdict.instances))
    left_out = [each for each in sample.label.instances if id(each) not in accepted]
    return {
        **{name: value for name, value in row.items() if name not in _INDEXED},
        **({"leftOut": [_short(each.row()) for each in left_out]} if left_out else {}),
        **{name: [_short(each) for each in row[name]] for name in ("instances", "marked", "ignore") if name in row},
        "seed": str(sample.sample.seed),  # JavaScript's numbers are exact up to 2**53 only
        "file": sample.file_name,
        "thumbnail": with_thumbnail,
    }


def _short(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with only the counts of its mask, in COCO's RLE: the mask's size is that of the image."""
    return {**row, "segmentation": row["segmentation"]["counts"]}


def maps_of(previews: Sequence[Preview]) -> dict[str, Any] | None:
    """Return the attention maps as JSON data; None where no sample has any.

    `data` is base64 of the maps of all samples, one after the other, compressed by zlib.
    """
    if all(preview.maps is None for preview in previews):
        return None
    heads: list[dict[str, Any] | None] = []
    parts: list[bytes] = []
    for preview in previews:
        found = preview.maps
        if found is None:
            heads.append(None)
            continue
        heads.append(
            {
                "classes": list(found.classes),
                "background": list(found.background),
                "size": [int(side) for side in found.maps.shape[1:]],
                **({"presence": [round(share, 6) for share in found.presence]} if found.presence else {}),
            }
        )
        parts.append(np.ascontiguousarray(found.maps).tobytes())
    data = base64.b64encode(zlib.compress(b"".join(parts), 6)).decode()
    return {"samples": heads, "data": data}
