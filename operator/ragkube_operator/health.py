"""What the kubelet and Prometheus ask the operator: ``/healthz``, ``/readyz`` and ``/metrics``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic

from aiohttp import web

from ragkube_operator.leader import Elector
from ragkube_operator.metrics import Metrics
from ragkube_operator.options import Options

SILENT_SECONDS = 30.0
"""An instance that has not heard of the API server for so long is not ready."""


@dataclass
class State:
    """What readiness depends on."""

    elector: Elector | None = None
    leading: bool = False
    trouble: str = "starting"
    """Why an instance that leads does not work yet; empty when it does."""

    def problem(self) -> str:
        """Why the instance is not ready; empty when it is. One that stands by is ready to take over."""
        if self.elector is not None and monotonic() - self.elector.answered > SILENT_SECONDS:
            return "the API server does not answer"
        must_work = self.leading or self.elector is None
        return self.trouble if must_work else ""


@asynccontextmanager
async def serve(options: Options, metrics: Metrics, state: State) -> AsyncIterator[None]:
    """Listen until the end."""

    async def exposition(_: web.Request) -> web.Response:
        return web.Response(body=metrics.exposition(), content_type="text/plain", charset="utf-8")

    async def alive(_: web.Request) -> web.Response:
        return web.json_response({"leading": state.leading})

    async def ready(_: web.Request) -> web.Response:
        problem = state.problem()
        body = {"leading": state.leading, "problem": problem or None}
        return web.json_response(body, status=503 if problem else 200)

    runners = [
        await _listen(options.metrics_host, options.metrics_port, web.get("/metrics", exposition)),
        await _listen(
            options.health_host, options.health_port, web.get("/healthz", alive), web.get("/readyz", ready)
        ),
    ]
    try:
        yield
    finally:
        for runner in runners:
            await runner.cleanup()


async def _listen(host: str, port: int, *routes: web.RouteDef) -> web.AppRunner:
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner
