"""A real process over raw sockets: whatever a client does to it, others are served as before."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from support.api import ApiProcess, api_process

QUESTION = json.dumps({"question": "How far away is the moon?"}).encode()


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    with api_process(tmp_path_factory.mktemp("abuse")) as running:
        running.start()
        running.wait_ready()
        document = "The moon is 384,400 kilometres away."
        httpx2.put(f"{running.url}/v1/documents/moon.txt", content=document.encode())
        assert served(running) in {"hit", "miss"}
        assert served(running) == "hit"
        yield running


def served(process: ApiProcess) -> str:
    """Somebody else asks meanwhile."""
    response = httpx2.post(f"{process.url}/v1/query", content=QUESTION, timeout=30)
    assert response.status_code == 200
    return str(response.json()["cache"]["status"])


def connect(process: ApiProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", process.port), timeout=30)


def request(body: bytes = QUESTION, *headers: str, length: int | None = None) -> bytes:
    lines = ["POST /v1/query HTTP/1.1", "Host: 127.0.0.1", *headers]
    if not any(header.lower().startswith("transfer-encoding") for header in headers):
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def response(stream: Any) -> tuple[int, dict[str, str], bytes]:
    """The next response on the connection."""
    status = int(stream.readline().split()[1])
    headers: dict[str, str] = {}
    while line := stream.readline().strip():
        name, _, value = line.decode("latin-1").partition(": ")
        headers[name.lower()] = value
    return status, headers, stream.read(int(headers.get("content-length", 0)))


def memory(process: ApiProcess) -> float:
    assert process.running is not None
    status = Path(f"/proc/{process.running.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@pytest.mark.proves("C9")
def test_pipelined_requests_are_answered_in_their_order(process: ApiProcess) -> None:
    ks = [None, 3, 99, 2, None, 20] * 20
    bodies = [
        QUESTION if k is None else json.dumps({"question": "How far is it?", "k": k}).encode() for k in ks
    ]
    traces = [f"{number + 1:032x}" for number in range(len(bodies))]
    wire = b"".join(
        request(body, f"Traceparent: 00-{trace}-{'b' * 16}-01")
        for body, trace in zip(bodies, traces, strict=True)
    )
    with connect(process) as client:
        sender = threading.Thread(target=client.sendall, args=(wire,))
        sender.start()
        stream = client.makefile("rb")
        for k, trace in zip(ks, traces, strict=True):
            status, headers, body = response(stream)
            assert status == (422 if k == 99 else 200)
            assert headers["x-trace-id"] == trace == json.loads(body)["trace_id"]
        sender.join()


@pytest.mark.proves("C9")
@pytest.mark.parametrize("sizes", [[1], [7, 1, 40], [1000]])
def test_chunked_bodies_are_bodies(process: ApiProcess, sizes: list[int]) -> None:
    left, chunks, turn = QUESTION, b"", 0
    while left:
        piece, left = left[: sizes[turn % len(sizes)]], left[sizes[turn % len(sizes)] :]
        chunks += b"%x\r\n%b\r\n" % (len(piece), piece)
        turn += 1
    with connect(process) as client:
        stream = client.makefile("rb")
        for _ in range(2):
            client.sendall(request(chunks + b"0\r\n\r\n", "Transfer-Encoding: chunked"))
            status, _, body = response(stream)
            assert (status, json.loads(body)["cache"]["status"]) == (200, "hit")
        client.sendall(request(b"zz\r\n", "Transfer-Encoding: chunked"))
        assert response(stream)[0] == 400


@pytest.mark.proves("C9")
def test_both_lengths_at_once_are_refused(process: ApiProcess) -> None:
    """What one proxy takes for a body, another takes for the next request."""
    smuggled = b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with connect(process) as client:
        client.sendall(request(smuggled, "Transfer-Encoding: chunked", "Content-Length: 4"))
        stream = client.makefile("rb")
        assert response(stream)[0] == 400
        assert stream.read() == b""


@pytest.mark.proves("C9")
def test_slow_clients_keep_nobody_waiting(process: ApiProcess) -> None:
    whole = request()
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(process)) for _ in range(40)]
        streams = [client.makefile("rb") for client in clients]
        for at in range(len(whole)):
            for client in clients:
                client.sendall(whole[at : at + 1])
            if at % 40 == 0:
                assert served(process) == "hit"
        for stream in streams:
            assert response(stream)[0] == 200


@pytest.mark.proves("C9")
def test_a_refusal_does_not_wait_for_the_body(process: ApiProcess) -> None:
    with connect(process) as client:
        client.sendall(request(b"", "Origin: http://evil.example", length=50))
        status, headers, _ = response(client.makefile("rb"))
        assert (status, headers["connection"]) == (403, "close")


@pytest.mark.proves("C9")
def test_clients_that_leave_in_the_middle_take_nothing_along(process: ApiProcess) -> None:
    whole = request()
    for at in range(1, len(whole), 3):
        with connect(process) as client:
            client.sendall(whole[:at])
            if at % 2:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
    for _ in range(20):
        with connect(process) as client:
            client.sendall(whole * 50)
    for _ in range(20):
        with connect(process) as client:
            client.sendall(whole)
            client.shutdown(socket.SHUT_WR)
            with suppress(OSError):
                client.recv(65536)
    assert served(process) == "hit"
    metrics = httpx2.get(f"{process.url}/metrics").text
    assert re.search(r"^rag_requests_in_flight 0", metrics, re.MULTILINE)


@pytest.mark.proves("C9")
def test_a_client_that_does_not_read_is_not_written_to_for_ever(process: ApiProcess) -> None:
    before = memory(process)
    with ExitStack() as stack:
        for _ in range(10):
            client = stack.enter_context(connect(process))
            client.setblocking(False)
            with suppress(BlockingIOError):
                while client.send(request() * 100):
                    pass
        for _ in range(20):
            assert served(process) == "hit"
        assert memory(process) - before < 100


@pytest.mark.proves("C9")
def test_large_bodies_are_refused_without_being_kept(process: ApiProcess) -> None:
    before = memory(process)
    body = b'{"question": "' + b"a" * 10_000_000 + b'"}'
    for headers in ((), ("Transfer-Encoding: chunked",)):
        framed = body if not headers else b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        with ExitStack() as stack:
            for client in [stack.enter_context(connect(process)) for _ in range(5)]:
                with suppress(OSError):
                    client.sendall(request(framed, *headers))
                with suppress(OSError):
                    status, answer, text = response(client.makefile("rb"))
                    assert (status, json.loads(text)["code"]) == (413, "body-too-large")
                    assert answer["connection"] == "close"
    assert served(process) == "hit"
    assert memory(process) - before < 60


@pytest.mark.proves("C9")
@pytest.mark.parametrize("flood", ["many", "long", "endless name", "endless line"])
def test_floods_of_headers_are_refused(process: ApiProcess, flood: str) -> None:
    before = memory(process)
    line = b"POST /v1/query HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    with connect(process) as client:
        stream = client.makefile("rb")
        sent = 0
        with suppress(OSError):
            match flood:
                case "many":
                    client.sendall(line + b"".join(b"X-%d: 1\r\n" % n for n in range(5000)) + b"\r\n")
                case "endless line":
                    client.sendall(b"POST /")
                case _:
                    client.sendall(line + (b"X-Long: " if flood == "long" else b""))
            while flood != "many" and sent < 50_000_000:
                client.sendall(b"a" * 100_000)
                sent += 100_000
        with suppress(OSError):
            status, headers, body = response(stream)
            assert (status, headers["content-type"]) == (431, "application/problem+json")
            assert json.loads(body)["code"] == "headers-too-large"
        assert sent < 50_000_000, "it took everything"
    assert served(process) == "hit"
    assert memory(process) - before < 60


@pytest.mark.proves("C9")
@pytest.mark.parametrize(
    "nonsense",
    [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"POST /v1/query HTTP/9.9\r\n\r\n", b"\0" * 100, b"\r\n" * 50 + b"x y z\r\n\r\n"],
)  # fmt: skip
def test_what_is_no_request_is_refused_as_a_problem(process: ApiProcess, nonsense: bytes) -> None:
    with connect(process) as client:
        client.sendall(nonsense)
        status, headers, body = response(client.makefile("rb"))
    assert (status, headers["content-type"]) == (400, "application/problem+json")
    assert json.loads(body)["code"] == "bad-request"
    assert served(process) == "hit"


@pytest.mark.proves("C9")
def test_a_head_that_never_ends_is_closed_in_time(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom ragkube_api import http_protocol\nhttp_protocol.HEAD_SECONDS = 0.5\n"
        "from ragkube_api.__main__ import main\nsys.exit(main([]))\n"
    )
    with api_process(tmp_path) as process:
        process.command = ("-c", program)
        process.start()
        process.wait_ready()
        for head in (b"", b"POST /v1/query HTTP/1.1\r\nHost: "):
            with connect(process) as client:
                client.sendall(head)
                status, _, body = response(client.makefile("rb"))
                assert (status, json.loads(body)["code"]) == (408, "request-timeout")
        with connect(process) as client:
            stream = client.makefile("rb")
            for _ in range(2):
                client.sendall(request())
                assert response(stream)[0] == 200
                time.sleep(1.2)  # longer than a head may take: a connection between requests is not one
