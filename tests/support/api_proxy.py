"""A reverse proxy in front of an API server that breaks connections and answers errors on demand."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from typing import Any

import aiohttp
from aiohttp import web

_GONE = {
    "type": "ERROR",
    "object": {"kind": "Status", "apiVersion": "v1", "code": 410, "reason": "Expired", "message": "too old"},
}


class ApiProxy:
    """Runs in a thread of its own; ``refuse`` answers that many requests with the status."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self.url = ""
        self.seen: Counter[str] = Counter()
        self.refusals: dict[str, int] = {}
        self._streams: set[web.StreamResponse] = set()
        self._requests: dict[web.StreamResponse, web.Request] = {}
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def refuse(self, status: int, times: int) -> None:
        self.refusals[str(status)] = times

    def reset_watches(self) -> int:
        """Cut every open watch without a goodbye; how many there were."""
        return asyncio.run_coroutine_threadsafe(self._reset(), self._loop).result(10)

    def expire_watches(self) -> int:
        """End every open watch with 410 Gone; how many there were."""
        return asyncio.run_coroutine_threadsafe(self._expire(), self._loop).result(10)

    def watches(self) -> int:
        return len(self._streams)

    def stop(self) -> None:
        """Nothing of it runs any more: a request that is left behind would fail in a later test."""
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        connector = aiohttp.TCPConnector(ssl=False, limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as self._client:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            self._ready.set()
            await self._over.wait()
            await runner.cleanup()

    async def _reset(self) -> int:
        streams = list(self._streams)
        for stream in streams:
            transport = self._requests[stream].transport
            if transport is not None:
                transport.abort()
        return len(streams)

    async def _expire(self) -> int:
        streams = list(self._streams)
        for stream in streams:
            await stream.write(json.dumps(_GONE).encode() + b"\n")
        return len(streams)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        watch = request.query.get("watch") == "true"
        self.seen["watch" if watch else request.method] += 1
        for status, left in self.refusals.items():
            if left > 0:
                self.refusals[status] = left - 1
                self.seen[status] += 1
                body = {"kind": "Status", "status": "Failure", "code": int(status), "message": "told to"}
                return web.json_response(body, status=int(status), headers={"Retry-After": "1"})
        skipped = {"host", "content-length", "transfer-encoding", "accept-encoding"}
        headers = {key: value for key, value in request.headers.items() if key.lower() not in skipped}
        options: dict[str, Any] = {"headers": headers, "data": await request.read() or None}
        timeout = aiohttp.ClientTimeout(total=None)
        url = f"{self._upstream}{request.rel_url}"
        async with self._client.request(request.method, url, timeout=timeout, **options) as answer:
            passed = {key: value for key, value in answer.headers.items() if key.lower() not in skipped}
            stream = web.StreamResponse(status=answer.status, headers=passed)
            await stream.prepare(request)
            await self._copy(request, answer, stream, watch=watch)
        return stream

    async def _copy(
        self, request: web.Request, answer: aiohttp.ClientResponse, stream: web.StreamResponse, *, watch: bool
    ) -> None:
        if watch:
            self._streams.add(stream)
            self._requests[stream] = request
        try:
            async for chunk in answer.content.iter_any():
                await stream.write(chunk)
            await stream.write_eof()
        finally:
            self._streams.discard(stream)
            self._requests.pop(stream, None)
