"""What goes wrong, as `application/problem+json` (RFC 9457), with the same kinds as the command line's errors."""

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

_STATUSES: tuple[tuple[type[ImpromptError], HTTPStatus], ...] = (
    (ImageRejected, HTTPStatus.UNPROCESSABLE_ENTITY),
    (QueryError, HTTPStatus.BAD_REQUEST),
    (UnknownRow, HTTPStatus.NOT_FOUND),
    (MemberUnavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (StoreError, HTTPStatus.SERVICE_UNAVAILABLE),
    (EncoderError, HTTPStatus.SERVICE_UNAVAILABLE),
)
"""The first class that an error is of gives its status; any other error is a fault of the server."""


class HttpError(Exception):
    """A request that is refused for what HTTP is about: its size, its form, its right, its moment.

    Ends inside this room.
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
    """There is too much to do at the moment."""
    return HttpError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "busy",
        message,
        hint="Ask again a little later.",
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )


def fault() -> HttpError:
    """Something that should not happen; the guard logs it."""
    return HttpError(
        HTTPStatus.INTERNAL_SERVER_ERROR, "error", "This is a fault of imprompt; its log says more."
    )


def too_large(message: str) -> HttpError:
    return HttpError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "too-large",
        message,
        hint="/v1/info states the limits.",
    )


def usage(message: str, *, status: int = HTTPStatus.UNPROCESSABLE_ENTITY) -> HttpError:
    """A word of the request is wrong."""
    return HttpError(status, "usage", message, hint="/openapi.json says what this takes.")


def status_of(error: ImpromptError) -> int:
    """The HTTP status of an error of the product."""
    return next(
        (status for kind, status in _STATUSES if isinstance(error, kind)),
        HTTPStatus.INTERNAL_SERVER_ERROR,
    )


def problem(error: ImpromptError | HttpError) -> dict[str, Any]:
    """The members of the problem:

    `type`, `title`, `status`, `detail`, and our own `kind` and `hint`.
    """
    status = error.status if isinstance(error, HttpError) else status_of(error)
    detail = _detail(error)
    value = {
        "type": f"urn:imprompt:{error.kind}",
        "title": HTTPStatus(status).phrase,
        "status": int(status),
        "detail": detail,
        "kind": error.kind,
    }
    return {**value, "hint": error.hint} if error.hint else value


def _detail(error: ImpromptError | HttpError) -> str:
    """What happened, without a path of this machine."""
    if isinstance(error, ImageRejected):
        # An image has no name here: what the message calls it would be ours, not the client's.
        return f"The image cannot be read: {error.reason}."
    if isinstance(error, Checksum):
        return f"A file of the index is damaged: {error.path.name}."
    return error.message


def problem_response(error: ImpromptError | HttpError) -> Response:
    """The error as a whole response; 503 says when to come again."""
    value = problem(error)
    headers = dict(error.headers) if isinstance(error, HttpError) else {}
    if value["status"] == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.setdefault("Retry-After", str(RETRY_AFTER_S))
    headers["X-Problem-Kind"] = value["kind"]
    return Response(msgspec.json.encode(value), value["status"], headers, media_type=MEDIA_TYPE)
