"""Fetches images by URL: from allowed hosts only, never from private addresses, and bounded."""

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

from imprompt.server.http_errors import HttpError, invalid_request, too_large
from imprompt.server.server_settings import ServerSettings

_TIMEOUT_S = 10.0
_MAX_REDIRECTS = 3
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CHUNK_BYTES = 1 << 16

Resolve = Callable[[str, int], Sequence[str]]
"""Resolves a host name and port to addresses."""
Public = Callable[[str], bool]
"""Tells whether an address may be connected to."""


async def fetch_images(urls: Sequence[str], settings: ServerSettings) -> list[bytes]:
    """Return the bytes behind each URL, in order.

    Raises:
        HttpError: a URL is invalid, its host is not allowed, resolves to a private address,
            redirects to another host, fails, or sends too much; or there are too many URLs.
    """
    if len(urls) > settings.limits.max_images:
        limit = settings.limits.max_images
        raise too_large(f"{len(urls)} image URLs were sent; the limit is {limit}.")
    images = []
    for url in urls:
        work = partial(
            fetch, url, hosts=settings.url_hosts, max_bytes=settings.limits.max_image_bytes
        )
        images.append(await asyncio.to_thread(work))
    return images


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host, by the system's resolver."""
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def is_public(address: str) -> bool:
    """Return whether the address is on the public internet.

    Tunnels (6to4, Teredo) are not; an IPv4-mapped address is if its IPv4 address is.
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return is_public(str(parsed.ipv4_mapped))
        if parsed.sixtofour is not None or parsed.teredo is not None:
            return False
    return parsed.is_global and not parsed.is_multicast


def fetch(
    url: str,
    *,
    hosts: Sequence[str],
    max_bytes: int,
    resolve: Resolve = resolve,
    public: Public = is_public,
) -> bytes:
    """Return the body behind one URL; redirects are followed within `hosts`, each one checked.

    Raises like `fetch_images`.
    """
    for _ in range(_MAX_REDIRECTS + 1):
        parts = _allowed(url, hosts)
        body, location = _get(parts, max_bytes=max_bytes, address=_address(parts, resolve, public))
        if location is None:
            return body
        url = urljoin(url, location)
    raise _refused("The URL redirects too many times.")


def _allowed(url: str, hosts: Sequence[str]) -> SplitResult:
    if not hosts:
        raise _refused(
            "This server does not fetch URLs.",
            hint="Send the image itself, or start the server with --allow-urls HOST.",
        )
    try:
        parts = urlsplit(url)
        name, port = (parts.hostname or "").rstrip(".").lower(), parts.port
    except ValueError as error:
        raise invalid_request("The URL is invalid.") from error
    plain = url.isascii() and all(char > " " for char in url)
    if parts.scheme not in _PORTS or parts.username is not None or not plain:
        raise invalid_request("The URL is not a plain http or https URL.")
    if name not in {host.lower() for host in hosts} or port not in (None, _PORTS[parts.scheme]):
        raise _refused(
            "This server does not fetch from the URL's host.",
            hint="/v1/info lists the allowed hosts.",
        )
    return parts


def _address(parts: SplitResult, resolve: Resolve, public: Public) -> str:
    """Return an address of the host. All of them must be public: a mixed answer is an attack."""
    try:
        addresses = resolve(str(parts.hostname), _PORTS[parts.scheme])
    except OSError as error:
        raise _refused("The URL's host cannot be resolved.") from error
    if not addresses or not all(map(public, addresses)):
        raise _refused("The URL's host has an address that is not public.")
    return addresses[0]


def _get(parts: SplitResult, *, max_bytes: int, address: str) -> tuple[bytes, str | None]:
    """Return (body, None), or (b"", location) for a redirect.

    Connects to the checked `address`, as a second name lookup could return another one.
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
            return _read_body(response, max_bytes), None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _refused("The URL cannot be fetched.") from error
    finally:
        connection.close()


def _read_body(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
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
