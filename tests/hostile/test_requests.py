"""Each hostile request to a running server: its 4xx, a clean log, and the next one answered."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.hostile.requests import REQUESTS, TOKEN, WITH_TOKEN, Entry, asked
from tests.hostile.requests import raw as raw_request
from tests.server.conftest import build as build
from tests.server.conftest import index as index
from tests.server.conftest import lite as lite
from tests.server.processes import ask, served

pytestmark = pytest.mark.slow

Running = tuple[subprocess.Popen[bytes], int, Path]
SECONDS = 2.0


@pytest.fixture(scope="module")
def server(index: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    log = tmp_path_factory.mktemp("server") / "log"
    with served(index, log, "--json") as (process, port):
        yield process, port, log


@pytest.fixture(scope="module")
def locked(index: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    log = tmp_path_factory.mktemp("locked") / "log"
    with served(index, log, "--token", TOKEN) as (process, port):
        yield process, port, log


def sent(port: int, raw: bytes) -> tuple[int, bytes, bytes]:
    """Return (status, head, body); status 0 if the connection was closed without an answer."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
        with suppress(OSError):  # it may answer before it has all, and close
            line.sendall(raw)
            if b"Connection: close" not in raw[:2000]:
                line.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            while chunk := line.recv(1 << 16):
                got += chunk
    head, _, body = got.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/") else 0, head, body


def check(running: Running, entry: Entry) -> None:
    process, port, _ = running
    raw, _, statuses = entry
    begun = time.monotonic()
    before = psutil.Process(process.pid).memory_info().rss
    status, head, body = sent(port, raw)
    assert status in statuses, (status, body[:300])
    assert time.monotonic() - begun < SECONDS + len(raw) / 20e6
    assert psutil.Process(process.pid).memory_info().rss - before < 256 << 20
    if status >= 400 and b"application/problem+json" in head:
        assert json.loads(body)["status"] == status
    assert b"Traceback" not in body
    assert b"access-control" not in head.lower()
    assert ask(port, "/healthz")[0] == 200


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_refused_or_answered(name: str, server: Running) -> None:
    """In time, in bounds, without a fault."""
    check(server, REQUESTS[name])


@pytest.mark.parametrize("name", WITH_TOKEN)
def test_a_request_with_the_token_is_refused_or_answered(name: str, locked: Running) -> None:
    """The same, where a browser keeps the password."""
    check(locked, WITH_TOKEN[name])


def test_refusals_of_the_application_are_problems(server: Running) -> None:
    """Requests that pass HTTP and are refused are answered with problem+json."""
    for name, (raw, _, statuses) in REQUESTS.items():
        if set(statuses) <= {403, 413, 415, 421, 422, 400} and name not in ("length-short",):
            status, head, body = sent(server[1], raw)
            assert b"application/problem+json" in head, (name, status, head)
            assert json.loads(body)["kind"], name


def test_slow_bodies_hold_nobody_up(server: Running) -> None:
    """Forty bodies that do not come, and a text is answered beside them."""
    lines = [socket.create_connection(("127.0.0.1", server[1]), timeout=30) for _ in range(40)]
    for line in lines:
        line.sendall(raw_request(b'{"text"', length=1000))
    begun = time.monotonic()
    assert ask(server[1], "/v1/search", {"text": "a fox"})[0] == 200
    assert time.monotonic() - begun < 1
    for line in lines:
        line.close()


def test_many_at_once_end_in_answers_or_refusals(server: Running) -> None:
    """Bodies of 15 MB, forty at a time: 413 or 503, and the server lives."""
    wide = REQUESTS["wide"][0]
    with ThreadPoolExecutor(40) as pool:
        statuses = {status for status, _, _ in pool.map(lambda _: sent(server[1], wide), range(40))}
    assert statuses <= {413, 503, 0}
    assert sent(server[1], asked({"text": "a fox"}))[0] == 200


def test_the_log_is_clean(server: Running, locked: Running) -> None:
    """Each line of the log is JSON or plain text, without an escape sequence."""
    for name in (
        "form-broken",
        "form-odd-boundary",
        "escape-path",
        "binary",
        "request-id",
        "surrogate",
        "large-head",
    ):
        for running in (server, locked):
            sent(running[1], REQUESTS[name][0])
    for running in (server, locked):
        raw = running[2].read_bytes()
        assert b"\x1b" not in raw
        assert b"\x07" not in raw
        text = raw.decode("utf-8")
        assert all(line.isprintable() for line in text.split("\n"))
        assert "Traceback" not in text
        assert '"event":"fault"' not in text
        assert "unexpected error" not in text
        assert "boundary" not in text
    for line in server[2].read_text("utf-8").splitlines():
        assert {"time", "level", "message"} <= json.loads(line).keys()
