"""What the operator makes of whatever answers at the address of a Prometheus."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from ragkube_operator import probes
from ragkube_operator.status import Part, Reason

Ask = Callable[[int, Any], Awaitable[Part]]


@pytest.fixture
async def ask() -> AsyncIterator[Ask]:
    """``await ask(status, body)``: the condition when that is what it answers."""
    runners: list[web.AppRunner] = []

    async def probe(status: int, body: Any) -> Part:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(status=status, text=body if isinstance(body, str) else json.dumps(body))

        app = web.Application()
        app.router.add_get("/api/v1/query", answer)
        runner = web.AppRunner(app)
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return await probes.prometheus(f"http://127.0.0.1:{runner.addresses[0][1]}", "up")

    yield probe
    for runner in runners:
        await runner.cleanup()


@pytest.mark.proves("K8")
@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (200, {"status": "success", "data": {"result": [{"value": [0, "1"]}]}}, Reason.REACHABLE),
        (200, {"status": "success", "data": {"result": []}}, Reason.NOT_SCRAPED),
        (200, {"status": "success"}, Reason.UNREACHABLE),
        (200, {"status": "success", "data": []}, Reason.UNREACHABLE),
        (200, {"status": "success", "data": {"result": None}}, Reason.UNREACHABLE),
        (200, ["success"], Reason.UNREACHABLE),
        (200, "<html>", Reason.UNREACHABLE),
        (404, "", Reason.UNREACHABLE),
    ],
)
async def test_only_a_prometheus_is_taken_for_one(ask: Ask, status: int, body: Any, reason: Reason) -> None:
    part = await ask(status, body)
    assert (part.ready, part.reason) == (reason is Reason.REACHABLE, reason)
    assert "http://127.0.0.1" in part.message
