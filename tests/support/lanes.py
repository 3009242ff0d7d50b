"""Every way to a cached answer, as a server of its own over one runtime, and what was seen of a request that took it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import patch

from uvicorn.server import ServerState

from ragkube_api import runtime as composition
from ragkube_api import serving
from ragkube_api.adapters.wordllama_embedder import WordllamaEmbedder
from ragkube_api.app import create_app
from ragkube_api.context import Runtime
from ragkube_api.domain import Lookup
from ragkube_api.http_lane import LaneHttp
from ragkube_api.http_protocol import BoundedHttp
from ragkube_api.middleware import Gateway
from support.api import _load_once, settings_in
from support.trouble import Away

QUESTION = "How far away is the moon?"
KEYS = {"admin": "admin-key", "team": "team-key", "reader": "reader-key"}
Header = tuple[bytes, bytes]
Response = tuple[int, list[Header], Any]
Exchanged = tuple[list[int], list[Response]]
"""The numbers of interim responses, and the responses."""


@dataclass(frozen=True)
class Sent:
    """One request as it goes over the line, ``tail`` behind it; ``writes`` says in which pieces."""

    body: bytes | tuple[bytes, ...] = b""
    headers: tuple[tuple[str, str], ...] = ()
    method: str = "POST"
    path: str = "/v1/query"
    query: bytes = b""
    key: str | None = "admin"
    version: str = "1.1"
    writes: str = "at once"
    tail: bytes = b""

    def head(self) -> bytes:
        given = {name.lower() for name, _ in self.headers}
        headers = [(name, value.encode("latin-1")) for name, value in self.headers]
        if "host" not in given:
            headers.insert(0, ("Host", b"127.0.0.1:8080"))
        if self.key is not None:
            headers.append(("Authorization", f"Bearer {KEYS.get(self.key, self.key)}".encode()))
        if not given & {"content-length", "transfer-encoding"}:
            headers.append(("Content-Length", str(sum(map(len, self.pieces()))).encode()))
        target = self.path.encode() + (b"?" + self.query if self.query else b"")
        lines = [b"%b: %b\r\n" % (name.encode(), value) for name, value in headers]
        return b"%b %b HTTP/%b\r\n%b\r\n" % (
            self.method.encode(), target, self.version.encode(), b"".join(lines),
        )  # fmt: skip

    def pieces(self) -> list[bytes]:
        return [self.body] if isinstance(self.body, bytes) else list(self.body)

    def wire(self) -> list[bytes]:
        """The writes, each of which the server reads before the next."""
        pieces = self.pieces()
        if ("Transfer-Encoding", "chunked") in self.headers:
            pieces = [*(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece), b"0\r\n\r\n"]
        match self.writes:
            case "head first":
                return [self.head(), *pieces[:-1], pieces[-1] + self.tail]
            case "byte by byte":
                return [bytes([byte]) for byte in self.head() + b"".join(pieces) + self.tail]
            case _:
                return [self.head() + pieces[0], *pieces[1:-1], b"".join(pieces[1:][-1:]) + self.tail]


@dataclass
class Outcome:
    """What a request did: responses, metrics that changed, log lines; what differs each time is normalised."""

    interim: list[int]
    status: int
    headers: list[Header]
    body: Any
    more: list[tuple[int, list[Header], Any]]
    """Responses after the first."""
    metrics: dict[str, float]
    lines: list[list[tuple[str, Any]]]


class Lane:
    """A server of its own over the shared runtime, and what it was seen to do.

    ``fast``: with the lane in its protocol. ``below``: nothing is found in the process, all in the level below.
    ``foresees``: it takes every look-up for a miss.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        fast: bool,
        below: Callable[[Any], Any] | None = None,
        foresees: bool = False,
    ) -> None:
        self.runtime = runtime
        self.below = below
        self.app: Gateway = create_app(runtime)
        self.passed_on = 0
        self.state = ServerState()
        self.state.default_headers = [(b"date", b"today")]
        assert self.app.lane is not None
        if foresees:
            self.app.lane._foresight = Foresees()  # type: ignore[assignment]
        protocol = partial(LaneHttp, lane=self.app.lane, telemetry=runtime.telemetry) if fast else BoundedHttp
        self.config = serving.configured(self.app, protocol, runtime.settings.server)
        inner = self.app._app

        async def counted(scope: Any, receive: Any, send: Any) -> None:
            self.passed_on += 1
            await inner(scope, receive, send)

        self.app._app = counted

    async def start(self, stack: AsyncExitStack) -> None:
        self.config.load()

        def connection() -> asyncio.Protocol:
            made: Any = self.config.http_protocol_class
            protocol: asyncio.Protocol = made(config=self.config, server_state=self.state, app_state={})
            return protocol

        server = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0)
        self.address = server.sockets[0].getsockname()
        stack.callback(server.close)

    async def send(self, sent: Sent) -> Outcome:
        return await self.seen(partial(self._exchanged, sent))

    async def seen(self, exchange: Callable[[], Awaitable[Exchanged]]) -> Outcome:
        """What happens while that is done; the server has done with its connections at the end."""
        lines: list[dict[str, Any]] = []
        telemetry, answering = self.runtime.telemetry, self.runtime.answering

        def line(fields: Mapping[str, Any], *, quiet: bool) -> None:
            lines.append({**fields, "quiet": quiet})

        before, busy = _metrics(telemetry), self.app._visits.busy
        cache = answering._cache if self.below is None else self.below(answering._cache)
        with (
            patch.object(telemetry, "request_line", line),
            patch.object(telemetry, "log", _Log(lines)),
            patch.object(answering, "_cache", cache),
        ):
            interim, responses = await exchange()
            await until(lambda: not (self.state.connections or self.state.tasks))
        assert self.app._visits.busy == busy, "nobody is left"
        (status, headers, body), *more = responses or [(0, [], "")]
        return Outcome(
            interim, status, headers, body, more, _changed(before, _metrics(telemetry)),
            [_normal_line(each) for each in lines],
        )  # fmt: skip

    async def _exchanged(self, sent: Sent) -> Exchanged:
        """All responses."""
        reader, writer = await asyncio.open_connection(*self.address[:2])
        for piece in sent.wire():
            writer.write(piece)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        found: list[tuple[int, list[Header], Any]] = []
        interim: list[int] = []
        wanted = 1 + sent.tail.count(b" HTTP/1.1\r\n")
        while len(found) < wanted:
            status, headers, body = await response(reader, sent.method)
            if status == 100:
                interim.append(status)
                continue
            found.append(normal(status, headers, body))
            if (b"connection", b"close") in headers:
                assert await reader.read() == b"", "closed, as it said"
                break
        writer.close()
        return interim, found


