"""The process a user starts: start-up, signals, crashes, and the sentences it ends with."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ragkube_api.telemetry import EVENTS
from support.api import ApiProcess, api_process
from support.processes import catches, free_ports, wait_for

WORDS = ["redis", "moon", "cache", "shard", "answer", "cluster", "harbour", "kernel", "pod", "volume"]


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ApiProcess]:
    with api_process(tmp_path) as running:
        yield running


def _folder(tmp_path: Path, files: int) -> dict[str, Any]:
    docs = tmp_path / "docs"
    docs.mkdir()
    for n in range(files):
        body = "\n\n".join(f"# Part {i} of {n}\n\n{' '.join(WORDS)} number {n} part {i}." for i in range(20))
        (docs / f"{n:03}.md").write_text(body)
    return {"sources": [{"name": "docs", "path": str(docs)}]}


def _put(process: ApiProcess, name: str, text: str) -> httpx2.Response:
    return httpx2.put(f"{process.url}/v1/documents/{name}", content=text.encode())


@pytest.mark.proves("K14")
def test_it_starts_answers_and_ends_quietly(process: ApiProcess) -> None:
    process.start()
    process.wait_ready()
    _put(process, "moon.txt", "The moon is 384,400 kilometres away.")
    answer = httpx2.post(f"{process.url}/v1/query", json={"question": "How far is the moon?"}).json()
    process.signal(signal.SIGINT)

    assert "384,400" in answer["answer"]
    assert process.wait() == 0
    assert "Traceback" not in process.log.read_text()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_process_that_is_stopped_while_it_starts_ends_at_once(process: ApiProcess) -> None:
    process.start()
    assert process.running is not None
    pid = process.running.pid
    wait_for("it catches the signal", lambda: catches(pid, signal.SIGTERM), pause=0.001)
    process.signal(signal.SIGTERM)

    assert process.wait(5) == 0
    assert "Traceback" not in process.log.read_text()


@pytest.mark.proves("O1")
def test_every_log_line_is_a_documented_event_in_json_with_the_trace_id(process: ApiProcess) -> None:
    process.start()
    process.wait_ready()
    _put(process, "moon.txt", "The moon is far away.")
    answer = httpx2.post(f"{process.url}/v1/query", json={"question": "Confidential moon?"}).json()
    httpx2.post(f"{process.url}/v1/query", json={"question": "Confidential", "k": "Confidential"})
    process.signal(signal.SIGTERM)
    assert process.wait() == 0

    text = process.log.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert {line["event"] for line in lines} <= set(EVENTS)
    mine = [line for line in lines if line.get("trace_id") == answer["trace_id"]]
    assert [(line["event"], line["route"], line["status"]) for line in mine] == [
        ("request", "/v1/query", 200)
    ]
    assert mine[0]["cache"] == "miss"
    assert all({"timestamp", "level"} <= set(line) for line in lines)
    assert "Confidential" not in text


@pytest.mark.proves("O3")
@pytest.mark.parametrize(("limit", "marked"), [(1e-9, True), (1000, False)])
def test_a_request_is_marked_as_slow_above_the_limit_that_is_set(
    tmp_path: Path, limit: float, marked: bool
) -> None:
    with api_process(tmp_path, server={"slow_request_seconds": limit}) as process:
        process.start()
        process.wait_ready()
        httpx2.get(f"{process.url}/v1/documents")
        process.signal(signal.SIGTERM)
        assert process.wait() == 0

        lines = [json.loads(line) for line in process.log.read_text().splitlines()]

    (line,) = [line for line in lines if line["event"] == "request"]
    assert line.get("slow", False) is marked


@pytest.mark.proves("I4")
def test_a_second_start_indexes_nothing_again(tmp_path: Path) -> None:
    with api_process(tmp_path, documents=_folder(tmp_path, 30)) as process:
        process.start()
        first = process.wait_synced()
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
        process.start()
        second = process.wait_synced()

    assert (first["indexed"], first["unchanged"]) == (30, 0)
    assert (second["indexed"], second["unchanged"], second["deleted"]) == (0, 30, 0)


@pytest.mark.proves("I1")
def test_killed_in_the_middle_of_ingestion_nothing_is_lost_and_the_rest_is_finished(tmp_path: Path) -> None:
    with api_process(tmp_path, documents=_folder(tmp_path, 120)) as process:
        process.start()
        reached = process.wait_until("/v1/sources", lambda r: r.json()["sources"][0]["indexed"] >= 10)
        process.kill()
        process.start()
        source = process.wait_synced()
        listed = httpx2.get(f"{process.url}/v1/documents?limit=1000").json()["documents"]

    done = reached["sources"][0]["indexed"]
    assert 10 <= done < 120
    assert source["unchanged"] >= done
    assert source["unchanged"] + source["indexed"] == 120
    assert len(listed) == len({document["id"] for document in listed}) == 120


class Load:
    """Clients that ask without a pause; every answer and every failure is kept."""

    def __init__(self, process: ApiProcess, clients: int, *, fresh_connections: bool) -> None:
        self._process = process
        self._fresh = fresh_connections
        self.stop = threading.Event()
        self.answered = 0
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(clients)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        client = httpx2.Client(timeout=20)
        count = 0
        while not self.stop.is_set():
            count += 1
            body = {"question": f"What says client {number} about the moon, time {count}?"}
            try:
                sender = httpx2 if self._fresh else client
                response = sender.post(f"{self._process.url}/v1/query", json=body)
            except httpx2.TransportError as error:
                self.failures.append(repr(error))
                return
            if response.status_code != 200:
                self.failures.append(response.text)
                return
            self.answered += 1


@pytest.mark.proves("R5")
@pytest.mark.parametrize("fresh_connections", [True, False], ids=["new connections", "kept connections"])
def test_while_it_drains_every_request_is_answered(tmp_path: Path, fresh_connections: bool) -> None:
    server = {"drain_seconds": 60, "grace_seconds": 10}
    with api_process(tmp_path, server=server) as process:
        process.start()
        process.wait_ready()
        _put(process, "moon.txt", "The moon is far away, say the clients.")
        load = Load(process, 4, fresh_connections=fresh_connections)
        _wait_for_answers(load, 20)
        process.signal(signal.SIGTERM)
        draining = process.wait_until("/readyz", lambda response: response.status_code == 503)
        _wait_for_answers(load, load.answered + 40)
        load.join()
        process.signal(signal.SIGTERM)  # a second one ends the wait

        assert load.failures == []
        assert draining["status"] == "draining"
        assert process.wait() == 0


def _wait_for_answers(load: Load, count: int) -> None:
    end = time.monotonic() + 20
    while load.answered < count:
        assert time.monotonic() < end, load.failures
        assert not load.failures
        time.sleep(0.005)


@pytest.mark.proves("R5")
def test_a_request_in_flight_is_finished_after_the_listener_has_closed(process: ApiProcess) -> None:
    process.start()
    process.wait_ready()
    text = b"The moon is far away."
    head = f"PUT /v1/documents/a.txt HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(text)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", process.port), timeout=20) as connection:
        connection.sendall(head.encode() + text[:5])
        _until_in_flight(process)
        process.signal(signal.SIGTERM)
        _until_refused(process)
        connection.sendall(text[5:])
        response = connection.recv(65536)

    assert response.startswith(b"HTTP/1.1 201")
    assert b"connection: close" in response
    assert process.wait() == 0
    process.start()
    process.wait_ready()
    assert httpx2.get(f"{process.url}/v1/documents/a.txt/content").content == text


def _until_in_flight(process: ApiProcess) -> None:
    end = time.monotonic() + 20
    while "rag_requests_in_flight 1.0" not in httpx2.get(f"{process.url}/metrics").text:
        assert time.monotonic() < end


def _until_refused(process: ApiProcess) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", process.port), timeout=1).close()
        except OSError:
            return
        time.sleep(0.01)
    raise AssertionError("the listener stayed open")


@pytest.mark.proves("K14")
def test_ctrl_c_does_not_wait_for_a_client_that_never_finishes(process: ApiProcess) -> None:
    process.start()
    process.wait_ready()
    with socket.create_connection(("127.0.0.1", process.port), timeout=20) as connection:
        connection.sendall(
            b"PUT /v1/documents/a.txt HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc"
        )
        _until_in_flight(process)
        process.signal(signal.SIGINT)

        assert process.wait(10) == 0
    assert "Traceback" not in process.log.read_text()


@pytest.mark.proves("I7")
def test_an_oversized_body_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    with api_process(tmp_path, documents={"max_bytes": 1000}) as process:
        process.start()
        process.wait_ready()
        sent = 0

        def endless() -> Iterator[bytes]:
            nonlocal sent
            while sent < 1 << 32:
                sent += 1 << 16
                yield b"x" * (1 << 16)

        with socket.create_connection(("127.0.0.1", process.port), timeout=20) as connection:
            connection.sendall(
                b"PUT /v1/documents/a.txt HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000000\r\n\r\n"
            )
            announced = connection.recv(65536)
        with socket.create_connection(("127.0.0.1", process.port), timeout=20) as connection:
            connection.sendall(
                b"PUT /v1/documents/a.txt HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            response = _send_until_answered(connection, endless())

    assert announced.startswith(b"HTTP/1.1 413")
    assert response.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in response
    assert sent < 1 << 26


def _send_until_answered(connection: socket.socket, pieces: Iterator[bytes]) -> bytes:
    connection.setblocking(False)
    for piece in pieces:
        connection.setblocking(True)
        connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        connection.setblocking(False)
        try:
            return connection.recv(65536)
        except BlockingIOError:
            continue
    return b""


@pytest.mark.proves("K14")
def test_a_port_in_use_is_one_sentence(process: ApiProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        process.port = other.getsockname()[1]
        process.start()
        assert process.wait() == 1

    assert process.log.read_text() == f"Cannot listen on 127.0.0.1:{process.port}: Address already in use.\n"


@pytest.mark.proves("K14")
def test_two_processes_on_one_directory_is_one_sentence(process: ApiProcess, tmp_path: Path) -> None:
    process.start()
    process.wait_ready()
    (tmp_path / "second").mkdir()
    second = ApiProcess(tmp_path / "second", process.document)
    try:
        second.start()
        assert second.wait() == 1
    finally:
        second.kill()

    said = second.log.read_text().splitlines()
    assert len(said) == 1
    assert str(tmp_path / "index") in said[0]


def test_a_directory_that_cannot_be_used_is_one_sentence(process: ApiProcess, tmp_path: Path) -> None:
    (tmp_path / "index").write_text("a file stands where the directory should be")
    process.start()

    assert process.wait() == 1
    assert len(process.log.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"store": {"kind": "embedded"}}, "store.embedded.path"),
        ({"store": {"kind": "embedded", "path": "x"}, "retrieval": {"k": 50}}, "retrieval.k"),
        ({"store": {"kind": "embedded", "path": "x"}, "cach": {}}, "cach"),
    ],
)
def test_wrong_settings_are_one_sentence_with_the_field(
    process: ApiProcess, document: dict[str, Any], words: str
) -> None:
    process.document = document
    process.command = ("-m", "ragkube_api", "check")
    process.start()

    assert process.wait() == 1
    said = process.log.read_text().splitlines()
    assert len(said) == 1
    assert words in said[0]


def test_an_unknown_command_says_how_it_is_used(process: ApiProcess) -> None:
    process.command = ("-m", "ragkube_api", "dance")
    process.start()

    assert process.wait() == 2
    assert process.log.read_text().startswith("usage: python -m ragkube_api")


def test_with_embedded_parts_only_no_client_library_is_imported(process: ApiProcess) -> None:
    code = (
        "import sys, threading, signal, os, time, runpy\n"
        "def look():\n"
        "    import urllib.request\n"
        "    time.sleep(0)\n"
        "    while True:\n"
        "        try:\n"
        "            urllib.request.urlopen(os.environ['URL'] + '/readyz').read(); break\n"
        "        except OSError: pass\n"
        "    print('LOADED', sorted({'redis', 'weaviate', 'anthropic', 'kubernetes', 'kopf'} & set(sys.modules)))\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "threading.Thread(target=look, daemon=True).start()\n"
        "sys.argv = ['ragkube_api']\n"
        "runpy.run_module('ragkube_api', run_name='__main__')\n"
    )
    process.command = ("-c", code)
    (process.port,) = free_ports(1)
    process.environment = {"URL": process.url}
    process.start()

    assert process.wait() == 0, process.log.read_text()
    assert "LOADED []" in process.log.read_text()


@pytest.mark.proves("I3")
def test_the_worker_keeps_a_source_and_serves_probes_only(tmp_path: Path) -> None:
    with api_process(tmp_path, documents=_folder(tmp_path, 3)) as process:
        process.command = ("-m", "ragkube_api.worker")
        process.start()
        process.wait_ready()

        def indexed(response: httpx2.Response) -> bool:
            return 'rag_documents_indexed_total{outcome="created"} 3.0' in response.text

        end = time.monotonic() + 20
        while not indexed(httpx2.get(f"{process.url}/metrics")):
            assert time.monotonic() < end
        assert httpx2.get(f"{process.url}/healthz").status_code == 200
        assert httpx2.post(f"{process.url}/v1/query", json={"question": "What?"}).status_code == 404
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
