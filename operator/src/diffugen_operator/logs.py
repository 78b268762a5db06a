"""How the operator logs: a line for people, or a JSON object for machines, on standard error."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

_QUIET = {"kopf": logging.WARNING, "aiohttp.access": logging.WARNING, "asyncio": logging.WARNING}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and dataset and revision where they are known."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        data = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in ("dataset", "revision", "attempt"):
            if (value := getattr(record, name, None)) is not None:
                data[name] = value
        if record.exc_info:
            data["exception"] = self.formatException(record.exc_info)
        return json.dumps(data, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """A line for people, with the dataset in front of the message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line."""
        dataset = getattr(record, "dataset", None)
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