async def until(holds: Callable[[], Any], *, seconds: float = 60) -> None:
    """Of what happens inside the server, which tells nobody."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - there is nothing to wait on
            await asyncio.sleep(0.001)


async def response(reader: asyncio.StreamReader, method: str) -> tuple[int, list[Header], bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head[:-4].split(b"\r\n")
    headers = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
    size = 0 if method == "HEAD" else int(dict(headers).get(b"content-length", 0))
    return int(first.split()[1]), headers, await reader.readexactly(size)


class _Log:
    """A logger that notes what it is told."""

    def __init__(self, lines: list[dict[str, Any]]) -> None:
        self._lines = lines

    def __getattr__(self, level: str) -> Any:
        return lambda event, **fields: self._lines.append({"event": event, "level": level, **fields})


def _metrics(telemetry: Any) -> dict[str, float]:
    samples = (sample for family in telemetry.registry.collect() for sample in family.samples)
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for sample in samples
        if sample.name.startswith("rag_") and not sample.name.endswith(("_bucket", "_sum", "_created"))
    }


def _changed(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {
        name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)
    }


def normal(status: int, headers: list[Header], body: bytes) -> Response:
    return status, [_normal_header(*pair) for pair in headers], _normal_body(body)


def _normal_header(name: bytes, value: bytes) -> Header:
    if name == b"x-trace-id":
        assert re.fullmatch(rb"[0-9a-f]{32}", value)
        value = b"TRACE"
    # the numbers in the body have as many digits as they need
    return name, b"SIZE" if name == b"content-length" else value


def _normal_body(body: bytes) -> Any:
    """As text, so that the order and the way of writing count too."""
    text = body.decode()
    text = re.sub(r'"(trace_id|id)":"[0-9a-f]{32,48}"', r'"\1":"ID"', text)
    return re.sub(r'"(latency_ms|age_s)":[0-9.]+', r'"\1":0', text)


def _normal_line(line: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name, 0 if name in {"latency_ms", "trace_id"} else value) for name, value in line.items()]


class Lanes:
    """A runtime with documents, cached answers and keys, and all ways through it."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.slow, self.shared = Lane(runtime, fast=False), Lane(runtime, fast=True, below=Shared)
        self.fast, self.asked = Lane(runtime, fast=True), Lane(runtime, fast=True, below=Asked)
        self.foreseen = Lane(runtime, fast=True, below=Asked, foresees=True)
        self.all = (self.slow, self.shared, self.asked, self.foreseen, self.fast)

    async def same(self, sent: Sent) -> Outcome:
        """The outcome, which must be one and the same. Each way goes twice: the first may find nothing cached."""
        return (await self._seen(sent))[0]

    async def is_fast(self, sent: Sent) -> bool:
        """Whether the answer came past the application, from every level."""
        _, passed_on = await self._seen(sent)
        assert passed_on in ({0}, {1}), "all levels are fast, or none is"
        return passed_on == {0}

    async def _seen(self, sent: Sent) -> tuple[Outcome, set[int]]:
        for lane in self.all:
            await lane.send(sent)
        before = [lane.passed_on for lane in self.all]
        slow, *others = [await lane.send(sent) for lane in self.all]
        for other in others:
            assert other == slow, sent
        passed_on = [lane.passed_on - earlier for lane, earlier in zip(self.all, before, strict=True)]
        return slow, set(passed_on[1:])


