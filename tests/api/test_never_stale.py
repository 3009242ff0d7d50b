"""The promise of the cache under load: an answer never rests on a version that was replaced before it was asked for.

Writers change documents all the time, clients ask all the time. Every write has a number that stands in its
text, so each citation tells which write it rests on.
"""

from __future__ import annotations

import asyncio
import random
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ragkube_api.context import Backends
from support.api import RunningApp, running_app, settings_in
from support.redis import RedisServers
from support.trouble import Away
from support.weaviate import WeaviateServer

DOORS = ("kitchen", "garden", "cellar")
CLIENTS = 4


@dataclass(slots=True)
class Door:
    """Numbers of the writes of one document: begun, ended, and the last one that put it (not deleted it)."""

    name: str
    begun: int = 0
    ended: int = 0
    present: bool = False

    @property
    def question(self) -> str:
        return f"What is the code of the {self.name} door?"


class World:
    """Writers, clients and the check of every answer."""

    def __init__(self, replicas: Sequence[RunningApp], seed: int, writes: int) -> None:
        self.replicas = replicas
        self.random = random.Random(seed)
        self.writes = writes
        self.doors = [Door(name) for name in DOORS]
        self.hits = self.answers = 0
        self.running = len(self.doors)

    @property
    def app(self) -> RunningApp:
        """Any replica will do."""
        return self.random.choice(self.replicas)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for door in self.doors:
                group.create_task(self.write(door))
            for _ in range(CLIENTS):
                group.create_task(self.ask_on())

    async def write(self, door: Door) -> None:
        path = f"/v1/documents/{door.name}.txt"
        for _ in range(self.writes):
            await asyncio.sleep(self.random.random() * 0.02)
            door.begun += 1
            number = door.begun
            if door.present and self.random.random() < 0.25:
                assert (await self.app.client.delete(path)).status_code == 204
                door.present = False
            else:
                text = f"The code of the {door.name} door is {number}."
                assert (await self.app.put(f"{door.name}.txt", text)).status_code in {200, 201}
                door.present = True
            door.ended = number
            if number % 10 == 0:
                await self.a_hit()
        self.running -= 1

    async def a_hit(self) -> None:
        """Writers pause now and then, so that there is a cache to be stale."""
        seen = self.hits
        while self.hits == seen:  # noqa: ASYNC110 - counted by many clients
            await asyncio.sleep(0.002)

    async def ask_on(self) -> None:
        while self.running:
            await self.ask(self.random.choice(self.doors))
            await asyncio.sleep(0)  # an answer from the cache waits for nothing, and nobody else would run

    async def ask(self, door: Door) -> Any:
        least = {each.name: each.ended for each in self.doors}
        answer = await self.app.ask(door.question, k=self.random.choice((1, 5)))
        most = {each.name: each.begun for each in self.doors}
        self.answers += 1
        self.hits += answer["cache"]["status"] == "hit"
        for citation in answer["citations"]:
            name = citation["document"].removesuffix(".txt")
            number = int(re.findall(r"\d+", citation["quote"])[0])
            assert least[name] <= number <= most[name], (least, most, answer)
        return answer

    async def settled(self) -> None:
        """Nobody writes any more: asked twice, each answer is the current one, and the second comes from the cache."""
        for door in self.doors:
            for replica in [*self.replicas, *self.replicas]:
                answer = await replica.ask(door.question, k=2)
                cited = {citation["document"] for citation in answer["citations"]}
                assert (f"{door.name}.txt" in cited) is door.present
                assert (f"{door.name} door is {door.ended}." in answer["answer"]) is door.present
            assert answer["cache"]["status"] == "hit"


class Dawdling(Away):
    """Takes its time where a write may overtake a question."""

    async def search(self, *arguments: Any) -> Any:
        found = await self.inner.search(*arguments)
        await asyncio.sleep(random.random() * 0.02)
        return found

    async def put(self, *arguments: Any) -> None:
        await asyncio.sleep(random.random() * 0.005)
        await self.inner.put(*arguments)
        await asyncio.sleep(random.random() * 0.005)


def _dawdling(backends: Backends) -> Backends:
    return replace(backends, store=Dawdling(backends.store))


async def _play(replicas: Sequence[RunningApp], seed: int, writes: int) -> None:
    world = World(replicas, seed, writes)
    await world.run()
    assert world.answers > writes
    await world.settled()
    assert world.hits >= writes // 10


@pytest.mark.proves("C1")
@pytest.mark.parametrize("seed", [1, 2])
async def test_no_answer_rests_on_a_version_that_was_replaced_before_it_was_asked(
    tmp_path: Path, seed: int
) -> None:
    async with running_app(settings_in(tmp_path), _dawdling) as app:
        await _play([app], seed, writes=40)


@pytest.mark.component("redis")
@pytest.mark.component("weaviate")
@pytest.mark.proves("C4")
async def test_two_replicas_on_redis_cluster_and_weaviate_never_answer_from_what_the_other_replaced(
    tmp_path: Path, redis_cluster: RedisServers, weaviate_server: WeaviateServer
) -> None:
    prefix = f"Stale{uuid.uuid4().hex[:8]}"
    parts = {
        "store": weaviate_server.settings(prefix=prefix).model_dump(mode="json"),
        "cache": {"backend": redis_cluster.settings(prefix=prefix.lower()).model_dump(mode="json")},
    }
    async with (
        running_app(settings_in(tmp_path, **parts), _dawdling) as one,
        running_app(settings_in(tmp_path, **parts), _dawdling) as two,
    ):
        await _play([one, two], seed=3, writes=20)
    weaviate_server.forget(prefix)


@pytest.mark.soak
@pytest.mark.proves("C1")
@pytest.mark.parametrize("seed", range(100, 140))
async def test_no_stale_answer_in_a_long_run(tmp_path: Path, seed: int) -> None:
    async with running_app(settings_in(tmp_path), _dawdling) as app:
        await _play([app], seed, writes=300)
