"""How the server is: alive, ready, and its figures."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from imprompt.server.bodies import as_json
from imprompt.server.http_errors import RETRY_AFTER_S
from imprompt.server.service import Service

_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def routes(service: Service) -> APIRouter:
    """/healthz, /readyz and /metrics."""
    router = APIRouter(tags=["state"])

    @router.get("/healthz", summary="The process lives", response_model=dict[str, str])
    async def healthz() -> Response:
        """Always 200; needs no token."""
        return as_json({"status": "ok"})

    @router.get(
        "/readyz",
        summary="Index and models are warm",
        response_model=dict[str, str],
        responses={503: {}},
    )
    async def readyz() -> Response:
        """200, or 503 while the server starts or stops, or its index is damaged; needs no token."""
        status = (
            "ready"
            if service.ready
            else "starting"
            if service.snapshots.damage is None
            else "index damaged"
        )
        response = as_json({"status": status})
        if not service.ready:
            response.status_code = 503
            response.headers["Retry-After"] = str(RETRY_AFTER_S)
        return response

    @router.get("/metrics", summary="Figures for Prometheus", response_class=Response)
    async def metrics() -> Response:
        """Prometheus' text format."""
        return Response(service.metrics.text(), media_type=_PROMETHEUS)

    return router
