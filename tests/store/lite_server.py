"""Milvus Lite as a server of its own, as a cluster would be one.

Reached over the network by several processes.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from imprompt.core.errors import ImpromptError
from imprompt.core.settings import MilvusPlace
from imprompt.store.milvus.connection import Connection

_START_S = 240


@dataclass(frozen=True, slots=True)
class LiteServer:
    """A running server; `kill` ends it at once."""

    place: MilvusPlace
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextmanager
def lite_server(folder: Path) -> Iterator[LiteServer]:
    """A server over a folder, until the block ends."""
    port = free_port()
    words = [
        "-m",
        "milvus_lite",
        "server",
        "--data-dir",
        str(folder),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    server = LiteServer(MilvusPlace(f"http://127.0.0.1:{port}"), process)
    try:
        _wait(server, port)
        yield server
    finally:
        server.kill()


def _wait(server: LiteServer, port: int) -> None:
    """Wait until it answers.

    gRPC waits longer after each refusal, up to two minutes, so it connects once somebody listens.
    """
    until = time.monotonic() + _START_S
    while time.monotonic() < until and server.process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            time.sleep(0.2)
    while True:
        try:
            Connection(server.place).close()
            return
        except ImpromptError:
            if time.monotonic() > until or server.process.poll() is not None:
                raise
            time.sleep(0.2)
