"""`croissant.json`: the dataset described in Croissant 1.0 (MLCommons), for dataset search and for `mlcroissant`.

The record set `samples` is read from the manifest, a row for each sample. The index files are file objects with their
SHA-256.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from diffugen_api.orders import WorkOrder
from diffugen_generator.publishing.manifest import PATH as MANIFEST
from diffugen_generator.publishing.models import Models
from diffugen_generator.publishing.published import PublishedFile
from diffugen_generator.publishing.release import Release
from diffugen_generator.publishing.tally import Tally

PATH: Final = "croissant.json"

_CONTEXT: Final[Mapping[str, Any]] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The context of the specification, section "Appendix 1: JSON-LD context" (docs.mlcommons.org/croissant)."""

_TYPES: Final = {
    ".json": "application/json",
    ".gz": "application/jsonlines",
    ".md": "text/markdown",
    ".parquet": "application/x-parquet",
    ".png": "image/png",
    ".tar": "application/x-tar",
    ".txt": "text/plain",
    ".yaml": "application/yaml",
}
_MOST_FILES: Final = 1_000
"""The most index files that are described one by one; `dataset.json` lists all."""

_FIELDS: Final = {
    "id": ("sc:Text", "The sample's id: a hash over all that decides the image."),
    "stage": ("sc:Text", "The stage that drew the image."),
    "split": ("sc:Text", "train, val or test."),
    "image": ("sc:Text", "The key of the image in the store, relative to the dataset's root."),
    "imageSha256": ("sc:Text", "SHA-256 of the image file, in hex."),
    "width": ("sc:Integer", "Width of the image in pixels."),
    "height": ("sc:Integer", "Height of the image in pixels."),
    "prompt": ("sc:Text", "The text that the image was drawn from."),
    "seed": ("sc:Integer", "The seed of the image's noise."),
    "accepted": ("sc:Boolean", "Whether the sample is in the dataset; the formats leave rejected ones out."),
    "reason": ("sc:Text", "Why the sample was rejected; empty for accepted ones."),
}


def croissant(
    order: WorkOrder, release: Release, tally: Tally, models: Models, *, drawn: bool = True
) -> dict[str, Any]:
    """Return the JSON-LD of a dataset whose other files are all written; `drawn` is false for the user's own images."""
    counts = tally.row()
    classes = ", ".join(release.class_ids)
    kind = "Synthetic images" if drawn else "Images"
    licenses = models.known_licenses()
    return {
        "@context": dict(_CONTEXT),
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": order.name,
        "description": (
            f"{kind} with {counts['instances']:,} labeled objects of {len(release.class_ids)} classes ({classes}): "
            f"{counts['samples']:,} accepted and {counts['rejected']:,} rejected samples. Made by DiffuGen, revision "
            f"{order.revision}."
        ),
        "url": release.folder,  # relative: the same dataset has the same bytes in every store
        "version": "1.0.0",
        "keywords": ["synthetic" if drawn else "labeled", "object detection", "instance segmentation"],
        **({"license": licenses} if licenses and drawn else {}),
        "rai:dataCollection": (
            "A diffusion model drew the images from text; models gave the labels."
            if drawn
            else "Models gave the labels."
        ),
        "rai:dataLimitations": "Labels are not checked by people; images have the biases of the models that drew them.",
        "distribution": [_file_object(file) for file in _index_files(release)],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "samples",
                "name": "samples",
                "description": "A row for each sample of the manifest, accepted or rejected.",
                "key": {"@id": "samples/id"},
                "field": [
                    {
                        "@type": "cr:Field",
                        "@id": f"samples/{name}",
                        "name": name,
                        "description": description,
                        "dataType": data_type,
                        "source": {"fileObject": {"@id": MANIFEST}, "extract": {"column": name}},
                    }
                    for name, (data_type, description) in _FIELDS.items()
                ],
            }
        ],
    }


def _index_files(release: Release) -> list[PublishedFile]:
    index = list(release.files.index.values())
    manifest = next(file for file in index if file.path == MANIFEST)
    return [manifest, *(file for file in index[:_MOST_FILES] if file is not manifest)]


def _file_object(file: PublishedFile) -> dict[str, Any]:
    suffix = "." + file.path.rpartition(".")[2]
    return {
        "@type": "cr:FileObject",
        "@id": file.path,
        "name": file.path,
        "contentUrl": file.path,
        "contentSize": f"{file.size} B",
        "encodingFormat": _TYPES.get(suffix, "application/octet-stream"),
        "sha256": file.sha256,
    }
