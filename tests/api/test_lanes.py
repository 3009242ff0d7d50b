"""All ways to a cached answer do the same: every shape of request goes over a socket through each, nothing may differ."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragkube_api.domain import Lookup
from ragkube_api.errors import DeadlineExceededError, StoreUnavailableError
from support.lanes import KEYS, QUESTION, Lanes, Sent, Shared, opened, question
from support.trouble import Away

pytestmark = pytest.mark.usefixtures("patience")


def raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


Q = f'"question": "{QUESTION}"'
BODIES: dict[str, bytes | tuple[bytes, ...]] = {
    "plain": question(),
    "every field": question(k=3, alpha=0.25, filters={"lang": "en"}, model=None),
    "tags": question(tags=["release:7"]),
    "bad tag": question(tags=["?"]),
    "tag of ours": question(tags=["class:x"]),
    "tag number": question(tags=[1]),
    "17 tags": question(tags=[f"t{n}" for n in range(17)]),
    "tags null": question(tags=None),
    "no tags": question(tags=[]),
    "k as text": question(k="3"), "k as float": question(k=3.0), "k true": question(k=True), "k 0": question(k=0),
    "k 21": question(k=21), "k null": question(k=None), "k huge": raw(f"{{{Q}, \"k\": {10**40}}}"),
    "alpha 1": question(alpha=1), "alpha 0": question(alpha=0), "alpha -0.0": raw(f'{{{Q}, "alpha": -0.0}}'),
    "alpha 2": question(alpha=2), "alpha true": question(alpha=True), "alpha text": question(alpha="0.5"),
    "alpha null": question(alpha=None), "alpha NaN": raw(f'{{{Q}, "alpha": NaN}}'),
    "alpha Infinity": raw(f'{{{Q}, "alpha": Infinity}}'), "alpha tiny": raw(f'{{{Q}, "alpha": 1e-400}}'),
    "alpha huge": raw(f'{{{Q}, "alpha": 1e400}}'), "alpha exponent": raw(f'{{{Q}, "alpha": 5E-1}}'),
    "filters empty": question(filters={}), "filters null": question(filters=None), "filters list": question(filters=[]),
    "filter int": question(filters={"year": 2024}), "filter bool": question(filters={"draft": False}),
    "filter float": question(filters={"v": 1.5}), "filter list": question(filters={"lang": ["en", "de"]}),
    "filter empty list": question(filters={"lang": []}), "filter null": question(filters={"lang": None}),
    "filter nested": question(filters={"lang": {"a": 1}}), "filter empty name": question(filters={"": 1}),
    "filter long name": question(filters={"x" * 65: 1}), "filter long text": question(filters={"x": "y" * 1025}),
    "filter longest": question(filters={"x" * 64: "y" * 1024}), "filter NaN": raw(f'{{{Q}, "filters": {{"a": NaN}}}}'),
    "filter 2^63": question(filters={"a": 2**63}), "filter 2^63-1": question(filters={"a": 2**63 - 1}),
    "filter -2^63": question(filters={"a": -(2**63)}), "filter 10^30": question(filters={"a": 10**30}),
    "16 filters": question(filters={f"f{n}": n for n in range(16)}),
    "17 filters": question(filters={f"f{n}": n for n in range(17)}),
    "model unknown": question(model="gpt"), "model empty": question(model=""), "model long": question(model="m" * 201),
    "model number": question(model=1), "unknown field": question(stream=False), "unknown null": question(x=None),
    "question twice": raw(f'{{"question": "Something else entirely?", {Q}}}'),
    "question twice, other way": raw(f'{{{Q}, "question": "Something else entirely?"}}'),
    "k twice": raw(f'{{{Q}, "k": 99, "k": 3}}'), "k twice, other way": raw(f'{{{Q}, "k": 3, "k": 99}}'),
    "filter twice": raw(f'{{{Q}, "filters": {{"a": 1, "a": 2}}}}'),
    "no question": b"{}", "question null": b'{"question": null}', "question number": b'{"question": 5}',
    "question list": b'{"question": ["How far?"]}', "question short": b'{"question": "ab"}',
    "question blank": b'{"question": "        "}', "question 3": b'{"question": "abc"}',
    "question 1000": json.dumps({"question": "a" * 1000}).encode(),
    "question 1001": json.dumps({"question": "a" * 1001}).encode(),
    "question with space": json.dumps({"question": f"  {QUESTION.replace(' ', '   ')}\n\t"}).encode(),
    "question wide space": json.dumps({"question": QUESTION.replace(" ", "\u2003")}).encode(),
    "question NFD": json.dumps({"question": "Wie weit ist der Mond fu\u0308r uns?"}).encode(),
    "question NFC": json.dumps({"question": "Wie weit ist der Mond f\u00fcr uns?"}).encode(),
    "question shrinks": json.dumps({"question": "e\u0301" * 999}).encode(),
    "question emoji": json.dumps({"question": "Where is the 🌕?"}, ensure_ascii=False).encode(),
    "question NUL": json.dumps({"question": "How\u0000far?"}).encode(),
    "question lone surrogate": b'{"question": "How \\ud800 far?"}',
    "question raw surrogate": raw('{"question": "How \ud800 far?"}'),
    "question latin-1": '{"question": "Für uns?"}'.encode("latin-1"), "question escaped": b'{"question": "How \\u0066ar?"}',
    "question bad escape": b'{"question": "How \\x far?"}', "question control": b'{"question": "How\nfar is it?"}',
    "byte order mark": b"\xef\xbb\xbf" + question(), "utf-16": question().decode().encode("utf-16"),
    "spaces around": b" \n\t" + question() + b"\r\n ", "two values": question() + question(), "comma": question() + b",",
    "trailing comma": raw(f"{{{Q},}}"), "single quotes": b"{'question': 'How far?'}", "comment": raw(f"{{{Q} /* */}}"),
    "cut": question()[:-1], "empty": b"", "blank": b"  ", "null": b"null", "list": b"[]", "text": b'"How far?"',
    "number": b"1", "deep": b'{"question": ' + b"[" * 5000, "in pieces": (question()[:7], question()[7:]),
    "empty first": (b"", question()), "empty last": (question(), b""), "too large": b'{"question": "' + b"a" * 70_000 + b'"}',
    "large": json.dumps({"question": QUESTION + " " * 20_000}).encode(),
}  # fmt: skip


# Bodies that the lane understands, and that are answered or refused past the application; every other one goes on to it.
FAST = {
    "plain", "tags", "no tags", "k null", "alpha null", "alpha 0", "alpha 1", "alpha -0.0", "alpha tiny", "alpha exponent",
    "every field", "filters empty", "filter int", "filter bool", "filter longest", "filter 2^63-1", "16 filters",
    "filter twice", "question twice", "question twice, other way", "k twice", "question 3", "question 1000",
    "question with space", "question wide space", "question NFD", "question NFC", "question shrinks", "question emoji",
    "question NUL", "question escaped", "spaces around", "in pieces", "empty first", "empty last", "model unknown",
}  # fmt: skip


@pytest.mark.proves("C9")
async def test_every_body_is_treated_alike(lanes: Lanes) -> None:
    fast = {name for name, body in BODIES.items() if await lanes.is_fast(Sent(body))}
    assert fast == FAST


HEADERS: dict[str, tuple[tuple[str, str], ...]] = {
    "no content type": (), "json": (("Content-Type", "application/json"),),
    "charset": (("Content-Type", "application/json; charset=utf-8"),), "text": (("Content-Type", "text/plain"),),
    "form": (("Content-Type", "application/x-www-form-urlencoded"),), "bad type": (("Content-Type", ";;"),),
    "two types": (("Content-Type", "text/plain"), ("Content-Type", "application/json")),
    "no-cache": (("Cache-Control", "no-cache"),), "no-store": (("Cache-Control", "no-store"),),
    "both": (("Cache-Control", "No-Cache, no-store"),), "max-age": (("Cache-Control", "max-age=0"),),
    "empty control": (("Cache-Control", ""),), "control twice": (("Cache-Control", "a"), ("Cache-Control", "no-store")),
    "pragma": (("Pragma", "no-cache"),), "tenant": (("X-Ragkube-Tenant", "acme"),),
    "tenant empty": (("X-Ragkube-Tenant", ""),), "tenant bad": (("X-Ragkube-Tenant", "../etc"),),
    "tenant upper": (("X-Ragkube-Tenant", "ACME"),), "tenant new": (("X-Ragkube-Tenant", "nobody"),),
    "two tenants": (("X-Ragkube-Tenant", "acme"), ("X-Ragkube-Tenant", "default")),
    "trace": (("Traceparent", f"00-{'a' * 32}-{'b' * 16}-01"),), "bad trace": (("Traceparent", "00-x"),),
    "trace twice": (("Traceparent", f"00-{'a' * 32}-{'b' * 16}-01"), ("Traceparent", "x")),
    "length": (("Content-Length", str(len(question()))),), "length lies": (("Content-Length", "99999999"),),
    "length odd": (("Content-Length", "x"),), "chunked": (("Transfer-Encoding", "chunked"),),
    "gzip": (("Content-Encoding", "gzip"),), "expect": (("Expect", "100-continue"),), "range": (("Range", "bytes=0-1"),),
    "if none": (("If-None-Match", "*"),), "accept": (("Accept", "text/html"),), "origin": (("Origin", "http://evil"),),
    "other host": (("Host", "example.org"),), "prefer": (("Prefer", "respond-async"),), "not ascii": (("X-Odd", "\xe9"),),
    "method": (("X-HTTP-Method-Override", "DELETE"),), "many": tuple((f"X-{n}", "1") for n in range(90)),
    "close": (("Connection", "close"),), "keep": (("Connection", "keep-alive"),), "upgrade": (("Connection", "Upgrade"), ("Upgrade", "h2c")),
    "websocket": (("Connection", "Upgrade"), ("Upgrade", "websocket")), "upgrade alone": (("Upgrade", "h2c"),),
    "forwarded for": (("X-Forwarded-For", "203.0.113.7"),), "forwarded proto": (("X-Forwarded-Proto", "https"),),
}  # fmt: skip
SLOW_HEADERS = {
    "length lies", "expect", "close", "upgrade", "websocket", "upgrade alone", "forwarded for", "forwarded proto",
    "no-cache", "no-store", "both", "max-age", "empty control", "control twice", "tenant empty", "tenant bad", "tenant upper",
}  # fmt: skip


@pytest.mark.proves("C9")
async def test_every_header_is_treated_alike(lanes: Lanes) -> None:
    fast = {name for name, headers in HEADERS.items() if await lanes.is_fast(Sent(question(), headers))}
    assert set(HEADERS) - fast == SLOW_HEADERS


@pytest.mark.proves("C9", "S1")
async def test_every_credential_is_treated_alike(lanes: Lanes) -> None:
    for key in [*KEYS, None, "wrong", "", " ", "ADMIN-KEY", "é"]:
        for tenant in (None, "acme", "default", "other"):
            headers = () if tenant is None else (("X-Ragkube-Tenant", tenant),)
            await lanes.same(Sent(question(), headers, key=key))
    for scheme in ("Basic admin-key", "bearer admin-key", "Bearer", "Bearer  admin-key ", "admin-key", ""):
        await lanes.same(Sent(question(), (("Authorization", scheme),), key=None))


@pytest.mark.proves("C9")
async def test_every_method_and_path_is_treated_alike(lanes: Lanes) -> None:
    for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "post", "QUERY"):
        await lanes.same(Sent(question(), method=method))
    for path in ("/v1/query/", "/V1/query", "/v1//query", "/v1/query/x", "/", "/healthz"):
        await lanes.same(Sent(question(), path=path))
    for query in (b"k=3", b"%", b"question=other"):
        await lanes.same(Sent(question(), query=query))


@pytest.mark.proves("C9")
async def test_without_keys_pages_and_hosts_are_treated_alike(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        lanes = await opened(tmp_path, stack, auth={"mode": "none"})
        for host in ("127.0.0.1", "localhost:8080", "[::1]:80", "evil.example", "", "127.0.0.1.evil"):
            for origin in (None, "http://127.0.0.1", "http://evil.example", "null"):
                headers = (("Host", host), *(() if origin is None else (("Origin", origin),)))
                await lanes.same(Sent(question(), headers, key=None))


@pytest.mark.proves("C9", "R7")
async def test_a_draining_process_and_a_full_one_are_treated_alike(lanes: Lanes) -> None:
    lanes.runtime.health.draining = True
    assert (b"connection", b"close") in (await lanes.same(Sent(question()))).headers
    lanes.runtime.health.draining = False
    for lane in lanes.all:
        lane.app._visits.busy = lanes.runtime.settings.server.max_concurrency
    assert (await lanes.same(Sent(question()))).status == 503


@pytest.mark.proves("C9", "S4")
async def test_limits_are_told_and_kept_alike(tmp_path: Path) -> None:
    tiers = {"default": {"requests_per_minute": 1, "burst": 12}}
    async with AsyncExitStack() as stack:
        lanes = await opened(tmp_path, stack, limits={"tiers": tiers})
        lanes.runtime.limiter.clock = lambda: 1000.0  # nothing is refilled
        seen = []
        for lane in lanes.all:
            lanes.runtime.limiter._accounts.clear()
            seen.append([await lane.send(Sent(question(), key="reader")) for _ in range(14)])
        assert [o.status for o in seen[0]] == [200] * 12 + [429] * 2
        assert all(each[1:] == seen[0][1:] for each in seen)
        told = [dict(outcome.headers) for outcome in seen[0]]
        assert [int(h[b"ratelimit-remaining"]) for h in told] == [*range(11, -1, -1), 0, 0]
        assert told[12][b"retry-after"] == b"60"
        assert told[12][b"content-type"] == b"application/problem+json"
        assert (told[0][b"ratelimit-limit"], told[0][b"ratelimit-reset"]) == (b"12", b"60")


@pytest.mark.proves("C9")
async def test_a_cache_in_trouble_is_treated_alike(lanes: Lanes) -> None:
    answering = lanes.runtime.answering
    for damage in (b"", b"x", b"rka2" + b"\0" * 200):
        with patch.object(answering, "_cache", _Damaged(answering._cache, damage)):
            outcome = await lanes.same(Sent(question()))
        assert json.loads(outcome.body)["cache"]["status"] == "miss"
        assert outcome.metrics["rag_cache_errors_total[('reason', 'corrupt')]"] == 1
    with patch.object(answering, "_cache", _Gone(answering._cache)):
        outcome = await lanes.same(Sent(question()))
    assert json.loads(outcome.body)["degraded"] == ["cache-unavailable"]


class _Damaged(Shared):
    """Every answer in it is broken."""

    def __init__(self, inner: Any, damage: bytes) -> None:
        super().__init__(inner)
        self.damage = damage

    async def lookup(self, tenant: str, key: Any, beside: Any = None) -> Lookup:
        found: Lookup = await self.inner.lookup(tenant, key, beside)
        if found.found is None or key.kind != "answer":
            return found
        return found._replace(found=found.found._replace(value=self.damage))


class _Gone(Shared):
    """It cannot be reached."""

    async def lookup(self, *_: Any) -> Lookup:
        return Lookup(None, None)


@pytest.mark.proves("C9")
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StoreUnavailableError("The vector store does not answer.", retry_after=7), 503),
        (DeadlineExceededError("The request took longer than 30 seconds."), 504),
        (RuntimeError("the inside"), 500),
    ],
)
async def test_what_cannot_be_answered_is_refused_alike(lanes: Lanes, error: Exception, status: int) -> None:
    retrieval = lanes.runtime.answering.retrieval
    store = Away(retrieval._store)
    store.error = error
    with patch.object(retrieval, "_store", store):
        outcome = await lanes.same(Sent(question(k=11)))
    assert (outcome.status, dict(outcome.headers)[b"content-type"]) == (status, b"application/problem+json")
    assert "inside" not in outcome.body
    assert outcome.metrics["rag_requests_total" + _labels(route="/v1/query", status=str(status))] == 1
    assert len(outcome.lines) == 2, "what went wrong, and the request"


def _labels(**values: str) -> str:
    return str(sorted({"method": "POST", **values}.items()))


@pytest.mark.proves("C9")
async def test_a_miss_asks_the_cache_once(lanes: Lanes) -> None:
    answering = lanes.runtime.answering
    watched = Away(answering._cache)
    with patch.object(answering, "_cache", watched):
        outcome = await lanes.fast.send(Sent(question(k=7)))
    assert json.loads(outcome.body)["cache"]["status"] == "miss"
    assert watched.calls.count("lookup") == 1


WAYS: dict[str, Sent] = {
    "head first": Sent(question(), writes="head first"), "byte by byte": Sent(question(), writes="byte by byte"),
    "one chunk": Sent(question(), (("Transfer-Encoding", "chunked"),)),
    "chunks": Sent((question()[:9], question()[9:30], question()[30:]), (("Transfer-Encoding", "chunked"),)),
    "chunks, head first": Sent(question(), (("Transfer-Encoding", "chunked"),), writes="head first"),
    "pieces, head first": Sent((question()[:9], question()[9:]), writes="head first"),
    "HTTP/1.0": Sent(question(), version="1.0"), "HTTP/1.0 kept": Sent(question(), (("Connection", "keep-alive"),), version="1.0"),
    "again behind it": Sent(question(), tail=Sent(question()).wire()[0]),
    "twenty behind it": Sent(question(), tail=Sent(question()).wire()[0] * 20),
    "slow one behind it": Sent(question(), tail=Sent(question(), (("Cache-Control", "no-store"),)).wire()[0] + Sent(question()).wire()[0]),
    "behind a slow one": Sent(question(), (("Cache-Control", "no-store"),), tail=Sent(question()).wire()[0] * 3),
    "wrong one behind it": Sent(question(), tail=Sent(question(k=99)).wire()[0] + Sent(question()).wire()[0]),
    "stranger behind it": Sent(question(), tail=Sent(question(), key="wrong").wire()[0] + Sent(question()).wire()[0]),
    "last one behind it": Sent(question(), tail=Sent(question(), (("Connection", "close"),)).wire()[0]),
    "probe behind it": Sent(question(), tail=Sent(method="GET", path="/v1/sources").wire()[0]),
}  # fmt: skip


@pytest.mark.proves("C9")
async def test_every_way_of_sending_is_treated_alike(lanes: Lanes) -> None:
    for name, sent in WAYS.items():
        outcome = await lanes.same(sent)
        # a stranger's connection is closed
        more = 1 if name == "stranger behind it" else sent.tail.count(b" HTTP/1.1\r\n")
        assert (outcome.status, len(outcome.more)) == (200, more), name


def _values() -> st.SearchStrategy[Any]:
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=4,
    )


FIELDS = {
    "question": st.sampled_from([QUESTION, "How far?", "ab", " x y z "]) | st.text(max_size=60) | _values(),
    "k": st.integers(0, 22) | _values(), "alpha": st.floats(0, 1) | st.sampled_from([0, 1]) | _values(),
    "filters": st.dictionaries(st.text(max_size=5), _values(), max_size=4) | _values(),
    "model": _values(), "tags": st.lists(st.text(max_size=6), max_size=3) | _values(), "stream": _values(),
}  # fmt: skip


SOME_HEADERS = [
    pair for name, each in HEADERS.items() if not name.startswith(("length", "chunked")) for pair in each[:2]
]


@st.composite
def requests(draw: st.DrawFn) -> Sent:
    names = draw(st.lists(st.sampled_from(list(FIELDS)), max_size=5))
    members = [
        json.dumps(name) + ":" + json.dumps(draw(FIELDS[name]), ensure_ascii=draw(st.booleans()))
        for name in ["question", *names]
    ]
    body = ("{" + ",".join(members) + "}").encode("utf-8", "surrogatepass")
    if draw(st.booleans()) and draw(st.booleans()):
        at = draw(st.integers(0, len(body)))
        body = body[:at] + draw(st.binary(max_size=3)) + body[at + draw(st.integers(0, 2)) :]
    headers = draw(st.lists(st.sampled_from(SOME_HEADERS), max_size=3))
    return Sent(body, tuple(headers), key=draw(st.sampled_from(["admin", "team", "reader", None])))


@pytest.mark.proves("C9")
@pytest.mark.parametrize(
    "examples", [150, pytest.param(5000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)], id="soak")]
)
def test_any_request_is_treated_alike(tmp_path_factory: pytest.TempPathFactory, examples: int) -> None:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        lanes = runner.run(opened(tmp_path_factory.mktemp("lanes"), stack))

        @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
        @given(requests())
        def alike(sent: Sent) -> None:
            runner.run(lanes.same(sent))

        try:
            alike()
        finally:
            runner.run(stack.aclose())
