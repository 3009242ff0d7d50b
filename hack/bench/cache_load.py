"""Load on one server from another core: as fast as it goes with wrk, and at a given pace with our own generator."""

from __future__ import annotations

import gc
import json
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

CONNECTIONS = 32
_LENGTH = re.compile(rb"(?i)content-length: (\d+)")
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
    """Requests a second, answers that were no 200, and milliseconds; ``late`` is how late the generator itself was."""

    rate: float
    failed: int
    p50: float
    p99: float
    late: float = float("nan")
    """Of a hundredth of the requests at least: its connections were all busy, or it did not get its core."""


def generator() -> str:
    """What ``flood`` uses."""
    return "wrk" if shutil.which("wrk") else "own (select)"


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


def first(processes: Iterable[int], priority: int = 1) -> bool:
    """Let these run before everything else on their cores, until ``as_others``; False where that is not allowed.

    Of those on one core the higher ``priority`` goes first.
    """
    return _scheduled(processes, os.SCHED_FIFO, priority)


def as_others(processes: Iterable[int]) -> None:
    """Take that back."""
    _scheduled(processes, os.SCHED_OTHER, 0)


def _scheduled(processes: Iterable[int], policy: int, priority: int) -> bool:
    threads = [int(each.name) for process in processes for each in Path(f"/proc/{process}/task").iterdir()]
    try:
        for thread in threads:
            os.sched_setscheduler(thread, policy, os.sched_param(priority))
    except PermissionError:
        return False
    return True


def _pinned(command: list[str], core: int | None) -> list[str]:
    return command if core is None else ["taskset", "-c", str(core), *command]


class _Client:
    """One connection with one request on its way at most."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self._data = b""

    def send(self, request: bytes, due: float) -> None:
        self.due = due
        self.socket.sendall(request)

    def received(self) -> bool | None:
        """Whether the answer is a 200; None while it is not whole."""
        data = self._data = self._data + self.socket.recv(65536)
        if not data:
            raise ConnectionError("the server has closed a connection")
        end = data.find(b"\r\n\r\n")
        length = _LENGTH.search(data) if end >= 0 else None
        if length is None or len(data) < end + 4 + int(length[1]):
            return None
        self._data = b""
        return data.startswith(b"HTTP/1.1 200")


def _run(target: Target, rate: float | None, seconds: float) -> Figures:
    """``select`` wakes within microseconds of the moment that the next request is due; timers of event loops take a millisecond."""
    requests = target.requests()
    clients = {client.socket: client for client in (_Client(target.port) for _ in range(CONNECTIONS))}
    idle, busy = deque(clients.values()), set[socket.socket]()
    times: list[float] = []
    late: list[float] = []
    failed = number = 0
    began = now = time.perf_counter()
    while busy or now - began < seconds:
        while idle and now - began < seconds:
            due = now if rate is None else began + number / rate
            if due > now:
                break
            client = idle.popleft()
            late.append(time.perf_counter() - due)
            client.send(requests[number % len(requests)], due)
            busy.add(client.socket)
            number += 1
            now = time.perf_counter()
        pause = max(0.0, began + number / rate - now) if rate is not None and idle else None
        readable, _, _ = select.select(busy, (), (), 1.0 if pause is None else pause)
        for one in readable:
            client = clients[one]
            fine = client.received()
            if fine is not None:
                times.append(time.perf_counter() - client.due)
                failed += not fine
                busy.discard(one)
                idle.append(client)
        now = time.perf_counter()
    return Figures(
        number / (now - began), failed, _share(times, 0.5), _share(times, 0.99), _share(late, 0.99)
    )


def _share(seconds: list[float], part: float) -> float:
    """Milliseconds that this part of them does not exceed."""
    return sorted(seconds)[int(len(seconds) * part)] * 1000


def main() -> None:
    """The generator's own process: a job on standard input, figures on standard output."""
    job = json.load(sys.stdin)
    target = Target(job["port"], job["path"], [body.encode() for body in job["bodies"]], job["headers"])
    gc.disable()
    if job["rate"] is not None:
        first([os.getpid()])  # what shares its core would make every answer seem late
    figures = _run(target, job["rate"], job["seconds"])
    print(json.dumps(figures.__dict__))


if __name__ == "__main__":
    main()
