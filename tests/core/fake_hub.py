"""A hub on the loopback interface: repositories, real headers, and failures on demand."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace, TracebackType
from urllib.parse import unquote

import pytest

COMMIT = "c0ffee" * 6 + "c0ff"


@dataclass
class FakeHub:
    """Serves `files`, by "OWNER/NAME/FILE" ("datasets/OWNER/NAME/FILE"); a context manager.

    `large` files have a sha256 as the hub's LFS files do, the others the digest of a git blob.
    `cut` breaks the next connections off after so many bytes of content, `stall` sends so many and
    falls silent, `status` answers with a status and an error code, `hang_s` is silent for so long
    before the content (`hang_head`: before the headers, too), `lie` states another digest.
    `passing` refuses the next requests with a status and headers, `refuse_content` the next
    contents,
    `headers` go with each refusal. `after_head` is called once, after the next headers. `seen`
    lists (method, path, range) of every request, `waits` the seconds before repeated ones.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)
    cut: list[int] = field(default_factory=list)
    status: dict[str, tuple[int, str]] = field(default_factory=dict)
    hang_s: float = 0.0
    hang_head: bool = False
    stall: int = 0
    lie: bool = False
    ranges: bool = True
    passing: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    refuse_content: list[int] = field(default_factory=list)
    after_head: Callable[[], None] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    commit: str = COMMIT
    older: dict[str, dict[str, bytes]] = field(default_factory=dict)
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stalled, self.released = threading.Event(), threading.Event()

    def __enter__(self) -> FakeHub:
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = _Quiet(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def push(self, changed: dict[str, bytes]) -> None:
        """Commit changed files: `main` moves, and the older commit is still served by its name."""
        self.older[self.commit] = dict(self.files)
        self.files |= changed
        self.commit = hashlib.sha1(self.commit.encode(), usedforsecurity=False).hexdigest()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def asked(self) -> list[str]:
        """METHOD FILE of every request."""
        return [f"{method} {path.rpartition('/')[2]}" for method, path, _ in self.seen]

    def digest(self, name: str, content: bytes | None = None) -> str:
        content = self.files[name] if content is None else content
        if self.lie:
            content = content + b"!"
        if name in self.large:
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(
            b"blob %d\0" % len(content) + content, usedforsecurity=False
        ).hexdigest()


@contextmanager
def serve_as_the_hub(patch: pytest.MonkeyPatch, folder: Path) -> Iterator[FakeHub]:
    """Run a hub that the hub's library takes for the real one; retries do not wait.

    The hub's cache and imprompt's are empty ones below `folder`.
    """
    from huggingface_hub import constants, file_download

    patch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    patch.setenv("NO_PROXY", "127.0.0.1")
    with FakeHub() as hub:
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "ENDPOINT", hub.address)
        patch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            hub.address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        patch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
        patch.setattr(file_download, "time", SimpleNamespace(sleep=lambda seconds: None))
        patch.setattr("imprompt.core.retries.time", SimpleNamespace(sleep=hub.waits.append))
        yield hub


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what some tests want."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def do_HEAD(self) -> None:
        self._answer(content=False)

    def do_GET(self) -> None:
        self._answer(content=True)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def _answer(self, *, content: bool) -> None:
        hub = self.hub
        hub.seen.append((self.command, self.path, self.headers.get("Range", "")))
        if hub.passing:
            status, headers = hub.passing.pop(0)
            self._headers(status, {"Content-Length": "0", **headers})
            return
        path = unquote(self.path).lstrip("/")
        revision = "".join(re.findall(r"/resolve/([^/]+)/", path))
        name = path.replace(f"/resolve/{revision}", "", 1)
        files = hub.older.get(revision, hub.files)
        commit = revision if revision in hub.older else hub.commit
        if hub.hang_s and (content or hub.hang_head):
            time.sleep(hub.hang_s)
        status, code = hub.status.get(name, (200, "") if name in files else (404, "EntryNotFound"))
        if status != 200:
            self._headers(
                status,
                {
                    "X-Error-Code": code,
                    "X-Repo-Commit": commit,
                    "Content-Length": "0",
                    **hub.headers,
                },
            )
            return
        if content and hub.refuse_content:
            self._headers(hub.refuse_content.pop(0), {"Content-Length": "0"})
            return
        body = files[name]
        start = (
            int(self.headers["Range"].removeprefix("bytes=").partition("-")[0])
            if hub.ranges and self.headers["Range"]
            else 0
        )
        said = {
            "X-Repo-Commit": commit,
            "ETag": f'"{hub.digest(name, body)}"',
            "Content-Length": str(len(body) - start),
        }
        if start:
            said["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self._headers(206 if start else 200, said)
        if (call := hub.after_head) is not None:
            hub.after_head = None
            call()
        if content and hub.stall:
            self.wfile.write(body[start : start + hub.stall])
            self.wfile.flush()
            hub.stalled.set()
            hub.released.wait(60)
            self.close_connection = True
        elif content:
            end = start + hub.cut.pop(0) if hub.cut else len(body)
            self.wfile.write(body[start:end])
            self.close_connection = end < len(body)

    def _headers(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
