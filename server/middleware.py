"""What every request passes, whatever it asks for: who may, from where, how much; and what every answer carries.

A plain ASGI wrapper around the whole application. It reads the body before the application runs, so
that no route can be made to hold more than the limits, and it stops the work when the client goes
away.
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

from imprompt.server.http_errors import HttpError, busy, fault, problem_response, too_large
from imprompt.server.prometheus import Metrics
from imprompt.server.server_settings import LOOPBACK, ServerConfig

_LOG = logging.getLogger("imprompt.server")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OPEN_PATHS = frozenset({"/healthz", "/readyz"})
_MAX_IN_HAND = 256
"""Requests that are being read or answered at once."""

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
"""On every answer that does not set its own."""


@dataclass(slots=True)
class _Exchange:
    """One request on its way."""

    scope: Scope
    headers: Headers
    request_id: str
    begun: float = field(default_factory=perf_counter)
    status: int = 0
    kind: str = ""
    held_bytes: int = 0


class Middleware:
    """Wraps `app`; the limits, the token and the host are those of `config`."""

    def __init__(self, app: ASGIApp, config: ServerConfig, metrics: Metrics) -> None:
        self.app = app
        self._config = config
        self._metrics = metrics
        self._in_hand = 0
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        asked = headers.get("x-request-id", "")
        exchange = _Exchange(
            scope, headers, asked if _REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex
        )
        scope.setdefault("state", {})["request_id"] = exchange.request_id
        self._in_hand += 1
        try:
            await self._guarded(exchange, receive, _sender(exchange, send))
        finally:
            self._in_hand -= 1
            self._hold(exchange, -exchange.held_bytes)
            self._report(exchange)

    async def _guarded(self, exchange: _Exchange, receive: Receive, send: Send) -> None:
        try:
            self._admit(exchange)
            body = await self._body(exchange, receive)
            if body is not None:
                await self._run(exchange, body, receive, send)
        except HttpError as refusal:
            response = problem_response(refusal)
            # What was not read of the body would be taken for the next request.
            response.headers["Connection"] = "close"
            await response(exchange.scope, receive, send)
        except Exception as error:  # noqa: BLE001 -- the last border: a fault is logged and answered, the server lives on
            # The message may hold what the client sent; the class and the place do not.
            place = _place(error)
            extra = {
                "event": "fault",
                "request_id": exchange.request_id,
                "error": type(error).__name__,
                "place": place,
            }
            _LOG.error("unexpected error", extra=extra)
            if not exchange.status:
                await problem_response(fault())(exchange.scope, receive, send)

    def _admit(self, exchange: _Exchange) -> None:
        """Raise `HttpError` for whoever may not ask, or not now."""
        if exchange.scope["path"] in _OPEN_PATHS:
            return
        headers = exchange.headers
        self._check_site(exchange)
        if self._config.token is not None:
            if not _token_matches(headers.get("authorization", ""), self._config.token):
                message = "The token is missing or wrong."
                hint = "Send it as `Authorization: Bearer TOKEN`, or as the password of HTTP Basic."
                challenge = {"WWW-Authenticate": 'Basic realm="imprompt", charset="UTF-8"'}
                raise HttpError(
                    HTTPStatus.UNAUTHORIZED, "unauthorized", message, hint=hint, headers=challenge
                )
        elif self._config.loopback and _host_name(headers.get("host", "")) not in LOOPBACK:
            # A site may lead a name of its own to this machine (DNS rebinding); a token is not sent
            # to that name.
            hint = (
                "Ask for localhost, let the proxy send that name, or start the server with --token."
            )
            raise HttpError(
                HTTPStatus.MISDIRECTED_REQUEST,
                "wrong-host",
                "This server answers for this machine only.",
                hint=hint,
            )
        if self._in_hand > _MAX_IN_HAND:
            raise busy(f"{_MAX_IN_HAND} requests are in hand already.")

    def _check_site(self, exchange: _Exchange) -> None:
        """Raise `HttpError` where a page of another site asks, with a token as without: browsers keep what was typed once.

        Browsers send `Sec-Fetch-Site` to this machine and over TLS, and `Origin` with whatever a
        page makes them send elsewhere; programs send neither.
        """
        headers, method = exchange.headers, exchange.scope["method"]
        site, origins = headers.get("sec-fetch-site"), headers.getlist("origin")
        # A link that leads here is no such request: it shows our page, and its own site sees
        # nothing of it.
        followed = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if site is not None:
            foreign = site not in ("none", "same-origin") and not followed
        else:
            host = headers.get("host", "").lower().removesuffix(":80").removesuffix(":443")
            foreign = any(origin.lower().partition("://")[2] != host for origin in origins)
        if foreign:
            hint = "Ask from the page of this server, or from a program. A proxy must send the Host that browsers ask for."
            raise HttpError(
                HTTPStatus.FORBIDDEN, "cross-site", "A page of another site may not ask.", hint=hint
            )

    async def _body(self, exchange: _Exchange, receive: Receive) -> bytes | None:
        """The whole body; None where the client went away."""
        limit = self._config.limits.max_body_bytes
        announced = exchange.headers.get("content-length", "0")
        if announced.isdecimal() and int(announced[:20]) > limit:
            raise too_large(f"The body has {int(announced[:20]):,} bytes, the limit is {limit:,}.")
        chunks = bytearray()
        try:
            async with asyncio.timeout(self._config.limits.body_timeout_s):
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
            message_text = (
                f"The body did not arrive within {self._config.limits.body_timeout_s:g} s."
            )
            raise HttpError(HTTPStatus.REQUEST_TIMEOUT, "timeout", message_text) from error

    def _hold(self, exchange: _Exchange, n_bytes: int) -> None:
        if n_bytes > 0 and self._held_bytes + n_bytes > self._config.limits.max_held_bytes:
            raise busy("Too many large requests are in hand already.")
        exchange.held_bytes += n_bytes
        self._held_bytes += n_bytes
        self._metrics.held_bytes.set(self._held_bytes)

    async def _run(self, exchange: _Exchange, body: bytes, receive: Receive, send: Send) -> None:
        """Let the application answer; stop it when the client goes away."""
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replay() -> Message:
            for message in messages:
                return message
            await gone
            return {"type": "http.disconnect"}

        async def notice() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            gone.set_result(None)

        answering = asyncio.ensure_future(self.app(exchange.scope, replay, send))
        noticing = asyncio.ensure_future(notice())
        await asyncio.wait({answering, noticing}, return_when=asyncio.FIRST_COMPLETED)
        left = not answering.done()
        for task in (answering, noticing):
            if not task.done():
                task.cancel()
        try:
            await answering
        except asyncio.CancelledError:
            if not left:
                raise
        if left and not exchange.status:
            exchange.kind = "client-gone"

    def _report(self, exchange: _Exchange) -> None:
        """Count and log, by the route's template: a path or a query may hold what the client asked."""
        route = getattr(exchange.scope.get("route"), "path", "unmatched")
        seconds = perf_counter() - exchange.begun
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


_METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"})


def _sender(exchange: _Exchange, send: Send) -> Send:
    """Sends, and puts on the first message what every answer carries."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            exchange.status = message["status"]
            headers = MutableHeaders(scope=message)
            exchange.kind = headers.get("x-problem-kind", "")
            del headers["x-problem-kind"]
            headers["X-Request-ID"] = exchange.request_id
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending


def _token_matches(authorization: str, token: str) -> bool:
    """Bearer, or HTTP Basic with the token as password; compared in constant time."""
    scheme, _, value = authorization.partition(" ")
    given = value.strip().encode("utf-8", "replace")
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).partition(b":")[2]
        except binascii.Error:
            given = b""
    elif scheme.lower() != "bearer":
        given = b""
    return hmac.compare_digest(given, token.encode("utf-8"))


def _host_name(host: str) -> str:
    """The name in a Host header, without its port and brackets, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _place(error: BaseException) -> str:
    """Where an exception was raised: file and line of the innermost frame."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""
