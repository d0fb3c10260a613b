"""Images by URL: only from hosts that were allowed by name, never from a private address, never large, never slow."""

from __future__ import annotations

import asyncio
import http.client
import ipaddress
import socket
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from time import monotonic
from urllib.parse import SplitResult, urljoin, urlsplit

from imprompt.server.http_errors import HttpError, too_large, usage
from imprompt.server.server_settings import ServerConfig

_TIMEOUT_S = 10.0
_MAX_REDIRECTS = 3
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CHUNK_BYTES = 1 << 16

Resolve = Callable[[str, int], Sequence[str]]
"""The addresses of a host's name and port."""
Public = Callable[[str], bool]
"""Whether an address may be connected to."""


async def fetch_images(urls: Sequence[str], config: ServerConfig) -> list[bytes]:
    """The bytes behind each URL, in order.

    Raises:
        HttpError: fetching is not allowed, the host is not on the list, resolves to a private
            address, redirects out of the list, fails, or sends too much.
    """
    if len(urls) > config.limits.max_images:
        raise too_large(f"{len(urls)} images were named, the limit is {config.limits.max_images}.")
    images = []
    for url in urls:
        work = partial(fetch, url, hosts=config.url_hosts, max_bytes=config.limits.max_image_bytes)
        images.append(await asyncio.to_thread(work))
    return images


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, by the system's resolver."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def is_public(address: str) -> bool:
    """Not this machine, not its networks, nor anything else that is not the open internet;

    IPv4 inside IPv6 is looked into.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if inner is not None:
            return found.ipv4_mapped is not None and is_public(str(inner))
    return found.is_global and not found.is_multicast


def fetch(
    url: str,
    *,
    hosts: Sequence[str],
    max_bytes: int,
    resolve: Resolve = resolve,
    public: Public = is_public,
) -> bytes:
    """The body behind one URL; redirects are followed within `hosts`, and each hop is checked anew.

    Raises as `fetch_images`.
    """
    for _ in range(_MAX_REDIRECTS + 1):
        parts = _allowed(url, hosts)
        body, location = _get(parts, max_bytes=max_bytes, address=_address(parts, resolve, public))
        if location is None:
            return body
        url = urljoin(url, location)
    raise _refused("The URL redirects too often.")


def _allowed(url: str, hosts: Sequence[str]) -> SplitResult:
    if not hosts:
        raise _refused(
            "URLs are not fetched by this server.",
            hint="Send the image itself, or start it with --allow-urls HOST.",
        )
    try:
        parts = urlsplit(url)
        name, port = (parts.hostname or "").rstrip(".").lower(), parts.port
    except ValueError as error:
        raise usage("The URL is not valid.") from error
    if (
        parts.scheme not in _PORTS
        or parts.username is not None
        or not url.isascii()
        or any(char <= " " for char in url)
    ):
        raise usage("The URL is not a plain http or https one.")
    if name not in {host.lower() for host in hosts} or port not in (None, _PORTS[parts.scheme]):
        raise _refused(
            "The URL's host is not one that this server fetches from.",
            hint="/v1/info names those hosts.",
        )
    return parts


def _address(parts: SplitResult, resolve: Resolve, public: Public) -> str:
    """An address of the host that may be connected to.

    All of them must be public: a mixed answer is an attack.
    """
    try:
        found = resolve(str(parts.hostname), _PORTS[parts.scheme])
    except OSError as error:
        raise _refused("The URL's host has no address.") from error
    if not found or not all(map(public, found)):
        raise _refused("The URL's host has an address that is not public.")
    return found[0]


def _get(parts: SplitResult, *, max_bytes: int, address: str) -> tuple[bytes, str | None]:
    """(body, None), or (b"", where it redirects to).

    Connects to `address`, so that a second look-up cannot lead elsewhere.
    """
    host = str(parts.hostname)
    port = parts.port or _PORTS[parts.scheme]
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        connection.sock = socket.create_connection((address, port), timeout=_TIMEOUT_S)
        if parts.scheme == "https":
            connection.sock = ssl.create_default_context().wrap_socket(
                connection.sock, server_hostname=host
            )
        path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        connection.request("GET", path, headers={"Accept": "image/*", "User-Agent": "imprompt"})
        with connection.getresponse() as response:
            if response.status in _REDIRECTS:
                return b"", response.getheader("Location") or ""
            if response.status != HTTPStatus.OK:
                raise _refused(f"The URL's host answered {response.status}.")
            return _bounded(response, max_bytes), None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _refused("The URL cannot be fetched.") from error
    finally:
        connection.close()


def _bounded(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    body = bytearray()
    deadline = monotonic() + _TIMEOUT_S
    while chunk := response.read1(_CHUNK_BYTES):
        body += chunk
        if len(body) > max_bytes:
            raise too_large(f"The image behind the URL has more than {max_bytes:,} bytes.")
        if monotonic() > deadline:
            raise _refused(f"The image behind the URL did not arrive within {_TIMEOUT_S:g} s.")
    return bytes(body)


def _refused(message: str, *, hint: str = "") -> HttpError:
    return HttpError(HTTPStatus.UNPROCESSABLE_ENTITY, "url-refused", message, hint=hint)
