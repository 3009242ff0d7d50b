"""The cluster driver, as far as it can be tested without a cluster."""

import io
import json
import os
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from cluster.testbed import cli, images, volumes
from cluster.testbed.archive import Config, Image, Store, full_name
from cluster.testbed.client import Http, wait_for
from cluster.testbed.paths import CHECKOUT, State, TestbedError

RELAY = CHECKOUT / "hack" / "cluster" / "testbed" / "relay.py"

FAKE = """\
#!/bin/sh
echo "$(basename "$0") $*" >>"$RECORD"
case "$*" in
  *"create cluster"*) cat >"$RECORD.config" ;;
  *"get clusters"*) cat "$RECORD.clusters" 2>/dev/null ;;
  save*) echo archive >"$3" ;;
esac
exit 0
"""


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine where Docker answers and kind is installed; what they are told goes into this file."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("docker", "kind", "kubectl"):
        (programs / name).write_text(FAKE)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for variable in ("RAGKUBE_KUBECONFIG", "RAGKUBE_CLUSTER"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "record"


def test_kind_is_used_where_docker_answers_and_gets_three_workers(record: Path) -> None:
    found = cli.choose("demo")
    assert found.kind == "kind"
    found.up()
    created = next(line for line in record.read_text().splitlines() if "create cluster" in line)
    assert "--image kindest/node:v1.36.1" in created
    assert f"--kubeconfig {found.kubeconfig()}" in created
    roles = Path(f"{record}.config").read_text()
    assert (roles.count("role: control-plane"), roles.count("role: worker")) == (1, 3)


def test_images_are_built_by_docker_and_loaded_as_archives_into_kind(record: Path) -> None:
    cli.bring_images(cli.choose("demo"), ["api", "redis"])
    said = record.read_text()
    assert f"docker build --target api -t {images.reference('api')} {CHECKOUT}" in said
    assert "docker pull redis:8.0" in said
    assert said.count("kind load image-archive") == 2


def test_a_node_of_kind_is_failed_with_docker(record: Path) -> None:
    found = cli.choose("demo")
    found.node("cut", found.nodes()[2])
    assert f"docker network disconnect kind {found.nodes()[2]}" in record.read_text()
    with pytest.raises(TestbedError, match="no node"):
        found.node("kill", "somebody-elses-container")


def test_a_cluster_of_our_own_that_is_up_is_found_again(record: Path) -> None:
    state = State.named("demo")
    state.root.mkdir(parents=True)
    (state.root / "init.pid").write_text("1")  # a pid that is alive, but not ours: no marker
    found = cli.choose("demo")
    assert found.kind == "own"
    assert not found.running()


def test_an_image_is_the_same_whenever_it_is_made(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"binary")
    store = Store(tmp_path / "store")
    config = Config(entrypoint=("/program",), user="65532:65532")
    first = store.make("redis:8.0", {"/program": program}, config)
    os.utime(program, (1, 1))
    assert store.make("redis:8.0", {"/program": program}, config) == first
    assert store.complete(first)


def test_an_archive_leaves_out_what_the_node_has(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"binary")
    store = Store(tmp_path / "store")
    image = store.make("a/b:1", {"/program": program}, Config())
    manifest, config, layer = store.blobs(image)

    def names(without: set[str]) -> set[str]:
        stream = io.BytesIO()
        store.export([image], stream, without)
        with tarfile.open(fileobj=io.BytesIO(stream.getvalue())) as tar:
            return set(tar.getnames())

    always = {"oci-layout", "index.json", f"blobs/sha256/{manifest}"}
    assert names(set()) == {*always, f"blobs/sha256/{config}", f"blobs/sha256/{layer}"}
    assert names({manifest, config, layer}) == always


def test_blobs_of_forgotten_images_are_deleted(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    made: list[Image] = []
    for content in (b"old", b"new"):
        (tmp_path / "program").write_bytes(content)
        made.append(store.make("a/b:1", {"/program": tmp_path / "program"}, Config()))
    store.forget([made[1]])
    assert [store.blob(one.manifest).exists() for one in made] == [False, True]
    assert store.complete(made[1])


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("redis:8.0", "docker.io/library/redis:8.0"),
        ("valkey/valkey:8.1", "docker.io/valkey/valkey:8.1"),
        ("localhost/x:1", "localhost/x:1"),
        ("registry.example.com/x:1", "registry.example.com/x:1"),
    ],
)
def test_short_names_are_spelled_as_runtimes_do(short: str, full: str) -> None:
    assert full_name(short) == full


def test_only_released_volumes_are_recycled() -> None:
    phases = {"n1-01": "Released", "n1-02": "Bound", "n2-01": "Available"}
    listed = {
        "items": [{"metadata": {"name": name}, "status": {"phase": phase}} for name, phase in phases.items()]
    }
    assert volumes.released(json.dumps(listed)) == [("n1", "n1-01")]


class Echo(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(418)
        self.end_headers()
        self.wfile.write(f"{self.path} {self.headers['host']} ".encode() + body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def echo() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def relay_proxy() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        command = [sys.executable, "-I", "-S", str(RELAY), str(listener.fileno())]
        process = subprocess.Popen(command, pass_fds=[listener.fileno()], stdin=subprocess.PIPE)
    yield address
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(10) == 0  # a relay ends with whoever started it


def test_the_relay_is_an_http_proxy(relay_proxy: str, echo: str) -> None:
    answer = Http(lambda: f"http://{relay_proxy}")("POST", f"http://{echo}/a?b=c", content=b"body")
    assert (answer.status, answer.text) == (418, f"/a?b=c {echo} body")


def test_the_relay_says_when_a_target_is_not_there(relay_proxy: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    assert Http(lambda: f"http://{relay_proxy}")("GET", f"http://127.0.0.1:{port}/").status == 502


def test_the_relay_connects_any_protocol_and_keeps_a_half_closed_connection(
    relay_proxy: str, echo: str
) -> None:
    host, port = relay_proxy.split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(f"CONNECT {echo} HTTP/1.1\r\n\r\n".encode())
        assert b" 200 " in client.recv(1000)
        client.sendall(b"POST /x HTTP/1.0\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi")
        client.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: client.recv(4096), b""))
    assert received.endswith(b"/x h hi")


def test_wait_for_returns_what_it_waited_for_and_says_what_was_missing() -> None:
    answers = iter([None, 0, "yes"])
    assert wait_for(lambda: next(answers), 5, pause=0) == "yes"
    with pytest.raises(AssertionError, match=r"waited 0 s for rain; the last answer was OSError\('dry'\)"):
        wait_for(lambda: (_ for _ in ()).throw(OSError("dry")), 0, what="rain", ignore=(OSError,))
