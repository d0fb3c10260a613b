"""A real server process: how it starts, how it ends, and what half a request does to it."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.processes import ROOT, ask, served


@pytest.fixture
def server(index: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int, Path]]:
    """A process of the command line, ready, with its port and the file that it logs to."""
    with served(index, tmp_path / "log", "--json") as (process, port):
        yield process, port, tmp_path / "log"


def test_a_server_lives_through_half_requests_and_ends_when_told(
    server: tuple[subprocess.Popen[bytes], int, Path], tmp_path: Path
) -> None:
    """Partial requests, lost clients and garbage leave it answering.

    SIGTERM drains: an open request is answered, the process ends with 0 and leaves no file. Every
    line of its log is JSON.
    """
    process, port, log = server
    halves = []
    for sent in (
        b"POST /v1/search HT",
        b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nzzz",
        b"GET /v1/info HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    ):
        half = socket.create_connection(("127.0.0.1", port), timeout=10)
        half.sendall(sent)
        halves.append(half)
    assert ask(port, "/v1/search", {"text": "noodle soup"})[0] == 200
    for half in halves:
        half.close()
    gone = socket.create_connection(("127.0.0.1", port), timeout=10)
    body = json.dumps({"texts": ["a fox"] * 200}).encode()
    gone.sendall(
        b"POST /v1/embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    )
    gone.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    gone.close()
    assert ask(port, "/v1/search", {"text": "noodle soup"})[0] == 200

    taken = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    taken.request("POST", "/v1/embed", body, {"Content-Type": "application/json"})
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    response = taken.getresponse()
    assert response.status == 200
    assert len(json.loads(response.read())["vectors"]) == 200
    taken.close()
    assert process.wait(30) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log"]
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    assert {"version", "request"} <= {line.get("event") for line in lines}
    assert "fox" not in log.read_text("utf-8")


def test_a_port_that_is_taken_is_one_clear_line(index: Path) -> None:
    """With the exit code of a setting that cannot be used."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        words = [
            sys.executable,
            "cli.py",
            "serve",
            "--index",
            str(index),
            "--port",
            str(holder.getsockname()[1]),
        ]
        done = subprocess.run(
            words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
        )
    assert done.returncode == 10
    assert "cannot be opened for serving" in done.stderr
    assert "Traceback" not in done.stderr
