"""The operator's process: ``python -m ragkube_operator``; everything is set by the environment."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import kopf
import structlog
from aiohttp import web

from ragkube_operator import handlers, kube
from ragkube_operator.errors import ConfigurationError, KubeError
from ragkube_operator.metrics import Metrics
from ragkube_operator.reconciler import RAG_DEPLOYMENT, Key, Reconciler
from ragkube_operator.render import Context
from ragkube_operator.workers import Workers

log = structlog.get_logger(__name__)

_CRD_POLL_SECONDS = 2.0
_IDENTITY: Any = "ragkube-operator"
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


@dataclass(frozen=True)
class Options:
    """What the environment says (docs/operator.md lists the variables)."""

    kubeconfig: str | None
    kube_context: str | None
    namespaces: tuple[str, ...]
    api_image: str
    health_address: str
    metrics_host: str
    metrics_port: int
    log_level: int

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Options:
        """Check the environment.

        Raises:
            ConfigurationError: a variable cannot be used; the message names it.
        """
        level = environ.get("RAGKUBE_LOG_LEVEL", "info").lower()
        if level not in _LEVELS:
            raise ConfigurationError(f"RAGKUBE_LOG_LEVEL is {level!r}: use one of {', '.join(_LEVELS)}")
        host, _, port = environ.get("RAGKUBE_METRICS_ADDRESS", "0.0.0.0:9090").rpartition(":")
        if not port.isdigit():
            raise ConfigurationError("RAGKUBE_METRICS_ADDRESS is no HOST:PORT")
        names = environ.get("RAGKUBE_NAMESPACES", "")
        return cls(
            kubeconfig=environ.get("RAGKUBE_KUBECONFIG") or None,
            kube_context=environ.get("RAGKUBE_KUBE_CONTEXT") or None,
            namespaces=tuple(name.strip() for name in names.split(",") if name.strip()),
            api_image=environ.get("RAGKUBE_API_IMAGE") or f"ragkube/api:{operator_version()}",
            health_address=environ.get("RAGKUBE_HEALTH_ADDRESS", "0.0.0.0:8081"),
            metrics_host=host,
            metrics_port=int(port),
            log_level=_LEVELS[level],
        )


def operator_version() -> str:
    """The version of the installed package."""
    try:
        return version("ragkube")
    except PackageNotFoundError:
        return "0.1.0"


def configure_logging(level: int) -> None:
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


async def run(options: Options, stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set."""
    metrics = Metrics()
    configuration = await kube.configuration(options.kubeconfig, options.kube_context)
    context = Context(api_image=options.api_image, operator_version=operator_version())
    async with kube.connect(configuration, metrics) as client:
        if not await _wait_for_crd(client, stop):
            return
        workers = Workers[Key](Reconciler(client, metrics, context).reconcile, metrics)
        runner = await _serve_metrics(options, metrics)
        try:
            await kopf.operator(
                registry=handlers.registry(workers, partial(kube.credentials, configuration)),
                settings=handlers.settings(),
                # otherwise kopf asks for the user's name, which an arbitrary UID does not have
                identity=_IDENTITY,
                standalone=True,
                clusterwide=not options.namespaces,
                namespaces=options.namespaces,
                liveness_endpoint=f"http://{options.health_address}/healthz",
                stop_flag=stop,
            )
        finally:
            await workers.stop()
            await runner.cleanup()


async def _wait_for_crd(client: kube.Kube, stop: asyncio.Event) -> bool:
    """An operator that starts before its CRD waits for it instead of crashing."""
    told = False
    while not stop.is_set():
        try:
            if await client.serves(RAG_DEPLOYMENT, fresh=True):
                return True
            reason = "the CustomResourceDefinition is not installed"
        except KubeError as error:
            reason = str(error)
        if not told:
            log.warning("waiting_for_cluster", reason=reason)
            told = True
        await asyncio.sleep(_CRD_POLL_SECONDS)
    return False


async def _serve_metrics(options: Options, metrics: Metrics) -> web.AppRunner:
    async def exposition(_: web.Request) -> web.Response:
        return web.Response(body=metrics.exposition(), content_type="text/plain", charset="utf-8")

    app = web.Application()
    app.router.add_get("/metrics", exposition)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, options.metrics_host, options.metrics_port).start()
    return runner


async def _main(options: Options) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    log.info("operator_started", version=operator_version(), namespaces=options.namespaces or "all")
    await run(options, stop)
    log.info("operator_stopped")


def main() -> int:
    """Entry point of the operator's image."""
    try:
        options = Options.read(os.environ)
        configure_logging(options.log_level)
        asyncio.run(_main(options))
    except ConfigurationError as error:
        sys.stderr.write(f"ragkube-operator: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
