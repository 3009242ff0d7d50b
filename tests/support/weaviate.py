"""A real Weaviate: one process on free loopback ports."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ragkube_api.settings import WeaviateStore
from support.processes import Process, free_ports, tool, wait_for

API_KEY = "weaviate-test-key"


class Ports:
    """What a node listens on; on one machine the data port follows the gossip port, and Raft's own as well."""

    def __init__(self) -> None:
        self.http, self.grpc, self.profiling, self.metrics = free_ports(4)
        self.gossip, self.raft = _pair(), _pair()


def _pair() -> int:
    while True:
        (first,) = free_ports(1)
        try:
            with socket.create_server(("127.0.0.1", first + 1)):
                return first
        except OSError:
            continue


def _joining(number: int, ports: Ports, peers: Sequence[Ports]) -> dict[str, str]:
    found = {} if number == 0 else {"CLUSTER_JOIN": f"127.0.0.1:{peers[0].gossip}"}
    return {
        "CLUSTER_IN_LOCALHOST": "true", "CLUSTER_ADVERTISE_ADDR": "127.0.0.1",
        "CLUSTER_GOSSIP_BIND_PORT": str(ports.gossip), "CLUSTER_DATA_BIND_PORT": str(ports.gossip + 1),
        "RAFT_PORT": str(ports.raft), "RAFT_INTERNAL_RPC_PORT": str(ports.raft + 1),
        "RAFT_BOOTSTRAP_EXPECT": str(len(peers)),
        "RAFT_JOIN": ",".join(f"node{n}:{each.raft}" for n, each in enumerate(peers)), **found,
    }  # fmt: skip


class WeaviateServer:
    """One node with an API key; its data outlives a restart."""

    def __init__(self, program: Path, folder: Path, *, number: int = 0, peers: Sequence[Ports] = ()) -> None:
        self.folder = folder
        ports = peers[number] if peers else Ports()
        self.http_port, self.grpc_port, self.metrics_port = ports.http, ports.grpc, ports.metrics
        env = {
            "PERSISTENCE_DATA_PATH": str(folder / "data"), "CLUSTER_HOSTNAME": f"node{number}",
            "DEFAULT_VECTORIZER_MODULE": "none", "ENABLE_MODULES": "", "DISABLE_TELEMETRY": "true",
            "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "false", "AUTHENTICATION_APIKEY_ENABLED": "true",
            "AUTHENTICATION_APIKEY_ALLOWED_KEYS": API_KEY, "AUTHENTICATION_APIKEY_USERS": "ragkube",
            "AUTHORIZATION_ADMINLIST_ENABLED": "true", "AUTHORIZATION_ADMINLIST_USERS": "ragkube",
            "GRPC_PORT": str(ports.grpc), "GO_PROFILING_PORT": str(ports.profiling),
            "PROMETHEUS_MONITORING_ENABLED": "true", "PROMETHEUS_MONITORING_PORT": str(ports.metrics),
            "PROMETHEUS_MONITORING_GROUP": "true",
            "LOG_LEVEL": "warning", "GOMEMLIMIT": "1GiB", **_joining(number, ports, peers or [ports]),
        }  # fmt: skip
        command: list[str | Path] = [program, "--host", "127.0.0.1", "--port", str(self.http_port)]
        command += ["--scheme", "http"]
        self.process = Process(command, folder / "log", env)

    def settings(
        self, *, prefix: str = "Test", timeout_seconds: float = 30, replication_factor: int = 1
    ) -> WeaviateStore:
        key_file = self.folder / "api-key"
        key_file.write_text(API_KEY + "\n")
        return WeaviateStore(
            http_host="127.0.0.1", http_port=self.http_port, grpc_host="127.0.0.1", grpc_port=self.grpc_port,
            api_key_file=key_file, collection_prefix=prefix, timeout_seconds=timeout_seconds,
            replication_factor=replication_factor,
        )  # fmt: skip

    def start(self) -> None:
        self.process.start()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        wait_for("weaviate is ready", self._ready, seconds=120)

    def call(self, method: str, path: str, body: object = None) -> Any:
        """One REST request, for looking and tidying behind the adapter's back."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http_port}/v1/{path}", method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def collections(self, prefix: str) -> list[str]:
        classes = self.call("GET", "schema")["classes"]
        return [each["class"] for each in classes if each["class"].startswith(prefix)]

    def forget(self, prefix: str) -> None:
        """Remove every tenant of a deployment, so that the next test begins with nothing."""
        for name in self.collections(prefix):
            tenants = [each["name"] for each in self.call("GET", f"schema/{name}/tenants")]
            if tenants:
                self.call("DELETE", f"schema/{name}/tenants", tenants)

    def objects(self, prefix: str, kind: str, tenant: str) -> int:
        """How many objects lie in a collection, current or not."""
        found = self.call("GET", f"objects?class={prefix}{kind}&tenant={tenant}&limit=1000")
        return len(found["objects"])

    def kill(self) -> None:
        self.process.kill()

    def _ready(self) -> bool:
        if not self.process.alive:
            tail = self.process.log.read_text(errors="replace")[-2000:]
            raise AssertionError(f"weaviate ended: {tail}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/v1/.well-known/ready") as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError:
            return False


def start_weaviate(folder: Path) -> WeaviateServer:
    """A fresh server that is ready."""
    server = WeaviateServer(tool("weaviate"), folder)
    try:
        server.start()
    except BaseException:
        server.kill()
        raise
    return server


def start_weaviate_cluster(folder: Path, size: int = 3) -> list[WeaviateServer]:
    """Nodes that know each other; the caller kills them."""
    program, peers = tool("weaviate"), [Ports() for _ in range(size)]
    servers = []
    for number in range(size):
        (folder / str(number)).mkdir()
        servers.append(WeaviateServer(program, folder / str(number), number=number, peers=peers))
    try:
        for server in servers:
            server.process.start()
        for server in servers:
            server.wait_until_ready()
    except BaseException:
        for server in servers:
            server.kill()
        raise
    # there was nobody to join when it began; alone after a restart it would serve, and miss what the others write
    servers[0].process.env["CLUSTER_JOIN"] = f"127.0.0.1:{peers[1].gossip}"
    return servers


@pytest.fixture(scope="session")
def weaviate_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WeaviateServer]:
    """Weaviate 1.39, shared by the tests that do no harm to it."""
    server = start_weaviate(tmp_path_factory.mktemp("weaviate"))
    yield server
    server.kill()
