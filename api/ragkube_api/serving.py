"""Serves an application until a signal says otherwise, and then loses no request.

SIGTERM: not ready at once, go on for ``drain_seconds`` while load balancers look away, then finish what runs.
SIGINT (somebody at a terminal), or a second signal: stop listening, finish what runs within a moment.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn

from ragkube_api.errors import StartupError
from ragkube_api.http_lane import LaneHttp
from ragkube_api.http_protocol import BoundedHttp
from ragkube_api.middleware import Gateway
from ragkube_api.services.health import Health
from ragkube_api.settings import ServerSettings
from ragkube_api.telemetry import Telemetry

_INTERRUPT_GRACE_SECONDS = 1
_BACKLOG = 2048
# Longer than proxies and clients keep an idle connection, so that it is they who close it.
_KEEP_ALIVE_SECONDS = 75


def listen(settings: ServerSettings) -> socket.socket:
    """Take the port before anything else is opened; raises ``StartupError`` when it cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        where = f"{settings.host}:{settings.port}"
        raise StartupError(f"Cannot listen on {where}: {error.strerror}.") from error
    listener.setblocking(False)
    return listener


async def serve(
    app: Gateway,
    listener: socket.socket,
    settings: ServerSettings,
    health: Health,
    telemetry: Telemetry,
    on_started: Callable[[], None],
) -> None:
    """Return when the process has been asked to end and every request is answered."""
    protocol = BoundedHttp if app.lane is None else partial(LaneHttp, lane=app.lane, telemetry=telemetry)
    config = configured(app, protocol, settings)
    server = _Server(config, settings, health, telemetry, on_started)
    await server.serve(sockets=[listener])


def configured(app: Gateway, protocol: Any, settings: ServerSettings) -> uvicorn.Config:
    """How the server works; ``protocol`` makes what speaks HTTP on a connection."""
    return uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_whole(settings.grace_seconds),
    )


class _Server(uvicorn.Server):
    def __init__(
        self,
        config: uvicorn.Config,
        settings: ServerSettings,
        health: Health,
        telemetry: Telemetry,
        on_started: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._settings = settings
        self._health = health
        self._telemetry = telemetry
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals in the loop, and do not raise them again at the end: the exit is a clean one."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _on_signal(self, number: signal.Signals) -> None:
        first = not self._health.draining
        self._health.draining = True
        drain = self._settings.drain_seconds if first and number == signal.SIGTERM else 0.0
        if number == signal.SIGINT or not first:
            self.config.timeout_graceful_shutdown = _INTERRUPT_GRACE_SECONDS
        if drain:
            asyncio.get_running_loop().call_later(drain, self._end)
        else:
            self._end()
        # Last, because it fails when nobody reads standard output any more.
        self._telemetry.log.info("stopping", signal=number.name, drain_seconds=drain)

    def _end(self) -> None:
        self.should_exit = True


def _whole(seconds: float) -> int:
    return max(1, round(seconds))
