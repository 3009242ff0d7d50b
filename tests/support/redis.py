"""A real Redis Cluster (or Valkey): six processes, three primaries with a replica each."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from ragkube_api.settings import RedisCacheBackend
from support.processes import Process, free_ports, tool, wait_for

SLOTS = 16384
SHARDS = 3

NEVER_LOST = 60_000
"""Milliseconds: no failover because the machine has too much to do."""


class RedisServers:
    """Six processes on free loopback ports, formed with plain ``CLUSTER`` commands."""

    def __init__(
        self,
        server: Path,
        folder: Path,
        *,
        password: str | None = None,
        persistent: bool = False,
        tls: bool = False,
        node_timeout: int = 1500,
    ) -> None:
        self.server = server
        self.folder = folder
        self.password = password
        self.persistent = persistent
        self.node_timeout = node_timeout
        self.certificate = _certificate(folder) if tls else None
        ports = free_ports(4 * SHARDS)
        self.ports, self._bus = ports[: 2 * SHARDS], ports[2 * SHARDS :]
        self.processes = [self._process(port, bus) for port, bus in zip(self.ports, self._bus, strict=True)]

    def settings(self, *, prefix: str = "test", timeout_seconds: float = 10.0) -> RedisCacheBackend:
        """Only two of the nodes are named: they tell the others. Nothing is given up because the machine is busy."""
        password_file = None
        if self.password is not None:
            password_file = self.folder / "password"
            password_file.write_text(self.password + "\n")
        return RedisCacheBackend(
            nodes=[f"127.0.0.1:{port}" for port in (self.ports[0], self.ports[4])],
            tls=self.certificate is not None, tls_ca_file=self.certificate,
            password_file=password_file, key_prefix=prefix, timeout_seconds=timeout_seconds,
        )  # fmt: skip

    def start(self) -> None:
        for process in self.processes:
            process.start()
        for index in range(len(self.ports)):
            wait_for("redis answers", partial(self._answers, index))

    def form(self) -> None:
        """Slots to the first three, everyone meets, the last three replicate."""
        for shard in range(SHARDS):
            first, last = SLOTS * shard // SHARDS, SLOTS * (shard + 1) // SHARDS - 1
            self.call(shard, "CLUSTER", "SET-CONFIG-EPOCH", shard + 1)
            self.call(shard, "CLUSTER", "ADDSLOTSRANGE", first, last)
        for port, bus in zip(self.ports[1:], self._bus[1:], strict=True):
            self.call(0, "CLUSTER", "MEET", "127.0.0.1", port, bus)
        for index in range(2 * SHARDS):
            wait_for("everyone knows everyone", partial(self._knows_all, index))
        for shard in range(SHARDS):
            primary = self.call(shard, "CLUSTER", "MYID")
            self.call(SHARDS + shard, "CLUSTER", "REPLICATE", primary)
            # which is told later than its data
            wait_for(
                "the primary knows its replica",
                partial(self.call, shard, "CLUSTER", "REPLICAS", primary),
            )
        self.wait_until_whole()

    def wait_until_whole(self) -> None:
        """Every node says that the cluster is ok, every replica has its primary's data, and who belongs together is agreed."""
        for index in range(2 * SHARDS):
            wait_for("the cluster is whole", partial(self._whole, index))

    def primary_of(self, key: str) -> int:
        """Index of the node that serves the key now, as its peers that live see it."""
        for index, process in enumerate(self.processes):
            if not process.alive or process.frozen or not self._answers(index):
                continue
            slot = int(self.call(index, "CLUSTER", "KEYSLOT", key))
            for entry in self.call(index, "CLUSTER", "SLOTS"):
                if int(entry[0]) <= slot <= int(entry[1]):
                    return self.ports.index(int(entry[2][1]))
        raise AssertionError("no node lives")

    def wait_for_failover(self, key: str, *, lost: int) -> int:
        """Until another node than ``lost`` is the key's primary and serves."""

        def other() -> int | None:
            now = self.primary_of(key)
            serves = "cluster_state:ok" in str(self.call(now, "CLUSTER", "INFO"))
            return now + 1 if now != lost and serves else None

        return int(wait_for("a replica is promoted", other) or 0) - 1

    def call(self, index: int, *command: str | int | bytes) -> Any:
        """One command on one node, raw and tried once: whoever waits for something asks again."""
        with redis.Redis(
            host="127.0.0.1", port=self.ports[index], password=self.password, protocol=2, socket_timeout=5,
            retry=Retry(NoBackoff(), 0), decode_responses=True, ssl=self.certificate is not None, ssl_ca_certs=str(self.certificate) if self.certificate else None,
        ) as client:  # fmt: skip
            client.response_callbacks.clear()
            try:
                return client.execute_command(*command)
            except RedisError as error:
                raise RuntimeError(f"{command}: {error}") from error

    def stop(self) -> None:
        for process in self.processes:
            process.kill()

    def _process(self, port: int, bus: int) -> Process:
        folder = self.folder / str(port)
        folder.mkdir(parents=True)
        options = {
            "port": port, "cluster-port": bus, "bind": "127.0.0.1", "cluster-enabled": "yes",
            "cluster-node-timeout": self.node_timeout, "dir": folder, "save": "",
            "appendonly": "yes" if self.persistent else "no", "repl-diskless-sync-delay": 0,
        }  # fmt: skip
        if self.password is not None:
            options |= {"requirepass": self.password, "masterauth": self.password}
        if self.certificate is not None:
            options |= {
                "port": 0, "tls-port": port, "tls-cluster": "yes", "tls-replication": "yes", "tls-auth-clients": "no",
                "tls-cert-file": self.certificate, "tls-key-file": self.certificate.with_suffix(".key"),
                "tls-ca-cert-file": self.certificate,
            }  # fmt: skip
        lines = [f"{name} {value if value != '' else chr(34) * 2}" for name, value in options.items()]
        config = folder / "redis.conf"
        config.write_text("\n".join(lines) + "\n")
        return Process([self.server, config], folder / "log")

    def _answers(self, index: int) -> bool:
        try:
            return bool(self.call(index, "PING") == "PONG")
        except (RuntimeError, OSError):
            return False

    def _knows_all(self, index: int) -> bool:
        return f"cluster_known_nodes:{2 * SHARDS}" in str(self.call(index, "CLUSTER", "INFO"))

    def _whole(self, index: int) -> bool:
        state = str(self.call(index, "CLUSTER", "INFO"))
        replication = str(self.call(index, "INFO", "replication"))
        linked = "role:master" in replication or "master_link_status:up" in replication
        agreed = shards_are_agreed(self.call(index, "CLUSTER", "SHARDS"))
        return "cluster_state:ok" in state and "cluster_slots_ok:16384" in state and linked and agreed


