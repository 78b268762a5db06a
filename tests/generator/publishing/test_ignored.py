"""Published regions to ignore: in the manifest, and in COCO in the form that evaluators and trainers use."""

import json
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from diffugen_api import layout
from diffugen_generator.publishing.publish import publish
from diffugen_generator.samples import labels
from diffugen_generator.samples.labels import Label, Region, Rle
from tests.generator.made import a_finished_store, a_model, an_instance, an_order, manifest_lines, planned_shards


def test_ignored_regions_are_in_the_manifest_and_are_crowds_in_coco(tmp_path: Path) -> None:
    order = an_order(
        a_model(tmp_path / "model"),
        labeling={"attention": {"ignoreBand": 0.2}},
        output={"splits": {"train": 1, "val": 0, "test": 0}},
    )
    store = a_finished_store(order, tmp_path / "store")
    mask, band = np.zeros((2, 64, 64), np.bool_)
    mask[10:30, 10:30], band[10:30, 30:40] = True, True
    for header, rows in planned_shards(order, store):
        for row in rows:
            ignored = (Region("star", Rle.of(band)),)
            label = labels.dumps_label(Label(row.sample.id, (an_instance("star", mask),), ignored=ignored))
            store.write(layout.label("base", header.label_id, row.sample.id), label)

    publish(order, store)

    lines = manifest_lines(store, order.revision)
    assert all(np.array_equal(Region.from_row(line["ignore"][0]).segmentation.mask(), band) for line in lines)
    file = store.root / "revisions" / order.revision / "coco" / "annotations" / "instances_train.json"
    coco = COCO(str(file))
    crowds = coco.loadAnns(coco.getAnnIds(iscrowd=True))
    assert len(crowds) == len(lines) == len(coco.getAnnIds(iscrowd=False))
    assert all(np.array_equal(coco.annToMask(each), band) for each in crowds)
    assert {each["area"] for each in crowds} == {200}

    # A detector's score does not fall if it also finds an object in the ignored band.
    found = [
        {key: each[key] for key in ("image_id", "category_id")}
        | {"score": 0.9 if each["iscrowd"] else 0.8, "segmentation": coco.annToRLE(each)}
        for each in json.loads(file.read_text())["annotations"]
    ]
    evaluation = COCOeval(coco, coco.loadRes(found), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] > 0.99
