"""Datumaro's own COCO export of the records in a file: `peer.py RECORDS FOLDER`, in an environment with datumaro.

Prints the seconds of the export alone, and those of reading the records and building the dataset before it.
"""

import json
import sys
import time
from pathlib import Path

from datumaro.components.annotation import AnnotationType, LabelCategories, RleMask
from datumaro.components.dataset import Dataset
from datumaro.components.dataset_base import DatasetItem
from datumaro.components.media import Image


def main() -> None:
    began, spent = time.monotonic(), time.process_time()
    names: dict[str, int] = {}
    items = []
    with Path(sys.argv[1]).open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            objects = []
            for number, each in enumerate(record["objects"]):
                label = names.setdefault(each["class"], len(names))
                rle = {"size": each["segmentation"]["size"], "counts": each["segmentation"]["counts"].encode()}
                objects.append(RleMask(rle, label=label, id=number, group=number + 1))
            media = Image.from_file(path=record["path"], size=tuple(record["size"]))
            items.append(DatasetItem(id=record["id"], subset="train", media=media, annotations=objects))
    categories = {AnnotationType.label: LabelCategories.from_iterable(names)}
    dataset = Dataset.from_iterable(items, categories=categories)
    reading, reading_cpu = time.monotonic() - began, time.process_time() - spent
    began, spent = time.monotonic(), time.process_time()
    dataset.export(sys.argv[2], "coco_instances", save_media=True)
    seconds, cpu = time.monotonic() - began, time.process_time() - spent
    found = {
        "samples": len(items),
        "seconds": seconds,
        "cpu_seconds": cpu,
        "reading_seconds": reading,
        "reading_cpu_seconds": reading_cpu,
    }
    sys.stdout.write(json.dumps({name: round(value, 2) for name, value in found.items()}))


if __name__ == "__main__":
    main()
