"""Log lines as text and as JSON."""

from __future__ import annotations

import json
import logging

from diffugen_operator.telemetry.logs import JsonFormatter, TextFormatter


def a_record(**extra: object) -> logging.LogRecord:
    record = logging.LogRecord("diffugen_operator.x", logging.INFO, __file__, 1, "%s is done", ("it",), None)
    record.__dict__.update(extra)
    return record


def test_json_has_dataset_and_revision() -> None:
    said = json.loads(JsonFormatter().format(a_record(dataset="vision/shapes", revision="3f9a")))

    assert (said["level"], said["message"]) == ("info", "it is done")
    assert (said["dataset"], said["revision"]) == ("vision/shapes", "3f9a")


def test_text_has_the_dataset_in_front() -> None:
    formatter = TextFormatter("[%(name)s] %(message)s")

    assert formatter.format(a_record(dataset="vision/shapes")) == "[diffugen_operator.x] vision/shapes: it is done"
    assert formatter.format(a_record()) == "[diffugen_operator.x] it is done"
