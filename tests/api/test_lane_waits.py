"""Whatever happens to a connection while its question waits for Redis, or was asked on it before: all ways do the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from unittest.mock import patch

import pytest

from ragkube_api.adapters.wordllama_embedder import WordllamaEmbedder
from ragkube_api.domain import Lookup
from support.lanes import Exchanged, Lane, Lanes, Sent, Shared, normal, question, response, until

pytestmark = pytest.mark.usefixtures("patience")


class Held(Shared):
    """Its first reply does not come before ``gate`` opens; ``asked`` when somebody waits for it."""

    def __init__(self, inner: Any, *, without_task: bool) -> None:
        super().__init__(inner)
        self.without_task = without_task
        self.asked, self.gate = asyncio.Event(), asyncio.Event()

    def ask(self, tenant: str, key: Any, beside: Any, deliver: Any) -> bool:
        async def later() -> None:
            deliver(await self.lookup(tenant, key, beside))

        if self.without_task:
            self.replying = asyncio.create_task(later())
        return self.without_task

    async def lookup(self, *asked: Any) -> Lookup:
        self.asked.set()
        await self.gate.wait()
        found: Lookup = await self.inner.lookup(*asked)
        return found


class Early(Held):
    """Its first reply comes when ``gate`` opens, and says what was so before."""

    async def lookup(self, *asked: Any) -> Lookup:
        found: Lookup = await self.inner.lookup(*asked)
        if not self.asked.is_set():
            self.asked.set()
            await self.gate.wait()
        return found


class Talk:
    """A client in the middle of a question that waits."""

    def __init__(self, lane: Lane, held: Held) -> None:
        self.lane = lane
        self.held = held

    async def begin(self, body: bytes = question()) -> None:
        self.reader, self.writer = await asyncio.open_connection(*self.lane.address[:2])
        self.writer.write(Sent(body).head() + body)
        await self.held.asked.wait()

    async def another(self) -> None:
        """A request that the server has read, behind the one that waits."""
        self.writer.write(Sent(question(k=99)).head() + question(k=99))
        await until(lambda: self.connection.pipeline)

    @property
    def connection(self) -> Any:
        """The server's end."""
        (connection,) = self.lane.state.connections
        return connection

    async def responses(self, number: int) -> Exchanged:
        self.held.gate.set()
        found = [normal(*await response(self.reader, "POST")) for _ in range(number)]
        return [], found


async def nothing_happens(talk: Talk) -> Exchanged:
    return await talk.responses(1)


async def another_one_comes(talk: Talk) -> Exchanged:
    await talk.another()
    return await talk.responses(2)


async def half_of_another_one_comes(talk: Talk) -> Exchanged:
    wire = Sent(question(k=3)).head() + question(k=3)
    talk.writer.write(wire[:20])
    await until(lambda: talk.connection._head_began is not None)
    talk.held.gate.set()
    first = normal(*await response(talk.reader, "POST"))
    talk.writer.write(wire[20:])
    return [], [first, normal(*await response(talk.reader, "POST"))]


async def the_client_leaves(talk: Talk) -> Exchanged:
    talk.writer.transport.abort()
    await until(lambda: not talk.lane.state.connections)
    return await talk.responses(0)


async def garbage_comes(talk: Talk) -> Exchanged:
    talk.writer.write(b"\0\1\2 garbage\r\n\r\n")
    assert await talk.reader.read() == b"", "closed without a word: nobody knows what belongs to what"
    return await talk.responses(0)


async def the_server_shuts_down(talk: Talk) -> Exchanged:
    for connection in list(talk.lane.state.connections):
        connection.shutdown()
    assert talk.lane.state.tasks, "it is waited for"
    exchanged = await talk.responses(1)
    assert await talk.reader.read() == b""
    return exchanged


async def the_process_drains(talk: Talk) -> Exchanged:
    talk.lane.runtime.health.draining = True
    exchanged = await talk.responses(1)
    talk.lane.runtime.health.draining = False
    assert await talk.reader.read() == b""
    return exchanged


async def the_client_takes_nothing(talk: Talk) -> Exchanged:
    talk.connection.pause_writing()
    talk.held.gate.set()
    await until(lambda: talk.connection.flow._is_writable_event._waiters)  # it has an answer
    talk.connection.resume_writing()
    return await talk.responses(1)


@pytest.mark.proves("C9")
@pytest.mark.parametrize(
    "happens",
    [
        nothing_happens, another_one_comes, half_of_another_one_comes, the_client_leaves, garbage_comes,
        the_server_shuts_down, the_process_drains, the_client_takes_nothing,
    ],
)  # fmt: skip
async def test_what_happens_while_redis_is_asked_is_treated_alike(
    lanes: Lanes, happens: Callable[[Talk], Awaitable[Exchanged]]
) -> None:
    async def outcome(lane: Lane, *, without_task: bool) -> Any:
        held = Held(lanes.runtime.answering._cache, without_task=without_task)
        lane.below = lambda _: held

        async def exchange() -> Exchanged:
            talk = Talk(lane, held)
            await talk.begin()
            assert bool(lane.state.tasks) is (lane is not lanes.asked)
            exchanged = await happens(talk)
            talk.writer.close()
            return exchanged

        return await lane.seen(exchange)

    await lanes.slow.send(Sent(question(k=3)))
    await lanes.slow.send(Sent(question()))
    slow = await outcome(lanes.slow, without_task=False)
    assert await outcome(lanes.asked, without_task=True) == slow
    assert await outcome(lanes.foreseen, without_task=True) == slow
    assert slow.metrics["rag_cache_hits_total[('kind', 'exact'), ('level', 'l1')]"] >= 1


