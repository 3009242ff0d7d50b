"""Talks to the Redis pods: reads the topology and runs the planner's steps. One connection per pod and pass."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import redis.exceptions
from redis.asyncio.connection import Connection, SSLConnection

from ragkube_operator.errors import RedisAuthError, RedisError
from ragkube_operator.redis_cluster import (
    AddSlots,
    Flush,
    Forget,
    Meet,
    Node,
    Peer,
    Replicate,
    Step,
    Takeover,
    Topology,
)

_CONNECT_SECONDS = 1.0
_ANSWER_SECONDS = 3.0


@dataclass(frozen=True)
class Endpoint:
    """Where a pod's Redis listens; ``host`` is the machine it runs on, if known."""

    pod: str
    ip: str
    port: int = 6379
    host: str = ""
    # tests run several nodes on one address; pods always listen on the default bus port
    bus_port: int | None = None

    @property
    def address(self) -> str:
        """As CLUSTER NODES spells it."""
        return f"{self.ip}:{self.port}"


@dataclass(frozen=True)
class Access:
    """How to get in. The password is never shown."""

    password: str | None = field(default=None, repr=False)
    username: str | None = None
    tls: bool = False
    ca: str | None = None


def _connection(endpoint: Endpoint, access: Access) -> Connection:
    options: dict[str, Any] = {
        "host": endpoint.ip,
        "port": endpoint.port,
        "username": access.username,
        "password": access.password,
        "socket_connect_timeout": _CONNECT_SECONDS,
        "socket_timeout": _ANSWER_SECONDS,
        "decode_responses": True,
        "protocol": 2,
    }
    if access.tls:
        return SSLConnection(**options, ssl_ca_data=access.ca)
    return Connection(**options)


@asynccontextmanager
async def _session(endpoint: Endpoint, access: Access) -> AsyncIterator[Connection]:
    connection = _connection(endpoint, access)
    try:
        await connection.connect()  # type: ignore[no-untyped-call]  # redis-py leaves it bare
        yield connection
    except redis.exceptions.AuthenticationError as error:
        raise RedisAuthError(f"{endpoint.pod} at {endpoint.address} refuses the password") from error
    except (redis.exceptions.RedisError, OSError, TimeoutError) as error:
        detail = str(error) or type(error).__name__
        raise RedisError(f"{endpoint.pod} at {endpoint.address}: {detail}") from error
    finally:
        with suppress(redis.exceptions.RedisError, OSError, TimeoutError):
            await connection.disconnect()


async def _command(connection: Connection, *words: str | int) -> Any:
    await connection.send_command(*words)
    return await connection.read_response()


async def ping(endpoint: Endpoint, access: Access) -> None:
    """Ask one node for life.

    Raises:
        RedisError: it does not answer, or not with our password.
    """
    async with _session(endpoint, access) as connection:
        await _command(connection, "PING")


async def observe(endpoints: Sequence[Endpoint], access: Access, expected: Iterable[str]) -> Topology:
    """What every pod that answers says about the cluster."""
    found = await asyncio.gather(*(_look(endpoint, access) for endpoint in endpoints))
    nodes = tuple(node for node in found if node is not None)
    answered = {node.pod for node in nodes}
    return Topology(nodes, tuple(name for name in expected if name not in answered))


async def _look(endpoint: Endpoint, access: Access) -> Node | None:
    try:
        async with _session(endpoint, access) as connection:
            lines = await _command(connection, "CLUSTER", "NODES")
            info = await _command(connection, "CLUSTER", "INFO")
            keys = await _command(connection, "DBSIZE")
            replication = await _command(connection, "INFO", "replication")
    except RedisAuthError:
        raise
    except RedisError:
        return None
    peers = parse_nodes(lines)
    fields = dict(line.split(":", 1) for line in replication.splitlines() if ":" in line)
    return Node(
        pod=endpoint.pod,
        address=endpoint.address,
        id=next(peer.id for peer in peers if "myself" in peer.flags),
        state_ok="cluster_state:ok" in info,
        peers=peers,
        keys=int(keys),
        offset=int(fields.get("slave_repl_offset", 0)),
        host=endpoint.host,
    )


def parse_nodes(text: str) -> tuple[Peer, ...]:
    """The lines of CLUSTER NODES."""
    return tuple(_parse_line(line.split()) for line in text.splitlines() if line.strip())


def _parse_line(words: list[str]) -> Peer:
    node_id, address, flags, primary, _, _, _, link, *ranges = words
    slots: set[int] = set()
    for item in ranges:
        if not item.startswith("["):  # [slot->-node]: a slot that is being moved
            first, _, last = item.partition("-")
            slots.update(range(int(first), int(last or first) + 1))
    return Peer(
        id=node_id,
        address=address.partition("@")[0],
        flags=frozenset(flags.split(",")),
        primary=None if primary == "-" else primary,
        slots=frozenset(slots),
        connected=link == "connected" or "myself" in flags,
    )


async def run(step: Step, endpoints: Sequence[Endpoint], access: Access) -> None:
    """Carry out one step.

    Raises:
        RedisError: a node refused or vanished; the next pass observes again and plans anew.
    """
    by_pod = {endpoint.pod: endpoint for endpoint in endpoints}
    commands = [(by_pod[pod], words) for pod, words in _commands(step, by_pod)]
    results = await asyncio.gather(
        *(_run_one(endpoint, words, access) for endpoint, words in commands), return_exceptions=True
    )
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def _run_one(endpoint: Endpoint, lines: list[list[str | int]], access: Access) -> None:
    async with _session(endpoint, access) as connection:
        for words in lines:
            try:
                await _command(connection, *words)
            except redis.exceptions.ResponseError as error:
                # another node's gossip was faster: what we wanted is so already
                if "Unknown node" not in str(error) or words[1] != "FORGET":
                    raise


def _commands(step: Step, endpoints: dict[str, Endpoint]) -> list[tuple[str, list[list[str | int]]]]:
    match step:
        case Takeover(pod=pod):
            return [(pod, [["CLUSTER", "FAILOVER", "TAKEOVER"]])]
        case Meet(pairs=pairs):
            return [(pod, [_meet(endpoints[other])]) for pod, other in pairs]
        case Forget(pairs=pairs):
            return [(pod, [["CLUSTER", "FORGET", node]]) for pod, node in pairs]
        case AddSlots(pod=pod, slots=slots, stale=stale):
            lines: list[list[str | int]] = []
            if stale:
                lines.append(["CLUSTER", "DELSLOTSRANGE", *_ranges(stale)])
            return [(pod, [*lines, ["CLUSTER", "ADDSLOTSRANGE", *_ranges(slots)]])]
        case Flush(pod=pod):
            return [(pod, [["FLUSHALL", "ASYNC"]])]
        case Replicate(pairs=pairs):
            return [(pod, [["CLUSTER", "REPLICATE", node]]) for pod, node in pairs]


def _meet(other: Endpoint) -> list[str | int]:
    words: list[str | int] = ["CLUSTER", "MEET", other.ip, other.port]
    return [*words, other.bus_port] if other.bus_port else words


def _ranges(slots: Iterable[int]) -> list[int]:
    """First and last of every run of neighbours, flat."""
    result: list[int] = []
    for slot in sorted(slots):
        if result and result[-1] == slot - 1:
            result[-1] = slot
        else:
            result += [slot, slot]
    return result
