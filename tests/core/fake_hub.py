"""A hub on the loopback interface: repositories, real headers, and failures on demand."""

from __future__ import annotations

import hashlib
import json
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
    before the content (`hang_head`: before the headers, too), `lie` states another digest, the
    first byte of the next `wrong` large contents is another one.
    `passing` refuses the next requests with a status and headers, `refuse_content` the next
    contents,
    `headers` go with each refusal. `after_head` is called once, after the next headers. `seen`
    lists (method, path, range) of every request, `waits` the seconds before repeated ones.

    With `cdn` large files are redirected to a second port, as the hub does: the answer of the first
    names the file's size and digest. `tokens` are the known ones, each with the `gated`
    repositories that it may read; any other token is refused, for public files too. Without
    `tokens` nobody looks at them. `sent` lists where each request of `seen` went, "hub" or "cdn",
    and the token in it.

    Listings (`api/models/…`, `api/datasets/…`) are made from `files`, unless one of that name is
    among them.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)
    cut: list[int] = field(default_factory=list)
    status: dict[str, tuple[int, str]] = field(default_factory=dict)
    hang_s: float = 0.0
    hang_head: bool = False
    stall: int = 0
    lie: bool = False
    wrong: int = 0
    ranges: bool = True
    passing: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    refuse_content: list[int] = field(default_factory=list)
    after_head: Callable[[], None] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cdn: bool = False
    tokens: dict[str, set[str]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    commit: str = COMMIT
    older: dict[str, dict[str, bytes]] = field(default_factory=dict)
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    sent: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stalled, self.released = threading.Event(), threading.Event()

    def __enter__(self) -> FakeHub:
        hub = self

        class Handler(_Handler):
            pass

        class Cdn(_Cdn):
            pass

        Handler.hub = Cdn.hub = hub
        self._server = _Quiet(("127.0.0.1", 0), Handler)
        self._servers = [self._server]
        if self.cdn:
            self._servers.append(_Quiet(("127.0.0.1", 0), Cdn))
        self._threads = [
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            for server in self._servers
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()

    def push(self, changed: dict[str, bytes]) -> None:
        """Commit changed files: `main` moves, and the older commit is still served by its name."""
        self.older[self.commit] = dict(self.files)
        self.files |= changed
        self.commit = hashlib.sha1(self.commit.encode(), usedforsecurity=False).hexdigest()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def cdn_address(self) -> str:
        return f"http://127.0.0.1:{self._servers[1].server_port}"

    @property
    def asked(self) -> list[str]:
        """METHOD FILE of every request for a file.

        huggingface_hub itself asks for /api/agent-harnesses once a day.
        """
        return [
            f"{method} {path.rpartition('/')[2]}"
            for method, path, _ in self.seen
            if path != "/api/agent-harnesses"
        ]

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
    where = "hub"

    def do_HEAD(self) -> None:
        self._note()
        self._answer(content=False)

    def do_GET(self) -> None:
        self._note()
        self._answer(content=True)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def _note(self) -> None:
        self.hub.seen.append((self.command, self.path, self.headers.get("Range", "")))
        self.hub.sent.append((self.where, self.headers.get("Authorization", "")))

    def _answer(self, *, content: bool) -> None:
        hub = self.hub
        if self.path.startswith("/api/agent-harnesses"):  # the hub's library, once a cache
            self._headers(404, {"Content-Length": "0"})
            return
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
        if name not in files and (listing := self._listing(path)) is not None:
            files = {name: listing}
        status, code = hub.status.get(name, (200, "") if name in files else (404, "EntryNotFound"))
        said = {"X-Error-Code": code}
        if hub.tokens and (refusal := self._refusal(name)) is not None:
            status, said = refusal
        if status != 200:
            self._headers(
                status, {"X-Repo-Commit": commit, "Content-Length": "0", **said, **hub.headers}
            )
            return
        body = files[name]
        digest = hub.digest(name, body)
        if hub.cdn and name in hub.large:
            self._headers(
                302,
                {
                    "X-Repo-Commit": commit,
                    "X-Linked-Size": str(len(body)),
                    "X-Linked-Etag": f'"{digest}"',
                    "Location": f"{hub.cdn_address}/{revision}/{name}?Signature=of-{digest[:8]}",
                    "Content-Length": "0",
                },
            )
            self._called()
            return
        self._send(name, body, {"X-Repo-Commit": commit, "ETag": f'"{digest}"'}, content=content)

    def _listing(self, path: str) -> bytes | None:
        """Return what the hub says of a repository's files; None where it has no such one."""
        hub = self.hub
        asked = re.fullmatch(r"api/(models|datasets)/([^/]+/[^/]+)(?:/revision/([^/?]+))?", path)
        if asked is None:
            return None
        kind, repo, revision = asked.groups()
        files = hub.older.get(revision or "", hub.files)
        folder = f"{repo}/" if kind == "models" else f"datasets/{repo}/"
        names = sorted(name.removeprefix(folder) for name in files if name.startswith(folder))
        if not names:
            return None
        commit = revision if revision in hub.older else hub.commit
        siblings = [{"rfilename": name} for name in names]
        return json.dumps({"id": repo, "sha": commit, "siblings": siblings}).encode()

    def _refusal(self, name: str) -> tuple[int, dict[str, str]] | None:
        """Return the status and headers for who has no access, as the hub answers."""
        hub = self.hub
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in hub.tokens:
            return 401, {"X-Error-Message": "Invalid credentials in Authorization header"}
        repo = next((repo for repo in hub.gated if name.startswith(f"{repo}/")), None)
        if repo is None or repo in hub.tokens.get(token, ()):
            return None
        return (403 if token else 401), {"X-Error-Code": "GatedRepo"}

    def _send(self, name: str, body: bytes, said: dict[str, str], *, content: bool) -> None:
        """Send a file, or the part of it that is asked for, with the failures that are set."""
        hub = self.hub
        if content and hub.refuse_content:
            self._headers(hub.refuse_content.pop(0), {"Content-Length": "0"})
            return
        if content and hub.wrong and name in hub.large:
            hub.wrong -= 1
            body = bytes([body[0] ^ 1]) + body[1:]
        start = (
            int(self.headers["Range"].removeprefix("bytes=").partition("-")[0])
            if hub.ranges and self.headers["Range"]
            else 0
        )
        said = {**said, "Content-Length": str(len(body) - start)}
        if start:
            said["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self._headers(206 if start else 200, said)
        self._called()
        if content and 0 < hub.stall < len(body):
            self.wfile.write(body[start : start + hub.stall])
            self.wfile.flush()
            hub.stalled.set()
            hub.released.wait(60)
            self.close_connection = True
        elif content:
            end = start + hub.cut.pop(0) if hub.cut else len(body)
            self.wfile.write(body[start:end])
            self.close_connection = end < len(body)

    def _called(self) -> None:
        if (call := self.hub.after_head) is not None:
            self.hub.after_head = None
            call()

    def _headers(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


class _Cdn(_Handler):
    """Serves content by signed addresses; it knows no tokens and refuses whoever sends one."""

    where = "cdn"

    def _answer(self, *, content: bool) -> None:
        hub = self.hub
        if "Authorization" in self.headers or "?Signature=" not in self.path:
            self._headers(400, {"Content-Length": "0"})
            return
        revision, _, name = unquote(self.path).lstrip("/").partition("?")[0].partition("/")
        self._send(name, hub.older.get(revision, hub.files)[name], {}, content=content)
