"""The planner forms and heals a real Redis Cluster (and Valkey): nodes are killed, emptied and moved."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import redis as redis_py

from ragkube_operator import redis_client
from ragkube_operator.redis_client import Access, Endpoint
from ragkube_operator.redis_cluster import Done, Spec, Topology, plan
from support.processes import Process, free_ports, tool, wait_for
from support.redis import shards_are_agreed

PASSWORD = "s3cret"
ACCESS = Access(PASSWORD)


class Pods:
    """Redis processes that behave like the pods of a StatefulSet: replaced ones come back elsewhere."""

    def __init__(self, server: Path, folder: Path, size: int) -> None:
        self._server, self._folder = server, folder
        self._count = itertools.count()
        self.size = size
        self.processes: dict[int, Process] = {}
        self.endpoints: dict[int, Endpoint] = {}
        self._homes: dict[int, Path] = {}
        for index in range(size):
            self.start(index)

    def start(self, index: int, *, keep_data: bool = False) -> None:
        port, bus = free_ports(2)
        before = self._homes.get(index)
        home = self._folder / f"{index}-{next(self._count)}"
        if keep_data and before is not None:
            shutil.copytree(before, home)
        else:
            home.mkdir(parents=True)
        self._homes[index] = home
        options = {
            "port": port, "cluster-port": bus, "bind": "127.0.0.1", "dir": home, "cluster-enabled": "yes",
            "cluster-node-timeout": 1500, "save": '""', "requirepass": PASSWORD, "masterauth": PASSWORD,
            "appendonly": "yes", "appendfsync": "no", "repl-diskless-sync-delay": 0,
        }  # fmt: skip
        config = home / "redis.conf"
        config.write_text("".join(f"{name} {value}\n" for name, value in options.items()))
        process = Process([self._server, config], home / "log")
        process.start()
        self.processes[index] = process
        self.endpoints[index] = Endpoint(f"redis-{index}", "127.0.0.1", port, f"host-{index % 3}", bus)
        wait_for("redis answers", lambda: self.call(index, "PING"))

    def stop(self, *indexes: int) -> None:
        for index in indexes:
            self.processes[index].kill()

    def replace(self, *indexes: int, keep_data: bool = False) -> None:
        self.stop(*indexes)
        for index in indexes:
            self.start(index, keep_data=keep_data)

    def call(self, index: int, *words: str | int) -> object:
        endpoint = self.endpoints[index]
        try:
            with redis_py.Redis(port=endpoint.port, password=PASSWORD, protocol=2) as client:
                client.response_callbacks.clear()
                return client.execute_command(*words)
        except redis_py.RedisError as error:
            raise RuntimeError(str(error)) from error

    def observe(self, spec: Spec) -> Topology:
        living = [self.endpoints[index] for index in self.endpoints if self.processes[index].alive]
        names = [f"redis-{index}" for index in range(spec.size)]
        return asyncio.run(redis_client.observe(living, ACCESS, names))

    def heal(self, spec: Spec, *, seconds: float = 60) -> list[str]:
        """Plan and run until the planner is done; the names of the steps that were taken."""
        steps: list[str] = []
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            decision = plan(spec, self.observe(spec))
            if isinstance(decision, Done):
                return steps
            if isinstance(decision, tuple):
                for step in decision:
                    asyncio.run(redis_client.run(step, list(self.endpoints.values()), ACCESS))
                    steps.append(type(step).__name__)
            time.sleep(0.1)
        raise AssertionError(f"not whole after {seconds} s; last: {decision}, steps: {steps}")

    def client(self) -> redis_py.RedisCluster:
        port = next(self.endpoints[i].port for i in self.endpoints if self.processes[i].alive)
        return redis_py.RedisCluster(host="127.0.0.1", port=port, password=PASSWORD)

    def close(self) -> None:
        self.stop(*self.processes)


SPEC = Spec(3, 1)


@pytest.fixture(params=["redis", "valkey"])
def pods(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pods]:
    found = Pods(tool(f"{request.param}-server"), tmp_path, SPEC.size)
    yield found
    found.close()


def serves(pods: Pods) -> None:
    """Every node says ok, all slots are served, every primary has its replica, and writes are accepted."""
    for index in pods.endpoints:
        info = str(pods.call(index, "CLUSTER", "INFO"))
        assert "cluster_state:ok" in info
        assert "cluster_slots_assigned:16384" in info
        assert f"cluster_known_nodes:{pods.size}" in info
    topology = pods.observe(SPEC)
    primaries = [node for node in topology.nodes if not node.is_replica]
    assert len(primaries) == SPEC.shards
    followed = sorted(node.me.primary or "" for node in topology.nodes if node.is_replica)
    assert followed == sorted(node.id for node in primaries)
    with pods.client() as client:
        for number in range(50):
            client.set(f"probe-{number}", number)


@pytest.mark.component("redis")
@pytest.mark.proves("K6")
def test_a_cluster_is_formed_and_heals_whatever_is_replaced(pods: Pods) -> None:
    steps = pods.heal(SPEC)
    assert "AddSlots" in steps
    serves(pods)
    topology = pods.observe(SPEC)
    hosts = {node.id: node.host for node in topology.nodes}
    assert len({node.host for node in topology.nodes if not node.is_replica}) == 3
    assert all(node.host != hosts[node.me.primary] for node in topology.nodes if node.me.primary)
    for lost in [(0,), (0, 1), (0, 3), (1, 2, 4, 5), tuple(range(6))]:
        pods.replace(*lost)
        pods.heal(SPEC)
        serves(pods)


@pytest.mark.component("redis")
@pytest.mark.proves("K6")
def test_keys_survive_when_one_pod_after_the_other_is_replaced(pods: Pods) -> None:
    pods.heal(SPEC)
    with pods.client() as client:
        for number in range(200):
            client.set(f"key-{number}", number)
    for index in range(SPEC.size):
        synced(pods)
        pods.replace(index)
        pods.heal(SPEC)
    synced(pods)
    with pods.client() as client:
        assert [int(client.get(f"key-{number}") or -1) for number in range(200)] == list(range(200))


@pytest.mark.component("redis")
@pytest.mark.proves("K6")
def test_all_pods_move_with_their_volumes_and_no_key_is_lost(pods: Pods) -> None:
    """Every address changes at once, so no node can find another one by itself."""
    pods.heal(SPEC)
    with pods.client() as client:
        for number in range(200):
            client.set(f"key-{number}", number)
    synced(pods)
    pods.replace(*range(SPEC.size), keep_data=True)
    steps = pods.heal(SPEC)
    assert "Meet" in steps
    assert "AddSlots" not in steps
    serves(pods)
    with pods.client() as client:
        assert [int(client.get(f"key-{number}") or -1) for number in range(200)] == list(range(200))


@pytest.mark.component("redis")
@pytest.mark.proves("K6")
def test_without_a_majority_of_primaries_the_replicas_are_promoted(pods: Pods) -> None:
    pods.heal(SPEC)
    synced(pods)
    topology = pods.observe(SPEC)
    primaries = [int(node.pod[-1]) for node in topology.nodes if not node.is_replica]
    pods.stop(*primaries[:2])

    def covered() -> bool:
        decision = plan(SPEC, pods.observe(SPEC))
        if isinstance(decision, tuple):
            for step in decision:
                assert type(step).__name__ == "Takeover"
                asyncio.run(redis_client.run(step, list(pods.endpoints.values()), ACCESS))
        return "cluster_state:ok" in str(pods.call(primaries[2], "CLUSTER", "INFO"))

    wait_for("the surviving pods serve every slot", covered)
    for index in primaries[:2]:
        pods.start(index)
    pods.heal(SPEC)
    serves(pods)


def synced(pods: Pods) -> None:
    def linked() -> bool:
        texts = [str(pods.call(index, "INFO", "replication")) for index in pods.endpoints]
        return all("role:master" in text or "master_link_status:up" in text for text in texts)

    def agreed() -> bool:
        shards = [pods.call(index, "CLUSTER", "SHARDS") for index in pods.endpoints]
        return all(shards_are_agreed(cast("list[list[object]]", each)) for each in shards)

    wait_for("replicas have their primaries' data", linked)
    wait_for("everyone knows who belongs together", agreed)
