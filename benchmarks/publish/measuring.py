"""One publication, in a process of its own: `python -m benchmarks.publish.measuring KIND SAMPLES FOLDER`.

KIND is `simulated` (coco, yolo and webdataset, from samples that are made when they are read) or `coco` (coco alone,
from a folder that `records.write_store` filled). Prints seconds of the clock and of the processor, and the peak of
resident memory.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.publish import records

from diffugen_api.orders import WorkOrder
from diffugen_generator.planning.plan import plan
from diffugen_generator.publishing.publish import publish
from diffugen_generator.store.folder import FolderStore

FORMATS = ("coco", "yolo", "webdataset")


def order_for(kind: str, samples: int) -> WorkOrder:
    if kind == "simulated":
        return records.order_of(samples, *FORMATS)
    return records.order_of(samples, "coco", masks="rle")


def warm_up(kind: str) -> None:
    """Publish a few samples elsewhere, so that the time of importing libraries is not measured; the peer's is not."""
    with tempfile.TemporaryDirectory() as folder:
        order = order_for(kind, 8)
        store = records.write_store(order, Path(folder))
        plan(order, store)
        publish(order, store)


def main() -> None:
    kind, samples, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    order = order_for(kind, samples)
    store = records.SimulatedStore(folder) if kind == "simulated" else FolderStore(folder)
    records.prepare()
    warm_up(kind)
    began = time.monotonic()
    spent = time.process_time()
    outcome = publish(order, store)
    seconds, cpu = time.monotonic() - began, time.process_time() - spent
    assert outcome.published
    assert outcome.published.samples == samples, outcome
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(
        json.dumps(
            {
                "samples": samples,
                "peak_rss_mb": round(peak, 1),
                "seconds": round(seconds, 2),
                "cpu_seconds": round(cpu, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
