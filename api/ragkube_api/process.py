"""One process from settings to its end: the API, or the worker that keeps sources in a shared store."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import prometheus_client

from ragkube_api import runtime as composition
from ragkube_api.app import create_app, create_worker_app
from ragkube_api.context import Runtime
from ragkube_api.log_output import LogOutput
from ragkube_api.serving import listen, serve
from ragkube_api.settings import EmbeddedStore, Settings
from ragkube_api.telemetry import configure_logging, request_lines

# A request makes some hundred objects and leaves no cycles behind.
_COLLECT_AFTER = (20_000, 20, 20)
_SWITCH_SECONDS = 0.0005
"""A thread that embeds or writes lets requests go on after this, and they let it: 5 ms is Python's own."""


def run(settings: Settings, *, worker: bool) -> None:
    """Serve until a signal. Raises ``StartupError`` when it cannot begin."""
    output = configure_logging(settings.log)
    try:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        listener = listen(settings.server)
        with asyncio.Runner(loop_factory=_new_loop) as runner:
            runner.run(_main(settings, listener, output, worker=worker))
    finally:
        output.close()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # not on this platform
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def _main(settings: Settings, listener: socket.socket, output: LogOutput, *, worker: bool) -> None:
    async with AsyncExitStack() as stack:
        stack.callback(listener.close)
        runtime = await composition.build(settings, stack)
        runtime.telemetry.request_line = request_lines(settings.log, output) or runtime.telemetry.request_line
        # A store inside the process has no other owner that could fill it.
        own_store = isinstance(settings.store, EmbeddedStore)
        if worker or own_store or settings.documents.sync_in_api:
            await stack.enter_async_context(_in_background(runtime, runtime.sources.run(), "source_failed"))
        if not worker:
            await stack.enter_async_context(_in_background(runtime, runtime.asked.run(), "asked_not_counted"))
            await stack.enter_async_context(
                _in_background(runtime, runtime.counts.run(), "counts_not_shared")
            )
        app = create_worker_app(runtime) if worker else create_app(runtime)

        def started() -> None:
            host, port = listener.getsockname()[:2]
            runtime.telemetry.log.info(
                "started", url=f"http://{host}:{port}", role="worker" if worker else "api",
                store=settings.store.kind, cache=settings.cache.backend.kind,
                embedder=runtime.backends.embedder.name, llm=settings.llm.kind,
            )  # fmt: skip

        _settle()
        await serve(app, listener, settings.server, runtime.health, runtime.telemetry, started)
    runtime.telemetry.log.info("stopped")


def _settle() -> None:
    """What was loaded stays: the collector need not look at hundreds of thousands of objects while requests wait."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
    sys.setswitchinterval(_SWITCH_SECONDS)


@asynccontextmanager
async def _in_background(
    runtime: Runtime, work: Coroutine[Any, Any, None], event: str
) -> AsyncIterator[None]:
    """Work while the block runs; a fault there is logged and does not end the process."""
    task = asyncio.create_task(work)

    def ended(done: asyncio.Task[None]) -> None:
        if not done.cancelled() and done.exception() is not None:
            runtime.telemetry.log.error(event, exc_info=done.exception())

    task.add_done_callback(ended)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
