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
from diffugen_generator.garbage_collection import search_garbage_rarely
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


def used() -> tuple[float, float]:
    """Return the processor's seconds of all processes so far, and the peak memory of the largest one in MB."""
    found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in found), max(each.ru_maxrss for each in found) / 1024


def main() -> None:
    kind, samples, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    order = order_for(kind, samples)
    store = records.SimulatedStore(folder) if kind == "simulated" else FolderStore(folder)
    search_garbage_rarely()  # as the command does
    records.prepare()
    warm_up(kind)
    began = time.monotonic()
    spent = used()[0]
    outcome = publish(order, store)
    seconds, (cpu, peak) = time.monotonic() - began, used()
    assert outcome.published
    assert outcome.published.samples == samples, outcome
    sys.stdout.write(
        json.dumps(
            {
                "samples": samples,
                "peak_rss_mb": round(peak, 1),
                "seconds": round(seconds, 2),
                "cpu_seconds": round(cpu - spent, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
