"""What metrics and logs cost: the same uncached questions with them and without, in turns, in one process.

python -m bench.telemetry
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import threading
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from prometheus_client.metrics import MetricWrapperBase

from ragkube_api import runtime as composition
from ragkube_api.app import create_app
from ragkube_api.context import Runtime
from ragkube_api.settings import LogSettings, Settings
from ragkube_api.telemetry import configure_logging

ROOT = Path(__file__).resolve().parents[2]
QUESTIONS = ("Which file formats can be ingested?", "How do I rotate the administrator's key?")
QUESTIONS_ASKED = 2400
WARM_UP = 40
GATHER_SECONDS = 0.1
"""Lines are written a moment later."""
WANTED_SHARE = 0.02


class _Nothing:
    """Stands in for every metric and for the log."""

    def __getattr__(self, _: str) -> Any:
        return lambda *_, **__: self


def silence(runtime: Runtime) -> None:
    """Take metrics and logs out of a runtime, before anything is served."""
    telemetry, nothing = runtime.telemetry, _Nothing()
    for name, value in list(vars(telemetry).items()):
        if isinstance(value, MetricWrapperBase):
            setattr(telemetry, name, nothing)
    telemetry.log = nothing
    telemetry.request_line = lambda *_, **__: None


async def client(directory: Path, stack: AsyncExitStack, *, silent: bool) -> httpx2.AsyncClient:
    """An API over our own docs."""
    store = {"kind": "embedded", "path": str(directory / ("silent" if silent else "loud"))}
    runtime = await composition.build(Settings.model_validate({"store": store}), stack)
    if silent:
        silence(runtime)
    transport = httpx2.ASGITransport(app=create_app(runtime))
    found = httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080")
    await stack.enter_async_context(found)
    for page in sorted((ROOT / "docs").glob("*.md")):
        answer = await found.put(
            f"/v1/documents/{page.name}", content=page.read_bytes(), headers={"content-type": "text/markdown"}
        )
        answer.raise_for_status()
    return found


async def ask(api: httpx2.AsyncClient, number: int) -> float:
    """CPU seconds that the event loop spends on one uncached question."""
    question = {"question": QUESTIONS[number // 2 % len(QUESTIONS)]}
    started = time.thread_time()
    answer = await api.post("/v1/query", json=question, headers={"cache-control": "no-cache"})
    answer.raise_for_status()
    return time.thread_time() - started


def writer_seconds() -> float:
    """CPU seconds of the thread that writes the log, so far."""
    (writer,) = (thread for thread in threading.enumerate() if thread.name == "log")
    return time.clock_gettime(time.pthread_getcpuclockid(writer.ident or 0))


@dataclass(frozen=True)
class Cost:
    """CPU seconds of a question: of the whole process, and what telemetry adds in the loop and in the writer."""

    whole: float
    loop: float
    writer: float

    @property
    def share(self) -> float:
        """Of the whole."""
        return (self.loop + self.writer) / self.whole


async def measure() -> Cost:
    """The two APIs are asked in turns; the median of each counts."""
    times: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            apis = {silent: await client(Path(folder), stack, silent=silent) for silent in (True, False)}
            for number in range(WARM_UP):
                await ask(apis[number % 2 == 0], number)
            await asyncio.sleep(GATHER_SECONDS)
            started, written = time.process_time(), writer_seconds()
            for number in range(QUESTIONS_ASKED):
                silent = number % 2 == 0
                times[silent].append(await ask(apis[silent], number))
            await asyncio.sleep(GATHER_SECONDS)
            whole = (time.process_time() - started) / QUESTIONS_ASKED
            written = writer_seconds() - written
    added = statistics.median(times[False]) - statistics.median(times[True])
    return Cost(whole, added, written / len(times[False]))


def main() -> None:
    """Log lines go where a container's go, except that nobody keeps them."""
    shown = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    output = configure_logging(LogSettings(format="json"))
    cost = asyncio.run(measure())
    output.close()
    shown.write(
        f"an uncached question: {cost.whole * 1000:.2f} ms of CPU; metrics and logs: {cost.loop * 1e6:.0f} us in the "
        f"loop and {cost.writer * 1e6:.0f} us in the writer: {cost.share * 100:.1f} % "
        f"(wanted < {WANTED_SHARE * 100:.0f} %; {QUESTIONS_ASKED} questions)\n"
    )


if __name__ == "__main__":
    main()