@pytest.mark.proves("C9")
async def test_the_reply_to_a_request_that_was_given_up_is_thrown_away(lanes: Lanes) -> None:
    """What becomes of others that wait for Redis: ``tests/component/test_redis_hits.py``."""
    held = Held(lanes.runtime.answering._cache, without_task=True)
    with patch.object(lanes.runtime.answering, "_cache", held):
        talk = Talk(lanes.asked, held)
        await talk.begin()
        await talk.another()
        (task,) = lanes.asked.state.tasks
        task.cancel()
        await asyncio.wait([task])
        held.gate.set()
        await held.replying
    assert lanes.asked.app._visits.busy == 0


@pytest.mark.proves("C9")
async def test_what_will_probably_have_to_be_made_is_prepared_while_redis_is_asked(lanes: Lanes) -> None:
    async def embedded_before_the_reply(body: bytes) -> bool:
        held, embedded = Held(lanes.runtime.answering._cache, without_task=True), []
        embed = WordllamaEmbedder.embed

        def noted(self: WordllamaEmbedder, texts: Any) -> Any:
            embedded.append(held.gate.is_set())
            return embed(self, texts)

        with (
            patch.object(lanes.runtime.answering, "_cache", held),
            patch.object(WordllamaEmbedder, "embed", noted),
        ):
            talk = Talk(lanes.asked, held)
            await talk.begin(body)
            if lanes.asked.state.tasks:
                await until(lambda: embedded)
            await talk.responses(1)
            talk.writer.close()
        return False in embedded

    async def asked(*bodies: bytes) -> None:
        for body in bodies:
            await lanes.asked.send(Sent(body))

    await asked(*(question(question=f"How far away is star {number}?") for number in range(3)))
    assert await embedded_before_the_reply(question(question="How far away is Venus?"))
    await asked(*[question()] * 4)
    assert not await embedded_before_the_reply(question(question="How far away is Mars?"))


@pytest.mark.proves("C6")
async def test_an_answer_that_is_made_while_the_reply_is_on_its_way_is_not_made_again(lanes: Lanes) -> None:
    held = Early(lanes.runtime.answering._cache, without_task=True)
    with patch.object(lanes.runtime.answering, "_cache", held):
        talk = Talk(lanes.asked, held)
        await talk.begin()
        reader, writer = await asyncio.open_connection(*lanes.slow.address[:2])
        writer.write(Sent(question()).head() + question())
        made = json.loads((await response(reader, "POST"))[2])
        held.gate.set()
        late = json.loads((await response(talk.reader, "POST"))[2])
    assert [each["cache"]["status"] for each in (made, late)] == ["miss", "miss"]
    assert late["id"] == made["id"]


@pytest.mark.proves("C9")
async def test_a_fault_of_ours_is_answered_counted_and_costs_no_place(lanes: Lanes) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("a bug")

    asked = Sent(question())
    await lanes.slow.send(asked)
    for lane in lanes.all:
        await lane.send(asked)
        with patch.object(lanes.runtime.answering, "_hit", fails):
            seen = await lane.send(asked)
        assert seen.status == 500
        assert (
            seen.metrics["rag_requests_total[('method', 'POST'), ('route', '/v1/query'), ('status', '500')]"]
            == 1
        )
        assert lane.app._visits.busy == 0
        assert (await lane.send(asked)).status == 200


@pytest.mark.proves("C9")
async def test_a_connection_that_asks_again_and_again_is_treated_alike(lanes: Lanes) -> None:
    """A head that it has sent before is known, whatever came between."""
    between = [
        Sent(question()), Sent(question(), key="team"), Sent(question(k=3)), Sent(question(k=99)), Sent(b'{"question"'),
        Sent(question(), (("Cache-Control", "no-store"),)), Sent(method="GET", path="/v1/sources"),
        Sent(question(), (("Transfer-Encoding", "chunked"),)), Sent(question(), writes="head first"),
        Sent(question(), (("Traceparent", f"00-{'a' * 32}-{'b' * 16}-01"),)),
        Sent(question(tags=["release:7"])), Sent(question(), key="reader"),
    ]  # fmt: skip

    async def exchange(lane: Lane) -> Exchanged:
        reader, writer = await asyncio.open_connection(*lane.address[:2])
        found = []
        for each in between:
            for sent in (each, Sent(question())):
                for piece in sent.wire():
                    writer.write(piece)
                    await asyncio.sleep(0.001)
                found.append(normal(*await response(reader, sent.method)))
        writer.close()
        return [], found

    async def outcome(lane: Lane) -> Any:
        return await lane.seen(lambda: exchange(lane))

    for lane in lanes.all:
        await outcome(lane)
    slow, *others = [await outcome(lane) for lane in lanes.all]
    assert [status for status, _, _ in slow.more].count(200) == 2 * len(between) - 3
    for other in others:
        assert other == slow
