"""The configuration and the scripts of a Redis pod, on real servers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ragkube_operator.crd.cache import ManagedRedis
from ragkube_operator.render import redis_files
from support.processes import Process, free_ports, tool, wait_for
from support.redis import SHARDS, RedisServers, start_cluster

pytestmark = pytest.mark.proves("K6")

PASSWORD = "s3cret"
FLAVOURS = [
    pytest.param("redis", marks=pytest.mark.component("redis")),
    pytest.param("valkey", marks=pytest.mark.component("valkey")),
]


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def servers(flavour: str, tmp_path: Path) -> Iterator[RedisServers]:
    """A cluster of its own: the tests change who is primary."""
    found = start_cluster(flavour, tmp_path / "servers", password=PASSWORD)
    yield found
    found.stop()


def managed(flavour: str, *, stored: bool = False) -> ManagedRedis:
    storage: dict[str, object] = {"storage": {}} if stored else {}
    return ManagedRedis.model_validate({"flavor": flavour.capitalize(), **storage})


def run(flavour: str, script: str, port: int, folder: Path) -> subprocess.CompletedProcess[str]:
    """A script of the pod, for the server on a port, where only ``sh``, ``sleep`` and the client exist."""
    commands = folder / f"commands-{port}"
    if not commands.exists():
        commands.mkdir(parents=True)
        client = commands / f"{flavour}-cli"
        client.write_text(f'#!/bin/sh\nexec {tool(f"{flavour}-cli")} -p {port} "$@"\n')
        client.chmod(0o755)
        (commands / "sleep").symlink_to("/bin/sleep")
    (folder / "password").write_text(PASSWORD)
    file = folder / script
    file.write_text(
        redis_files.files(managed(flavour))[script].replace(redis_files.AUTH_DIRECTORY, str(folder))
    )
    command = ["/bin/sh", str(file)]
    return subprocess.run(
        command, env={"PATH": str(commands)}, capture_output=True, text=True, check=False, timeout=30
    )


def _bus(servers: RedisServers, index: int) -> int:
    """Port on which a node speaks to its peers."""
    lines = str(servers.call(index, "CLUSTER", "NODES")).splitlines()
    (own,) = (line for line in lines if "myself" in line)
    return int(own.split()[1].partition("@")[2].partition(",")[0])


@pytest.mark.parametrize("stored", [False, True], ids=["memory", "stored"])
def test_the_server_takes_the_configuration_and_is_not_ready_before_it_is_in_a_cluster(
    flavour: str, tmp_path: Path, stored: bool
) -> None:
    port, bus = free_ports(2)
    (tmp_path / "auth.conf").write_text(f"requirepass {PASSWORD}\nmasterauth {PASSWORD}\n")
    text = redis_files.config(managed(flavour, stored=stored))
    for pod, here in (
        (redis_files.AUTH_DIRECTORY, str(tmp_path)),
        (redis_files.DATA, str(tmp_path)),
        ("port 6379", f"port {port}"),
    ):
        text = text.replace(pod, here)
    config = tmp_path / "redis.conf"
    config.write_text(text)
    options = ["--cluster-announce-ip", "127.0.0.1", "--cluster-port", str(bus)]
    server = Process([tool(f"{flavour}-server"), config, *options], tmp_path / "log")
    server.start()
    try:
        wait_for("alive", lambda: run(flavour, "alive.sh", port, tmp_path).returncode == 0)
        ready = run(flavour, "ready.sh", port, tmp_path)
        assert (ready.returncode, ready.stdout) == (1, "the cluster is not formed, or most of it is away\n")
    finally:
        server.kill()
    assert run(flavour, "alive.sh", port, tmp_path).returncode == 1
    assert "FATAL" not in (tmp_path / "log").read_text()


@pytest.mark.proves("R5")
def test_a_primary_hands_over_before_it_ends_and_a_replica_just_ends(
    servers: RedisServers, flavour: str, tmp_path: Path
) -> None:
    key = "answer"
    primary = servers.primary_of(key)
    servers.call(primary, "SET", key, "kept")
    assert run(flavour, "ready.sh", servers.ports[primary], tmp_path).returncode == 0

    done = run(flavour, "hand-over.sh", servers.ports[primary], tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert servers.call(primary, "ROLE")[0] == "slave"
    heir = servers.primary_of(key)
    assert heir != primary
    assert servers.call(heir, "GET", key) == "kept"
    assert run(flavour, "hand-over.sh", servers.ports[primary], tmp_path).returncode == 0
    assert servers.primary_of(key) == heir


def test_a_node_is_ready_when_it_has_slots_or_a_whole_copy(
    servers: RedisServers, flavour: str, tmp_path: Path
) -> None:
    replica = SHARDS
    ports = servers.ports
    assert {run(flavour, "ready.sh", port, tmp_path).returncode for port in ports} == {0}

    servers.call(replica, "CLUSTER", "RESET", "HARD")
    servers.call(0, "CLUSTER", "MEET", "127.0.0.1", ports[replica], _bus(servers, replica))
    wait_for("it has met them", lambda: "cluster_state:ok" in str(servers.call(replica, "CLUSTER", "INFO")))

    joined = run(flavour, "ready.sh", ports[replica], tmp_path)
    assert (joined.returncode, joined.stdout) == (1, "neither slots nor a primary to copy\n")


def test_a_primary_without_replicas_ends_without_waiting(
    servers: RedisServers, flavour: str, tmp_path: Path
) -> None:
    for replica in servers.processes[SHARDS:]:
        replica.kill()
    port = servers.ports[0]
    wait_for(
        "it knows",
        lambda: "fail" in str(servers.call(0, "CLUSTER", "REPLICAS", servers.call(0, "CLUSTER", "MYID"))),
    )
    done = run(flavour, "hand-over.sh", port, tmp_path)
    assert done.returncode == 0
    assert servers.call(0, "ROLE")[0] == "master"
