"""A client that counts: asks all the time, through kept connections, until it is told to stop; prints JSON lines.

``KEY=… python load_client.py URL --workers 16 --rate 0 --unique``: workers that ask one after the other, or (``--rate``) questions
a second whatever the answers take; ``--unique``: none twice, ``--different 600``: so many, again and again. A connection that cannot be opened was no request: it is tried again, elsewhere.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from itertools import count

import aiohttp

_CONNECT_SECONDS = 1.0
_READ_SECONDS = 60.0
_TRIES = 40
_PAUSE_SECONDS = 0.1


class Client:
    """Asks and counts: answers by status, and every failure with its moment."""

    def __init__(self, url: str, key: str, different: int) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._different = different
        self._number = count()
        self.stop = asyncio.Event()
        self.answers: Counter[str] = Counter()
        self.slowest = 0.0

    async def ask(self, session: aiohttp.ClientSession) -> None:
        text = f"When does train {next(self._number) % self._different} leave?"
        started = time.monotonic()
        outcome = await self._send(session, {"question": text})
        self.slowest = max(self.slowest, time.monotonic() - started)
        self.answers[outcome] += 1
        if outcome != "200":
            print(json.dumps({"failed": outcome, "at": time.time()}), flush=True)

    async def _send(self, session: aiohttp.ClientSession, body: dict[str, str]) -> str:
        for _ in range(_TRIES):
            try:
                async with session.post(f"{self._url}/v1/query", json=body, headers=self._headers) as answer:
                    await answer.read()
                    return str(answer.status)
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
                await asyncio.sleep(_PAUSE_SECONDS)  # nothing was sent
            except (aiohttp.ClientError, TimeoutError) as error:
                return type(error).__name__
        return "unconnected"

    async def work(self, session: aiohttp.ClientSession) -> None:
        while not self.stop.is_set():
            await self.ask(session)

    async def pace(self, session: aiohttp.ClientSession, rate: float) -> None:
        """Open loop: a question every 1/rate seconds."""
        async with asyncio.TaskGroup() as group:
            due = time.monotonic()
            while not self.stop.is_set():
                group.create_task(self.ask(session))
                due += 1 / rate
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, due - time.monotonic())):
                        await self.stop.wait()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--patience", type=float, default=_READ_SECONDS, help="seconds for an answer")
    parser.add_argument("--different", type=int, default=1, help="questions, one after the other, then again")
    parser.add_argument("--unique", dest="different", action="store_const", const=sys.maxsize)
    options = parser.parse_args()
    client = Client(options.url, os.environ["KEY"], options.different)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, client.stop.set)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=options.patience)
    connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=1)
    async with (
        aiohttp.ClientSession(timeout=timeout, connector=connector) as session,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(options.workers):
            group.create_task(client.work(session))
        if options.rate:
            group.create_task(client.pace(session, options.rate))
    print(json.dumps({"answers": client.answers, "slowest": round(client.slowest, 2)}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
