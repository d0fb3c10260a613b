"""ASGI middleware: authentication, host and size limits, response headers, and the access log.

It reads the whole body before the application runs, so that no route can hold more than the limits
allow, and it cancels the work when the client disconnects.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
import re
import uuid
from dataclasses import dataclass, field
from http import HTTPStatus
from time import perf_counter
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imprompt.server.http_errors import HttpError, busy, internal_error, problem_response, too_large
from imprompt.server.prometheus import Metrics
from imprompt.server.server_settings import LOOPBACK, ServerSettings

_LOG = logging.getLogger("imprompt.server")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OPEN_PATHS = frozenset({"/healthz", "/readyz"})
_MAX_ACTIVE = 256
"""Requests that are read or answered at the same time."""
_METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"})

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
"""Added to every response that does not set them itself."""


@dataclass(slots=True)
class _Exchange:
    """One request, and what becomes known of its response."""

    scope: Scope
    headers: Headers
    request_id: str
    started_at: float = field(default_factory=perf_counter)
    status: int = 0
    kind: str = ""
    held_bytes: int = 0


class Middleware:
    """Wraps `app` and enforces the token, the host and the limits of `settings`."""

    def __init__(self, app: ASGIApp, settings: ServerSettings, metrics: Metrics) -> None:
        self.app = app
        self._settings = settings
        self._metrics = metrics
        self._n_active = 0
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = headers.get("x-request-id", "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = uuid.uuid4().hex
        exchange = _Exchange(scope, headers, request_id)
        scope.setdefault("state", {})["request_id"] = request_id
        self._n_active += 1
        try:
            await self._handle(exchange, receive, _with_headers(exchange, send))
        finally:
            self._n_active -= 1
            self._hold(exchange, -exchange.held_bytes)
            self._record(exchange)

    async def _handle(self, exchange: _Exchange, receive: Receive, send: Send) -> None:
        try:
            self._admit(exchange)
            body = await self._body(exchange, receive)
            if body is not None:
                await self._run(exchange, body, receive, send)
        except HttpError as error:
            response = problem_response(error)
            # The unread rest of the body would be parsed as the next request.
            response.headers["Connection"] = "close"
            await response(exchange.scope, receive, send)
        except Exception as error:  # noqa: BLE001 -- logged and answered; the server lives on
            # The error's message may quote the request; its class and location do not.
            extra = {
                "event": "fault",
                "request_id": exchange.request_id,
                "error": type(error).__name__,
                "location": _location(error),
            }
            _LOG.error("unexpected error", extra=extra)
            if not exchange.status:
                await problem_response(internal_error())(exchange.scope, receive, send)

    def _admit(self, exchange: _Exchange) -> None:
        """Raise `HttpError` if the client may not ask, or not now."""
        if exchange.scope["path"] in _OPEN_PATHS:
            return
        self._check_origin(exchange)
        self._check_token_or_host(exchange.headers)
        if self._n_active > _MAX_ACTIVE:
            raise busy(f"{_MAX_ACTIVE} requests are being processed.")

    def _check_token_or_host(self, headers: Headers) -> None:
        if self._settings.token is not None:
            if not _token_matches(headers.get("authorization", ""), self._settings.token):
                raise HttpError(
                    HTTPStatus.UNAUTHORIZED,
                    "unauthorized",
                    "The token is missing or wrong.",
                    hint="Send it as `Authorization: Bearer TOKEN` or as the HTTP Basic password.",
                    headers={"WWW-Authenticate": 'Basic realm="imprompt", charset="UTF-8"'},
                )
        elif self._settings.loopback and _host_name(headers.get("host", "")) not in LOOPBACK:
            # A foreign site can point its host name at this machine (DNS rebinding). With a token
            # that does no harm: browsers do not send the token to that name.
            raise HttpError(
                HTTPStatus.MISDIRECTED_REQUEST,
                "wrong-host",
                "This server only answers requests to this machine.",
                hint="Use the host localhost, let the proxy send it, or start the server with "
                "--token.",
            )

    def _check_origin(self, exchange: _Exchange) -> None:
        """Raise `HttpError` for requests from pages of other sites.

        A token does not change that: browsers resend a password that was typed once. Browsers send
        `Sec-Fetch-Site` to loopback and over TLS, and `Origin` with most requests that pages make
        to other hosts; programs send neither.
        """
        headers, method = exchange.headers, exchange.scope["method"]
        site, origins = headers.get("sec-fetch-site"), headers.getlist("origin")
        if site is not None:
            # Following a link to our page is fine: the other site cannot read the response.
            is_link = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
            foreign = site not in ("none", "same-origin") and not is_link
        else:
            host = headers.get("host", "").lower().removesuffix(":80").removesuffix(":443")
            foreign = any(origin.lower().partition("://")[2] != host for origin in origins)
        if foreign:
            raise HttpError(
                HTTPStatus.FORBIDDEN,
                "cross-site",
                "Requests from pages of other sites are refused.",
                hint="Use this server's page or a program. A proxy must pass on the browser's "
                "Host header.",
            )

    async def _body(self, exchange: _Exchange, receive: Receive) -> bytes | None:
        """Return the whole body; None if the client disconnected."""
        limits = self._settings.limits
        limit, timeout_s = limits.max_body_bytes, limits.body_timeout_s
        announced = exchange.headers.get("content-length", "0")
        if announced.isdecimal() and int(announced[:20]) > limit:
            raise too_large(f"The body has {int(announced[:20]):,} bytes; the limit is {limit:,}.")
        chunks = bytearray()
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    chunk = message.get("body", b"")
                    if len(chunks) + len(chunk) > limit:
                        raise too_large(f"The body has more than {limit:,} bytes.")
                    self._hold(exchange, len(chunk))
                    chunks += chunk
                    if not message.get("more_body", False):
                        return bytes(chunks)
        except TimeoutError as error:
            detail = f"The body did not arrive within {timeout_s:g} s."
            raise HttpError(HTTPStatus.REQUEST_TIMEOUT, "timeout", detail) from error

    def _hold(self, exchange: _Exchange, n_bytes: int) -> None:
        if n_bytes > 0 and self._held_bytes + n_bytes > self._settings.limits.max_held_bytes:
            raise busy("Too many large requests are being processed.")
        exchange.held_bytes += n_bytes
        self._held_bytes += n_bytes
        self._metrics.held_bytes.set(self._held_bytes)

    async def _run(self, exchange: _Exchange, body: bytes, receive: Receive, send: Send) -> None:
        """Run the application; cancel it when the client disconnects."""
        disconnected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replay() -> Message:
            for message in messages:
                return message
            await disconnected
            return {"type": "http.disconnect"}

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            disconnected.set_result(None)

        application = asyncio.ensure_future(self.app(exchange.scope, replay, send))
        watcher = asyncio.ensure_future(watch())
        await asyncio.wait({application, watcher}, return_when=asyncio.FIRST_COMPLETED)
        client_gone = not application.done()
        for task in (application, watcher):
            if not task.done():
                task.cancel()
        try:
            await application
        except asyncio.CancelledError:
            if not client_gone:
                raise
        if client_gone and not exchange.status:
            exchange.kind = "client-gone"

    def _record(self, exchange: _Exchange) -> None:
        """Count and log the request by its route template, as paths may hold a client's text."""
        route = getattr(exchange.scope.get("route"), "path", "unmatched")
        seconds = perf_counter() - exchange.started_at
        method = exchange.scope["method"] if exchange.scope["method"] in _METHODS else "other"
        self._metrics.requests.labels(method, route, str(exchange.status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        if exchange.kind:
            self._metrics.errors.labels(exchange.kind).inc()
        extra: dict[str, Any] = {
            "event": "request",
            "request_id": exchange.request_id,
            "method": method,
            "route": route,
            "status": exchange.status,
            "ms": round(seconds * 1000, 1),
            "kind": exchange.kind,
        }
        _LOG.info("request", extra=extra)


def _with_headers(exchange: _Exchange, send: Send) -> Send:
    """Return a `send` that adds our headers to the response and notes its status and kind."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            exchange.status = message["status"]
            headers = MutableHeaders(scope=message)
            exchange.kind = headers.get("x-problem-kind", "")
            del headers["x-problem-kind"]
            headers["X-Request-ID"] = exchange.request_id
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return send_with_headers


def _token_matches(authorization: str, token: str) -> bool:
    """Check a Bearer token or the password of HTTP Basic, in constant time."""
    scheme, _, value = authorization.partition(" ")
    candidate = value.strip().encode("utf-8", "replace")
    if scheme.lower() == "basic":
        try:
            candidate = base64.b64decode(candidate, validate=True).partition(b":")[2]
        except binascii.Error:
            candidate = b""
    elif scheme.lower() != "bearer":
        candidate = b""
    return hmac.compare_digest(candidate, token.encode("utf-8"))


def _host_name(host: str) -> str:
    """Return the lower-case name in a Host header, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _location(error: BaseException) -> str:
    """Return file and line of the frame that raised the exception."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""
