"""The whole application: routes, errors as problems, start and end."""

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
from imprompt.server.http_errors import HttpError, busy, fault, problem_response, usage
from imprompt.server.middleware import Middleware
from imprompt.server.prometheus import Metrics
from imprompt.server.server_settings import ServerConfig
from imprompt.server.service import Service

if TYPE_CHECKING:
    from imprompt.core.protocols import DualEncoder

_LOG = logging.getLogger("imprompt.server")
_KINDS = {404: "not-found", 405: "method-not-allowed"}

Failed = Callable[[ImpromptError], None]


def create_app(
    config: ServerConfig,
    *,
    load: Callable[[str], DualEncoder],
    announce: Announce = silent,
    failed: Failed | None = None,
) -> Middleware:
    """The ASGI application. It answers /healthz at once, everything else when the models are warm.

    Args:
        config: of the server.
        load: makes an encoder by its name, as `imprompt.encoders.registry.load_encoder` does.
        announce: takes a line for the person who started the server.
        failed: told when the models cannot be made warm; the server never gets ready then.

    Raises:
        ConfigError: no blend config has the name in `config`.
    """
    metrics = Metrics()
    service = Service(config, load=load, metrics=metrics, announce=announce)
    app = FastAPI(
        title="imprompt",
        summary="Finds the prompt behind an image.",
        version=imprompt_version(),
        docs_url=None,  # its page loads scripts from another host
        redoc_url=None,
        lifespan=_lifespan(service, failed or _nothing),
    )

    async def ready() -> None:
        service.check_ready()

    for router in (v1.routes(service), sdapi.routes(service), knn_service.routes(service)):
        app.include_router(router, dependencies=[Depends(ready)])
    app.include_router(health.routes(service))
    app.include_router(pages.routes())
    for kind in (
        ImpromptError,
        HttpError,
        RequestValidationError,
        HTTPException,
        TimeoutError,
        Exception,
    ):
        app.add_exception_handler(kind, _as_problem)
    return Middleware(app, config, metrics)


def _nothing(error: ImpromptError) -> None:
    """Nobody asked to be told."""


def _lifespan(
    service: Service, failed: Failed
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        def start() -> None:
            try:
                service.warm()
            except ImpromptError as error:
                _LOG.error("cannot start", extra={"event": "start-failed", "kind": error.kind})
                failed(error)
            except Exception as error:  # noqa: BLE001 -- a server that never gets ready must not look like one that will
                _LOG.error(
                    "cannot start", extra={"event": "start-failed", "error": type(error).__name__}
                )
                failed(
                    ImpromptError(
                        f"unexpected {type(error).__name__}: {error}. This is a fault of imprompt."
                    )
                )
            else:
                _LOG.info("ready", extra={"event": "ready"})
                service.watch()

        thread = threading.Thread(target=start, name="versions", daemon=True)
        thread.start()
        yield
        await asyncio.to_thread(service.close)
        await asyncio.to_thread(thread.join)

    return lifespan


async def _as_problem(_: Request, error: Exception) -> Response:
    if isinstance(error, ImpromptError | HttpError):
        return problem_response(error)
    if isinstance(error, RequestValidationError):
        return problem_response(usage(reasons(error.errors())))
    if isinstance(error, HTTPException):
        headers = dict(error.headers or {})
        kind = _KINDS.get(error.status_code, "usage")
        return problem_response(
            HttpError(error.status_code, kind, f"{error.detail}.", headers=headers)
        )
    return problem_response(
        busy("It took too long.") if isinstance(error, TimeoutError) else fault()
    )
