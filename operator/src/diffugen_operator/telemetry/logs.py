"""Logging to standard error: text lines or JSON objects."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

logger = logging.getLogger(__name__)

# An error that ends kopf is logged in one sentence where kopf is started again.
_QUIET = {"kopf": logging.CRITICAL, "aiohttp.access": logging.WARNING, "asyncio": logging.WARNING}


_concerned: ContextVar[Mapping[str, object]] = ContextVar("_concerned", default={})  # noqa: B039  (never changed)


@contextmanager
def concerning(dataset: str, revision: str = "") -> Iterator[None]:
    """Add this dataset (namespace/name) and its revision to every line logged within the block."""
    token = _concerned.set({"dataset": dataset, "revision": revision})
    try:
        yield
    finally:
        _concerned.reset(token)


def concern(revision: str) -> None:
    """Set the revision for the rest of the block, once it is known."""
    _concerned.set({**_concerned.get(), "revision": revision})


def _field(record: logging.LogRecord, name: str) -> object:
    found: object = getattr(record, name, None)
    return _concerned.get().get(name) if found is None else found


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, and dataset and revision if known."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        data: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in ("dataset", "revision", "attempt"):
            if (value := _field(record, name)) is not None:
                data[name] = value
        if record.exc_info:
            data["exception"] = self.formatException(record.exc_info)
        return json.dumps(data, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """A text line, with the dataset before the message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line."""
        dataset = _field(record, "dataset")
        line = super().format(record)
        return line.replace("] ", f"] {dataset}: ", 1) if dataset else line


def configure(*, log_format: str, level: str) -> None:
    """Set up logging for the process."""
    handler = logging.StreamHandler()
    text = TextFormatter("%(asctime)s %(levelname)-7s [%(name)s] %(message)s")
    handler.setFormatter(JsonFormatter() if log_format == "json" else text)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(least, root.level))


def log_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error that the event loop caught: the exception handler of the operator's loop.

    If the API server closes a connection while uvloop still writes to it, uvloop reports a RuntimeError beside the
    error that the request gets (https://github.com/MagicStack/uvloop/issues/506). That is one line without a
    traceback, as lost connections are expected. All else goes to the loop's own handler.
    """
    error = context.get("exception")
    if isinstance(error, RuntimeError) and str(error).endswith("the handler is closed"):
        logger.info("A connection was closed while data was written to it: %s", error)
    else:
        loop.default_exception_handler(context)
