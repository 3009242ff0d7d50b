"""The HTTP application over a runtime. Nothing global: two applications in one process share nothing."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI

from ragkube_api import __version__, problems
from ragkube_api.context import Runtime
from ragkube_api.middleware import Gateway
from ragkube_api.routes import cache, documents, operations, query, reference, uploads


def create_app(runtime: Runtime) -> Gateway:
    """The API with all its routes."""
    routers = (
        query.router,
        uploads.router,
        documents.router,
        cache.router,
        operations.sources,
        operations.probes,
        reference.router,
    )
    return Gateway(_application(runtime, routers), runtime)


def create_worker_app(runtime: Runtime) -> Gateway:
    """Probes and metrics only, for a process that answers no questions."""
    return Gateway(_application(runtime, (operations.probes,)), runtime, questions=False)


def _application(runtime: Runtime, routers: tuple[APIRouter, ...]) -> FastAPI:
    app = FastAPI(
        title="ragkube",
        version=__version__,
        description="Questions answered from your own documents, with citations.",
        docs_url=None,  # FastAPI's page loads its script from the internet; ours needs none
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.runtime = runtime
    problems.install(app, runtime.telemetry)
    for router in routers:
        app.include_router(router)
    return app
