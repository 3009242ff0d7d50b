"""Three Weaviate nodes that each hold everything: what was written through one is seen through all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from typing import TypeVar

import pytest

from contract.documents import DIMENSIONS, document, query
from ragkube_api.adapters.weaviate_store import open_weaviate_store
from ragkube_api.errors import StoreUnavailableError
from ragkube_api.ports import VectorStore
from support.processes import wait_for
from support.weaviate import WeaviateServer, start_weaviate_cluster

pytestmark = [pytest.mark.component("weaviate"), pytest.mark.timeout(900)]  # the first one may build it

T = TypeVar("T")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[WeaviateServer]]:
    started = start_weaviate_cluster(tmp_path_factory.mktemp("weaviate"))
    yield started
    for server in started:
        server.kill()


@pytest.fixture
async def stores(servers: list[WeaviateServer]) -> AsyncIterator[list[VectorStore]]:
    """One through each node."""
    async with AsyncExitStack() as stack:
        settings = [
            each.settings(prefix="Replicas", replication_factor=3, timeout_seconds=10) for each in servers
        ]
        yield [
            await stack.enter_async_context(open_weaviate_store(each, dimensions=DIMENSIONS))
            for each in settings
        ]


async def found(store: VectorStore, text: str) -> list[str]:
    return [passage.chunk.text for passage in await store.search("acme", query(text, k=1))]


@pytest.mark.proves("I4")
async def test_a_finished_write_is_seen_through_every_node_at_once(stores: list[VectorStore]) -> None:
    for number in range(12):
        name = f"d{number % 5}"
        text = f"unique{number} word"
        await stores[number % 3].put(document(name, [text]))
        for store in stores:
            assert await found(store, text) == [text]
            stored = await store.text("acme", name)
            assert stored is not None
            assert stored[1] == text
    for store in stores:
        assert await store.count("acme") == 5
        assert [each.id for each in (await store.list("acme", cursor=None, limit=9)).documents] == [
            f"d{number}" for number in range(5)
        ]
    await stores[0].delete("acme", "d0")
    for store in stores:
        assert await store.get("acme", "d0") is None


def leader(servers: list[WeaviateServer]) -> int:
    """Index of the node that decides about the schema; whoever is first at start-up becomes it."""

    def known() -> str:
        found = servers[0].call("GET", "cluster/statistics")["statistics"]
        return str(next((each["leaderId"] for each in found if each.get("leaderId")), ""))

    return int(wait_for("a node leads", known).removeprefix("node"))


@pytest.mark.proves("R3")
@pytest.mark.parametrize("leads", [False, True], ids=["follower", "leader"])
async def test_while_a_node_is_away_questions_are_answered_and_writes_refused(
    stores: list[VectorStore], servers: list[WeaviateServer], leads: bool
) -> None:
    """At once; when it was the leader, as soon as the others have another one."""
    await stores[0].put(document("kept", ["kept as it was"]))
    away = (await asyncio.to_thread(leader, servers) + (0 if leads else 1)) % 3
    here = [store for number, store in enumerate(stores) if number != away]
    servers[away].kill()
    try:
        with pytest.raises(StoreUnavailableError):
            await here[0].put(document("kept", ["half written"]))
        for store in here:
            if leads:
                await _at_last(partial(found, store, "kept as it was"))
            assert await found(store, "kept as it was") == ["kept as it was"]
            description = await store.text("acme", "kept")
            assert description is not None
            assert description[1] == "kept as it was"
    finally:
        await asyncio.to_thread(servers[away].start)
    await _at_last(partial(here[1].put, document("kept", ["written again"])))
    for store in stores:
        assert await found(store, "written again") == ["written again"]


async def _at_last(attempt: Callable[[], Awaitable[T]]) -> T:
    """Its result, as soon as the store is there."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return await attempt()
        except StoreUnavailableError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)
