"""A real Weaviate: one process on free loopback ports."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ragkube_api.settings import WeaviateStore
from support.processes import Process, free_ports, tool, wait_for

API_KEY = "weaviate-test-key"


class WeaviateServer:
    """One node with an API key; its data outlives a restart."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.folder = folder
        ports = free_ports(7)
        self.http_port, self.grpc_port = ports[:2]
        gossip, data, raft, raft_internal, profiling = ports[2:]
        env = {
            "PERSISTENCE_DATA_PATH": str(folder / "data"), "CLUSTER_HOSTNAME": "node1",
            "DEFAULT_VECTORIZER_MODULE": "none", "ENABLE_MODULES": "", "DISABLE_TELEMETRY": "true",
            "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "false", "AUTHENTICATION_APIKEY_ENABLED": "true",
            "AUTHENTICATION_APIKEY_ALLOWED_KEYS": API_KEY, "AUTHENTICATION_APIKEY_USERS": "ragkube",
            "AUTHORIZATION_ADMINLIST_ENABLED": "true", "AUTHORIZATION_ADMINLIST_USERS": "ragkube",
            "GRPC_PORT": str(self.grpc_port), "CLUSTER_GOSSIP_BIND_PORT": str(gossip),
            "CLUSTER_DATA_BIND_PORT": str(data), "CLUSTER_ADVERTISE_ADDR": "127.0.0.1",
            "RAFT_PORT": str(raft), "RAFT_INTERNAL_RPC_PORT": str(raft_internal),
            "RAFT_BOOTSTRAP_EXPECT": "1", "RAFT_JOIN": f"node1:{raft}", "GO_PROFILING_PORT": str(profiling),
            "LOG_LEVEL": "warning", "GOMEMLIMIT": "1GiB",
        }  # fmt: skip
        command: list[str | Path] = [program, "--host", "127.0.0.1", "--port", str(self.http_port)]
        command += ["--scheme", "http"]
        self.process = Process(command, folder / "log", env)

    def settings(self, *, prefix: str = "Test", timeout_seconds: float = 30) -> WeaviateStore:
        key_file = self.folder / "api-key"
        key_file.write_text(API_KEY + "\n")
        return WeaviateStore(
            http_host="127.0.0.1", http_port=self.http_port, grpc_host="127.0.0.1", grpc_port=self.grpc_port,
            api_key_file=key_file, collection_prefix=prefix, timeout_seconds=timeout_seconds,
        )  # fmt: skip

    def start(self) -> None:
        self.process.start()
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


@pytest.fixture(scope="session")
def weaviate_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WeaviateServer]:
    """Weaviate 1.39, shared by the tests that do no harm to it."""
    server = start_weaviate(tmp_path_factory.mktemp("weaviate"))
    yield server
    server.kill()
