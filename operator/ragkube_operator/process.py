"""What the operator's process runs: it waits for the Lease, leads while it holds it, and gives it back."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

import structlog

from ragkube_operator import health, kube
from ragkube_operator.leader import Elector
from ragkube_operator.metrics import Metrics
from ragkube_operator.options import Options, operator_version
from ragkube_operator.term import Term

log = structlog.get_logger(__name__)


def start(options: Options) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: the cluster's address cannot be read.
    """
    _configure_logging(options.log_level)
    asyncio.run(_main(options))


def _configure_logging(level: int) -> None:
    """One JSON line per event on standard error; kopf speaks up only about trouble."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")


async def _main(options: Options) -> None:
    stop = asyncio.Event()
    listen_to_signals(stop)
    log.info(
        "operator_started",
        version=operator_version(),
        namespaces=options.namespaces or "all",
        lease=f"{options.lease.namespace}/{options.lease.name}" if options.lease else "none",
    )
    await run(options, stop)
    log.info("operator_stopped")


def listen_to_signals(stop: asyncio.Event) -> None:
    """SIGTERM and SIGINT set ``stop``."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


async def run(options: Options, stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set."""
    metrics, state = Metrics(), health.State()
    configuration = await kube.configuration(options.kubeconfig, options.kube_context)
    async with AsyncExitStack() as stack:
        elector = None
        if options.lease is not None:
            # a client of its own: renewing never waits behind the work
            client = await stack.enter_async_context(kube.connect(configuration, metrics))
            elector = Elector(client, options.lease, options.identity, metrics)
        fence = elector.fence if elector is not None else None
        worker = await stack.enter_async_context(kube.connect(configuration, metrics, fence))
        await stack.enter_async_context(health.serve(options, metrics, state))
        state.elector = elector
        term = Term(options, configuration, worker, metrics, state)
        if elector is None:
            metrics.leader.set(1)
            await term.run(stop, lambda: listen_to_signals(stop))
        else:
            await _serve(term, elector, stop)


async def _serve(term: Term, elector: Elector, stop: asyncio.Event) -> None:
    """One term of leadership after the other; whatever ends them, the Lease is given back."""
    try:
        while not stop.is_set() and await _unless(stop, elector.acquire()):
            await _lead(term, elector, stop)
    finally:
        await elector.release()


async def _lead(term: Term, elector: Elector, stop: asyncio.Event) -> None:
    over = asyncio.Event()
    # made before the term: kopf cancels every task that was made after it
    watchers = [
        asyncio.create_task(waiter)
        for waiter in (_then_set(elector.hold(), over), _then_set(stop.wait(), over))
    ]
    try:
        await term.run(over, lambda: listen_to_signals(stop))
    finally:
        for task in watchers:
            task.cancel()
        for ended in await asyncio.gather(*watchers, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended


async def _then_set(work: Coroutine[Any, Any, Any], event: asyncio.Event) -> None:
    try:
        await work
    finally:
        event.set()


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """False when ``stop`` was set before the work was done."""
    task, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if task.done():
        task.result()
        return True
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return False