async def opened(folder: Path, stack: AsyncExitStack, **parts: Any) -> Lanes:
    (folder / "admin").write_text(KEYS["admin"])
    rows = [("team", "writer", "acme"), ("reader", "reader", None)]
    keys = [
        {"name": name, "sha256": sha256(KEYS[name].encode()).hexdigest(), "role": role, "tenant": tenant}
        for name, role, tenant in rows
    ]
    (folder / "keys.json").write_text("\n".join(map(json.dumps, keys)))
    auth = {
        "mode": "api-key",
        "admin_key_file": str(folder / "admin"),
        "keys_file": str(folder / "keys.json"),
    }
    chosen = settings_in(folder, **{"auth": auth, **parts})
    with patch.object(WordllamaEmbedder, "load", _load_once):
        runtime = await composition.build(chosen, stack)
    lanes = Lanes(runtime)
    for lane in lanes.all:
        await lane.start(stack)
    for tenant in ("default", "acme"):
        document = Sent(
            b"The moon is 384,400 kilometres away.",
            (("X-Ragkube-Tenant", tenant),),
            "PUT",
            "/v1/documents/moon.txt",
        )
        assert (await lanes.slow.send(document)).status == 201
    return lanes


def question(**fields: Any) -> bytes:
    return json.dumps({"question": QUESTION, **fields}).encode()


class Foresees:
    """Nothing but misses."""

    miss = True

    def learn(self, *, missed: bool) -> None:
        """Nothing."""


class Shared(Away):
    """A cache without a level in the process."""

    def peek(self, *_: Any) -> None:
        return None


class Asked(Shared):
    """One that can be asked without a task, as over Redis; its reply comes a few turns of the loop later."""

    def ask(self, tenant: str, key: Any, beside: Any, deliver: Any) -> bool:
        async def later() -> None:
            for _ in range(3):
                await asyncio.sleep(0)
            deliver(await self.lookup(tenant, key, beside))

        self.asking = asyncio.create_task(later())
        return True

    async def lookup(self, tenant: str, key: Any, beside: Any = None) -> Lookup:
        found: Lookup = await self.inner.lookup(tenant, key, beside)
        return found
