"""Load on one server from another core: as fast as it goes with wrk, and at a given pace with our own generator."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

CONNECTIONS = 32
_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


@dataclass(frozen=True)
class Target:
    """One server with the requests that it is sent in turn."""

    port: int
    path: str
    bodies: Sequence[bytes]
    headers: dict[str, str]

    def requests(self) -> list[bytes]:
        """As they go over the line."""
        head = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        return [
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode()
            + body
            for body in self.bodies
        ]


@dataclass(frozen=True)
class Figures:
    """Requests a second, answers that were no 200, and milliseconds."""

    rate: float
    failed: int
    p50: float
    p99: float


def generator() -> str:
    """What ``flood`` uses."""
    return "wrk" if shutil.which("wrk") else "own (asyncio)"


def flood(target: Target, seconds: float, *, core: int | None, folder: Path) -> Figures:
    """As fast as it goes over ``CONNECTIONS`` connections that are kept."""
    if generator() != "wrk":
        return paced(target, None, seconds, core=core)
    script = folder / "requests.lua"
    script.write_text(_lua(target))
    url = f"http://127.0.0.1:{target.port}{target.path}"
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s", "--latency", "-s", str(script), url]
    text = subprocess.run(_pinned(command, core), capture_output=True, text=True, check=True).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    assert rate is not None, text
    return Figures(float(rate[1]), int(failed[1]) if failed else 0, _latency(text, 50), _latency(text, 99))


def _lua(target: Target) -> str:
    headers = "".join(f"wrk.headers[{json.dumps(n)}] = {json.dumps(v)}\n" for n, v in target.headers.items())
    bodies = ", ".join("[==[" + body.decode() + "]==]" for body in target.bodies)
    return (
        f'wrk.method = "POST"\n{headers}local bodies = {{{bodies}}}\nlocal made, turn = {{}}, 0\n'
        "init = function() for i, body in ipairs(bodies) do"
        " made[i] = wrk.format(nil, nil, nil, body) end end\n"
        "request = function() turn = turn % #made + 1 return made[turn] end\n"
    )


def _latency(text: str, percent: int) -> float:
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m)", text, re.MULTILINE)
    return float(found[1]) * _UNITS[found[2]] if found else float("nan")


def paced(target: Target, rate: float | None, seconds: float, *, core: int | None) -> Figures:
    """At ``rate`` requests a second, timed from when each was due: a late server cannot hide (None: no pace)."""
    job = {"port": target.port, "path": target.path, "headers": target.headers, "rate": rate, "seconds": seconds,
           "bodies": [body.decode() for body in target.bodies]}  # fmt: skip
    command = _pinned([sys.executable, "-m", "bench.cache_load"], core)
    done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, check=True)
    return Figures(**json.loads(done.stdout))


def _pinned(command: list[str], core: int | None) -> list[str]:
    return command if core is None else ["taskset", "-c", str(core), *command]


class _Client(asyncio.Protocol):
    """One connection with one request on its way at most."""

    def __init__(self) -> None:
        self.reply: asyncio.Future[bool] | None = None
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def send(self, request: bytes) -> asyncio.Future[bool]:
        self.reply = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.reply

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if end and length and len(body) >= int(length[1]) and self.reply and not self.reply.done():
            self._data = b""
            self.reply.set_result(head.startswith(b"HTTP/1.1 200"))


async def _run(target: Target, rate: float | None, seconds: float) -> Figures:
    loop = asyncio.get_running_loop()
    requests = target.requests()
    idle: asyncio.Queue[_Client] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        _, client = await loop.create_connection(_Client, "127.0.0.1", target.port)
        idle.put_nowait(client)
    times: list[float] = []
    failed = 0

    async def one(client: _Client, number: int, due: float) -> None:
        nonlocal failed
        failed += not await client.send(requests[number % len(requests)])
        times.append(time.perf_counter() - due)
        idle.put_nowait(client)

    began, number, tasks = time.perf_counter(), 0, set[asyncio.Task[None]]()
    while (now := time.perf_counter()) - began < seconds:
        due = now if rate is None else began + number / rate
        if due > now:
            await asyncio.sleep(due - now)
        task = loop.create_task(one(await idle.get(), number, due if rate else time.perf_counter()))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        number += 1
    await asyncio.gather(*tasks)
    times.sort()
    return Figures(
        number / (time.perf_counter() - began), failed, times[len(times) // 2] * 1000,
        times[int(len(times) * 0.99)] * 1000,
    )  # fmt: skip


def main() -> None:
    """The generator's own process: a job on standard input, figures on standard output."""
    import uvloop

    job = json.load(sys.stdin)
    target = Target(job["port"], job["path"], [body.encode() for body in job["bodies"]], job["headers"])
    figures = uvloop.run(_run(target, job["rate"], job["seconds"]))
    print(json.dumps(figures.__dict__))


if __name__ == "__main__":
    main()
