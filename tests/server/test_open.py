"""`serve --open`: the page is opened when the server can answer, not before."""

from __future__ import annotations

import http.server
import threading
from pathlib import Path

import pytest

from imprompt.server import serving
from imprompt.server.server_settings import ServerSettings
from tests.server.conftest import Serve
from tests.server.processes import started


def test_the_server_says_once_when_it_is_ready(serve: Serve) -> None:
    """Before that, nothing is told."""
    told: list[str] = []
    with serve(on_ready=lambda: told.append("ready")) as client:
        assert client.get("/readyz").status_code == 200
    assert told == ["ready"]


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:7861/"),
        ("::1", "http://[::1]:7861/"),
        ("0.0.0.0", "http://127.0.0.1:7861/"),  # noqa: S104 nothing is bound
        ("::", "http://127.0.0.1:7861/"),
        ("prompts.example", "http://prompts.example:7861/"),
    ],
)
def test_the_address_is_one_that_a_browser_can_open(
    monkeypatch: pytest.MonkeyPatch, host: str, address: str
) -> None:
    """And it is told if there is no browser."""
    opened: list[str] = []
    told: list[str] = []
    answers = iter([True, False])

    def open_browser(url: str) -> bool:
        opened.append(url)
        return next(answers)

    monkeypatch.setattr("webbrowser.open", open_browser)
    settings = ServerSettings(Path("index"), host=host)
    serving._open(settings, told.append)
    assert (opened, told) == ([address], [])
    serving._open(settings, told.append)
    assert told == [f"No browser could be opened. The page is at {address}"]


@pytest.mark.slow
def test_a_browser_opens_a_page_that_answers(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that BROWSER names finds the server ready."""
    seen: list[str] = []
    done = threading.Event()

    class Told(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(204)
            self.end_headers()
            done.set()

        def log_message(self, *_words: object) -> None:
            """Print nothing."""

    listener = http.server.HTTPServer(("127.0.0.1", 0), Told)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    browser = tmp_path / "browser"
    browser.write_text(
        "#!/bin/sh\n"
        'status=$(curl -s -o /dev/null -w "%{http_code}" "$1"v1/info)\n'
        f"curl -s http://127.0.0.1:{listener.server_port}/$status\n"
    )
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{browser} %s")
    with started(index, tmp_path / "log", "--open"):
        assert done.wait(60)
    listener.shutdown()
    listener.server_close()
    assert seen == ["/200"]
