"""The server's log on standard error: one line per request, as text or as JSON.

It never contains a prompt, an image or a path of a request.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import msgspec

FIELDS = (
    "event",
    "request_id",
    "method",
    "route",
    "status",
    "ms",
    "kind",
    "version",
    "member",
    "queue",
    "error",
    "location",
)
"""All that a line may contain besides its time, level and message."""


class _LineFormatter(logging.Formatter):
    """Formats records as JSON objects, or as `name=value` for people."""

    def __init__(self, *, json: bool) -> None:
        super().__init__()
        self._json = json

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        level = record.levelname.lower()
        fields = {name: value for name in FIELDS if (value := getattr(record, name, "")) != ""}
        if not self._json:
            pairs = " ".join(f"{name}={value}" for name, value in fields.items() if name != "event")
            return _printable(f"{time} {level} {record.getMessage()} {pairs}".rstrip())
        line = {"time": time, "level": level, "message": _printable(record.getMessage())}
        for name, value in fields.items():
            line[name] = _printable(value) if isinstance(value, str) else value
        return msgspec.json.encode(line).decode("utf-8")


def _printable(text: str) -> str:
    """Return the text with line ends, escape sequences and lone surrogates escaped as in Python."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def configure_logs(*, json: bool) -> None:
    """Send the server's log and the warnings of other libraries to standard error, in one format.

    python-multipart is silenced: its warnings quote the bodies of clients, who get them as the
    response anyway.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LineFormatter(json=json))
    for name, level in (("imprompt.server", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    logging.getLogger().handlers = [handler]
    logging.captureWarnings(True)
