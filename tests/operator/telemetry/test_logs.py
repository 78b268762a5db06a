"""Log lines as text and as JSON."""

from __future__ import annotations

import asyncio
import json
import logging
import socket

import pytest
import uvloop

from diffugen_operator.telemetry.logs import JsonFormatter, TextFormatter, log_loop_error


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


async def reported_by_the_loop() -> None:
    """Report to the loop what uvloop reports of a closed connection, then another error of the same type."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(log_loop_error)
    here, there = socket.socketpair()
    with there:
        transport, protocol = await loop.create_connection(asyncio.Protocol, sock=here)
        transport.abort()
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError) as closed:
            transport.write(b"late")
        for error in (closed.value, RuntimeError("another error")):
            loop.call_exception_handler(
                {"message": "Fatal error on SSL protocol", "exception": error, "transport": None, "protocol": protocol}
            )


def test_a_connection_that_closes_during_a_write_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(reported_by_the_loop())

    closed, other = (record for record in caplog.records if record.name != "asyncio" or record.exc_info)
    assert closed.getMessage().startswith("A connection was closed while data was written to it: ")
    assert closed.exc_info is None
    assert other.exc_info is not None, "any other error keeps its traceback"
    assert str(other.exc_info[1]) == "another error"
