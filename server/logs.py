"""The server's log on standard error: one line a request, as text or as JSON.

Never a prompt, never an image, never a path.
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
    "place",
)
"""All that a line may hold beside its time, level and message."""


class _Lines(logging.Formatter):
    """`json` objects, or `name=value` for a person."""

    def __init__(self, *, json: bool) -> None:
        super().__init__()
        self._json = json

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        found = {name: value for name in FIELDS if (value := getattr(record, name, "")) != ""}
        if self._json:
            line = {
                "time": time,
                "level": record.levelname.lower(),
                "message": _plain(record.getMessage()),
            }
            line |= {
                name: _plain(value) if isinstance(value, str) else value
                for name, value in found.items()
            }
            return msgspec.json.encode(line).decode("utf-8")
        shown = " ".join(f"{name}={value}" for name, value in found.items() if name != "event")
        return _plain(f"{time} {record.levelname.lower()} {record.getMessage()} {shown}".rstrip())


def _plain(text: str) -> str:
    """No line end, no escape sequence and no lone surrogate: each such character as Python would write it."""
    return (
        text
        if text.isprintable()
        else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    )


def configure_logs(*, json: bool) -> None:
    """Write the lines of the server, and other libraries' warnings, to standard error from now on, all in one form.

    python-multipart's are left out: they say what bodies of clients look like, which is answered to
    the client.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(json=json))
    for name, level in (("imprompt.server", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    logging.getLogger().handlers = [handler]
    logging.captureWarnings(True)
