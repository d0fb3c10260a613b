"""Servers as they are run: processes of the command line on loopback."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def ask(port: int, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
    """Status and JSON of one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request(
            "POST" if body else "GET", path, json.dumps(body) if body else None, headers
        )
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def until_ready(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if ask(port, "/readyz")[0] == 200:
                return
        except OSError:
            pass
        assert server.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def started(
    index: Path, log: Path, *options: str, python: Path = Path(sys.executable)
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Yield a starting process and its port; it logs to `log`, whose folder is its TMPDIR."""
    port = free_port()
    words = [
        str(python),
        "cli.py",
        "serve",
        "--index",
        str(index),
        "--port",
        str(port),
        "--quiet",
        *options,
    ]
    with log.open("wb") as file:
        environment = {**os.environ, "TMPDIR": str(log.parent)}
        process = subprocess.Popen(
            words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=file, env=environment
        )
    try:
        yield process, port
    finally:
        process.kill()
        process.wait()


@contextmanager
def served(index: Path, log: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A process that is ready, and its port; as `started`."""
    with started(index, log, *options) as (process, port):
        until_ready(port, process)
        yield process, port
