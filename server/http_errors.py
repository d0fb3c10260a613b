"""Errors as `application/problem+json` (RFC 9457), with the kinds of the command line's errors."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
from starlette.responses import Response

from imprompt.core.errors import (
    Checksum,
    EncoderError,
    ImageRejected,
    ImpromptError,
    MemberUnavailable,
    QueryError,
    StoreError,
    UnknownRow,
)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1
_USAGE_HINT = "/openapi.json describes the request."

_STATUSES: tuple[tuple[type[ImpromptError], HTTPStatus], ...] = (
    (ImageRejected, HTTPStatus.UNPROCESSABLE_ENTITY),
    (QueryError, HTTPStatus.BAD_REQUEST),
    (UnknownRow, HTTPStatus.NOT_FOUND),
    (MemberUnavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (StoreError, HTTPStatus.SERVICE_UNAVAILABLE),
    (EncoderError, HTTPStatus.SERVICE_UNAVAILABLE),
)
"""The first class that matches an error gives its status; any other error is an internal one."""


class HttpError(Exception):
    """A request rejected by HTTP's rules: its size, format, credentials, or the server's load.

    It is answered inside `imprompt.server` and never leaves it.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        hint: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.hint = hint
        self.headers = headers or {}


def busy(message: str) -> HttpError:
    """Return a 503 that asks the client to retry."""
    return HttpError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "busy",
        message,
        hint="Try again in a moment.",
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )


def internal_error() -> HttpError:
    """Return a 500 that tells nothing of the cause; the middleware logs that."""
    message = "Internal error in imprompt; see the server's log."
    return HttpError(HTTPStatus.INTERNAL_SERVER_ERROR, "error", message)


def too_large(message: str) -> HttpError:
    """Return a 413 for a request that exceeds one of the limits."""
    hint = "/v1/info lists the limits."
    return HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", message, hint=hint)


def invalid_request(message: str) -> HttpError:
    """Return a 422 of kind "usage": a field of the request is invalid."""
    return HttpError(HTTPStatus.UNPROCESSABLE_ENTITY, "usage", message, hint=_USAGE_HINT)


def malformed(message: str) -> HttpError:
    """Return a 400 of kind "usage": the body cannot be parsed."""
    return HttpError(HTTPStatus.BAD_REQUEST, "usage", message, hint=_USAGE_HINT)


def status_of(error: ImpromptError) -> int:
    """Return the HTTP status of one of imprompt's errors."""
    return next(
        (status for kind, status in _STATUSES if isinstance(error, kind)),
        HTTPStatus.INTERNAL_SERVER_ERROR,
    )


def problem(error: ImpromptError | HttpError) -> dict[str, Any]:
    """Return RFC 9457's `type`, `title`, `status` and `detail`, with our `kind` and `hint`."""
    status = error.status if isinstance(error, HttpError) else status_of(error)
    value = {
        "type": f"urn:imprompt:{error.kind}",
        "title": HTTPStatus(status).phrase,
        "status": int(status),
        "detail": _detail(error),
        "kind": error.kind,
    }
    return {**value, "hint": error.hint} if error.hint else value


def _detail(error: ImpromptError | HttpError) -> str:
    """Return the message without any path of this machine."""
    if isinstance(error, ImageRejected):
        # The name in the message is one that the server made up; the client never sent it.
        return f"The image cannot be read: {error.reason}."
    if isinstance(error, Checksum):
        return f"A file of the index is damaged: {error.path.name}."
    return error.message


def problem_response(error: ImpromptError | HttpError) -> Response:
    """Return the error as a response; every 503 has a Retry-After header."""
    value = problem(error)
    headers = dict(error.headers) if isinstance(error, HttpError) else {}
    if value["status"] == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.setdefault("Retry-After", str(RETRY_AFTER_S))
    # For the middleware, which counts and logs the kind and removes the header.
    headers["X-Problem-Kind"] = value["kind"]
    return Response(msgspec.json.encode(value), value["status"], headers, media_type=MEDIA_TYPE)