def shards_are_agreed(shards: Sequence[Sequence[Any]]) -> bool:
    """Whether a node knows each replica's shard as its primary's (``CLUSTER SHARDS``), which it learns last.

    A node that ends before then does not start again: https://github.com/valkey-io/valkey/issues/2171.
    """
    return [len(shard[3]) for shard in shards] == [2] * SHARDS


def _certificate(folder: Path) -> Path:
    """One that signs itself, for the loopback address."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "tls.crt"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(file)]
    command += ["-keyout", str(file.with_suffix(".key"))]
    subprocess.run(command, check=True, capture_output=True)
    return file


def start_cluster(
    flavour: str,
    folder: Path,
    *,
    password: str | None = None,
    persistent: bool = False,
    tls: bool = False,
    node_timeout: int = 1500,
) -> RedisServers:
    """A formed cluster of ``redis`` or ``valkey``; ``node_timeout`` in ms."""
    servers = RedisServers(
        tool(f"{flavour}-server"), folder, password=password, persistent=persistent, tls=tls,
        node_timeout=node_timeout,
    )  # fmt: skip
    try:
        servers.start()
        servers.form()
    except BaseException:
        servers.stop()
        raise
    return servers


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServers]:
    """Redis 8, shared by the tests that do no harm to it."""
    servers = start_cluster(
        "redis", tmp_path_factory.mktemp("redis"), password="s3cret", node_timeout=NEVER_LOST
    )
    yield servers
    servers.stop()


@pytest.fixture(scope="session")
def valkey_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServers]:
    """Valkey 8, shared by the tests that do no harm to it."""
    servers = start_cluster("valkey", tmp_path_factory.mktemp("valkey"), node_timeout=NEVER_LOST)
    yield servers
    servers.stop()
