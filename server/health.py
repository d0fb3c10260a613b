"""Health checks and metrics: /healthz, /readyz and /metrics."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from imprompt.server.bodies import json_response
from imprompt.server.http_errors import RETRY_AFTER_S
from imprompt.server.service import Service

_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def routes(service: Service) -> APIRouter:
    """Return the routes /healthz, /readyz and /metrics."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="Liveness", response_model=dict[str, str])
    async def healthz() -> Response:
        """Return 200 as long as the process runs. Needs no token."""
        return json_response({"status": "ok"})

    @router.get("/readyz", summary="Readiness", response_model=dict[str, str], responses={503: {}})
    async def readyz() -> Response:
        """Return 200 when the index and the models are loaded. Needs no token.

        Returns 503 while the server starts or stops, and while its index is damaged.
        """
        if service.ready:
            return json_response({"status": "ready"})
        damaged = service.current.damage is not None
        response = json_response({"status": "index damaged" if damaged else "starting"})
        response.status_code = 503
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
        return response

    @router.get("/metrics", summary="Prometheus metrics", response_class=Response)
    async def metrics() -> Response:
        """Return the metrics in Prometheus' text format."""
        return Response(service.metrics.text(), media_type=_PROMETHEUS)

    return router
