"""The ASGI application: routes, error responses, startup and shutdown."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from imprompt.core.errors import ImpromptError
from imprompt.core.hub.fetch import Announce, silent
from imprompt.indexer.provenance import imprompt_version
from imprompt.server import health, knn_service, pages, sdapi, v1
from imprompt.server.bodies import reasons
from imprompt.server.http_errors import (
    HttpError,
    busy,
    internal_error,
    invalid_request,
    problem_response,
)
from imprompt.server.middleware import Middleware
from imprompt.server.prometheus import Metrics
from imprompt.server.server_settings import ServerSettings
from imprompt.server.service import Service

if TYPE_CHECKING:
    from imprompt.server.models import LoadEncoder

_LOG = logging.getLogger("imprompt.server")
_KINDS = {404: "not-found", 405: "method-not-allowed"}
_ERRORS = (ImpromptError, HttpError, RequestValidationError, HTTPException, TimeoutError, Exception)

OnFailure = Callable[[ImpromptError], None]


def create_app(
    settings: ServerSettings,
    *,
    load: LoadEncoder,
    announce: Announce = silent,
    on_ready: Callable[[], None] = lambda: None,
    on_failure: OnFailure = lambda _error: None,
) -> Middleware:
    """Return the ASGI application; all but the health checks waits until the models are loaded.

    Args:
        load: see `imprompt.server.models.LoadEncoder`.
        announce: takes a line for the person who started the server.
        on_ready: called once when the server can answer.
        on_failure: called if the server cannot start; it never becomes ready then.

    Raises:
        ConfigError: no blend config has the name in `settings`.
    """
    metrics = Metrics()
    service = Service(settings, load=load, metrics=metrics, announce=announce)
    app = FastAPI(
        title="imprompt",
        summary="Finds the prompt behind an image.",
        version=imprompt_version(),
        docs_url=None,  # its page loads scripts from another host
        redoc_url=None,
        lifespan=_lifespan(service, on_ready, on_failure),
    )

    async def ready() -> None:
        service.check_ready()

    for router in (v1.routes(service), sdapi.routes(service), knn_service.routes(service)):
        app.include_router(router, dependencies=[Depends(ready)])
    app.include_router(health.routes(service))
    app.include_router(pages.routes())
    for error in _ERRORS:
        app.add_exception_handler(error, _error_response)
    return Middleware(app, settings, metrics)


def _lifespan(
    service: Service, on_ready: Callable[[], None], on_failure: OnFailure
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        thread = threading.Thread(
            target=_load_and_watch,
            args=(service, on_ready, on_failure),
            name="versions",
            daemon=True,
        )
        thread.start()
        yield
        await asyncio.to_thread(service.close)
        await asyncio.to_thread(thread.join)

    return lifespan


def _load_and_watch(service: Service, on_ready: Callable[[], None], on_failure: OnFailure) -> None:
    try:
        service.load()
    except ImpromptError as error:
        _LOG.error("cannot start", extra={"event": "start-failed", "kind": error.kind})
        on_failure(error)
    except Exception as error:  # noqa: BLE001 -- a server that cannot start must not look like one that will
        name = type(error).__name__
        _LOG.error("cannot start", extra={"event": "start-failed", "error": name})
        on_failure(ImpromptError(f"Unexpected {name}: {error}. This is a bug in imprompt."))
    else:
        _LOG.info("ready", extra={"event": "ready"})
        on_ready()
        service.watch()


async def _error_response(_: Request, error: Exception) -> Response:
    if isinstance(error, ImpromptError | HttpError):
        return problem_response(error)
    if isinstance(error, RequestValidationError):
        return problem_response(invalid_request(reasons(error.errors())))
    if isinstance(error, HTTPException):
        headers = dict(error.headers or {})
        kind = _KINDS.get(error.status_code, "usage")
        return problem_response(
            HttpError(error.status_code, kind, f"{error.detail}.", headers=headers)
        )
    if isinstance(error, TimeoutError):
        return problem_response(busy("The request took too long."))
    return problem_response(internal_error())
