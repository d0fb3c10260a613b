"""Images by URL: from listed hosts alone, never from a private address."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from imprompt.server import urls
from imprompt.server.http_errors import HttpError
from imprompt.server.urls import fetch, is_public


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",  # noqa: S104
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fd00::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "2002:7f00:1::",
        "ff02::1",
    ],
)
def test_private_addresses_are_known(address: str) -> None:
    """This machine, its networks, cloud metadata, multicast, and IPv4 hidden in IPv6."""
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "::ffff:93.184.215.14"]
)
def test_public_addresses_are_known(address: str) -> None:
    """The open internet."""
    assert is_public(address)


class Site(BaseHTTPRequestHandler):
    """/image, /large, /away, /here, /loop."""

    def do_GET(self) -> None:
        moved = {
            "/away": "http://elsewhere.example/image",
            "/here": "/image",
            "/loop": "/loop",
            "/file": "file:///etc/passwd",
        }
        self.send_response(
            302 if self.path in moved else 200 if self.path in ("/image", "/large") else 404
        )
        if self.path in moved:
            self.send_header("Location", moved[self.path])
        self.end_headers()
        self.wfile.write(b"x" * (5000 if self.path == "/large" else 10))

    def log_message(self, *_: object) -> None:
        """Silent."""


Ask = Callable[[str], bytes]


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """Fetches from a site on this machine that takes itself for images.example."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]

    def run(url: str) -> bytes:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(urls, "_PORTS", {"http": port, "https": port})
            return fetch(
                url,
                hosts=["Images.Example"],
                max_bytes=1000,
                resolve=lambda *_: ["127.0.0.1"],
                public=lambda _: True,
            )

    yield run
    server.shutdown()
    server.server_close()


def test_a_listed_host_is_fetched_from(ask: Ask) -> None:
    """Also by a redirect that stays there; what is too large is broken off."""
    assert ask("http://images.example/image") == b"x" * 10
    assert ask("http://images.example/here") == b"x" * 10
    with pytest.raises(HttpError) as caught:
        ask("http://images.example/large")
    assert caught.value.status == 413


@pytest.mark.parametrize(
    "url",
    [
        "http://elsewhere.example/image",
        "http://images.example/away",
        "http://images.example/loop",
        "http://images.example/file",
        "http://images.example/nothing",
        "http://images.example.evil.example/image",
        "http://images.example@evil.example/image",
        "http://user:pass@images.example/image",
        "http://images.example:22/image",
        "ftp://images.example/image",
        "file:///etc/passwd",
        "//images.example/image",
        "http://images.example/ image",
        "http://images.example/\r\nHost: evil",
        "http://[::1/",
        "http://127.0.0.1/",
        "",
    ],
)
def test_anything_else_is_refused(ask: Ask, url: str) -> None:
    """Other hosts, other ports, other schemes, credentials, redirects out of the list."""
    with pytest.raises(HttpError) as caught:
        ask(url)
    assert caught.value.status == 422


def test_a_listed_name_that_leads_inside_is_refused() -> None:
    """The address counts, not the name; one private address among public ones is refused."""
    for addresses in (["127.0.0.1"], ["93.184.215.14", "10.0.0.1"], []):
        with pytest.raises(HttpError, match="not public"):
            fetch(
                "http://images.example/",
                hosts=["images.example"],
                max_bytes=10,
                resolve=lambda *_, found=addresses: found,
            )
