"""Probes, metrics and the progress of sources."""

from __future__ import annotations

import dataclasses
from typing import Any

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import JSONResponse, Response

from ragkube_api.routes.documentation import PROBLEMS
from ragkube_api.routes.request import AppRuntime, Caller, ReadTenant
from ragkube_api.schemas import AliveBody, ReadyBody, SourcesBody

probes = APIRouter(tags=["operations"])
sources = APIRouter(tags=["operations"])


@probes.get("/healthz", summary="Is the process alive?", response_model=AliveBody)
async def healthz() -> dict[str, str]:
    """Always 200 while the process runs."""
    return {"status": "alive"}


@probes.get(
    "/readyz",
    summary="Does it serve?",
    response_model=ReadyBody,
    responses={503: {"model": ReadyBody, "description": "Not ready, or draining before the end."}},
)
async def readyz(runtime: AppRuntime) -> Response:
    """Each dependency; 503 until the store has answered once, without the key, and before the process ends.

    When the store goes away later this stays 200 with status ``degraded``: cached answers go on.
    """
    report = await runtime.health.report()
    return JSONResponse(dataclasses.asdict(report), status_code=200 if report.ready else 503)


@probes.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
async def metrics(runtime: AppRuntime) -> Response:
    """Text exposition of every metric; dependencies are asked first."""
    await runtime.health.report()
    return Response(generate_latest(runtime.telemetry.registry), media_type=CONTENT_TYPE_LATEST)


@sources.get(
    "/v1/sources",
    summary="Progress of the configured sources",
    response_model=SourcesBody,
    responses=PROBLEMS,
)
async def list_sources(runtime: AppRuntime, _tenant: ReadTenant, caller: Caller) -> dict[str, Any]:
    """One entry per source, with the files that could not be indexed; a key of one tenant sees only its sources."""
    return {"sources": [status.as_json() for status in await runtime.sources.statuses(caller.tenant)]}
