"""A random walk of two replicas over a real Redis Cluster that breaks: no answer from before a finished write."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from ragkube_api.adapters import redis_scripts
from ragkube_api.adapters.redis_client import Script
from ragkube_api.domain import Lifetime
from support.never_stale import DOCUMENTS, Replica, World, heal
from support.redis import RedisServers, start_cluster

pytestmark = pytest.mark.component("redis")
STEPS = 100
REPLICA = st.integers(0, 1)
DOCUMENT = st.integers(0, DOCUMENTS - 1)
RARELY = st.sampled_from([False, False, False, True])
WHICH = st.integers(0, 5)
LIFETIME = st.sampled_from([Lifetime(3600), Lifetime(3600), Lifetime(0.02), Lifetime(0.02, 3600)])


@dataclass
class Stage:
    """What outlives one walk: servers, replicas, the loop they live in, and what was seen."""

    servers: RedisServers
    loop: asyncio.AbstractEventLoop
    replicas: list[Replica]
    steps: int = 0
    caught: int = 0
    seen: Counter[str] = field(default_factory=Counter)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServers]:
    """One of its own: shards fail over."""
    started = start_cluster("redis", tmp_path_factory.mktemp("model"), password="secret")
    yield started
    started.stop()


@pytest.fixture
def stage(servers: RedisServers) -> Iterator[Stage]:
    loop = asyncio.new_event_loop()
    replicas = [Replica(servers), Replica(servers)]

    async def all_of(name: str) -> None:
        for replica in replicas:
            await getattr(replica, name)()

    loop.run_until_complete(all_of("open"))
    loop.run_until_complete(all_of("listens"))
    yield Stage(servers, loop, replicas)
    loop.run_until_complete(all_of("close"))
    loop.close()


class Walk(RuleBasedStateMachine):
    """Rules that stand there twice are taken twice as often."""

    stage: Stage

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.stage.servers, self.stage.replicas)

    def do(self, step: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
        self.stage.steps += 1
        try:
            self.stage.loop.run_until_complete(step(*arguments))
        except AssertionError:
            self.stage.caught = self.stage.caught or self.stage.steps
            raise

    @rule(replica=REPLICA, document=DOCUMENT)
    def ask(self, replica: int, document: int) -> None:
        self.do(self.world.ask_and_fill, self.stage.replicas[replica], document)

    @rule(replica=REPLICA, document=DOCUMENT)
    def ask_and_take_time(self, replica: int, document: int) -> None:
        self.do(self.world.ask, self.stage.replicas[replica], document)

    @rule(document=DOCUMENT, times=st.integers(1, 2))
    def ask_everywhere(self, document: int, times: int) -> None:
        for replica in self.stage.replicas * times:
            self.do(self.world.ask_and_fill, replica, document)

    @rule(replica=REPLICA)
    def ask_everything(self, replica: int) -> None:
        for document in [*range(DOCUMENTS)] * 2:
            self.do(self.world.ask_and_fill, self.stage.replicas[replica], document)

    @rule(which=WHICH, lifetime=LIFETIME)
    def fill(self, which: int, lifetime: Lifetime) -> None:
        self.do(self.world.fill, which, lifetime)

    @rule(replica=REPLICA, document=DOCUMENT)
    def begin_a_write(self, replica: int, document: int) -> None:
        self.do(self.world.begin, self.stage.replicas[replica], document)

    @rule(which=WHICH)
    def commit_a_write(self, which: int) -> None:
        self.do(self.world.commit, which)

    @rule(which=WHICH)
    def end_a_write(self, which: int) -> None:
        self.do(self.world.end, which)

    @rule(replica=REPLICA, document=DOCUMENT)
    def write(self, replica: int, document: int) -> None:
        """Put, replace or delete: each gives the document another version. Then everybody asks."""
        self.do(self.world.begin, self.stage.replicas[replica], document)
        self.do(self.world.end, -1)
        for asked in self.stage.replicas:
            self.do(self.world.ask_and_fill, asked, document)

    @rule(replica=REPLICA, document=DOCUMENT)
    def write_unheard(self, replica: int, document: int) -> None:
        """The other one has the answer in its memory, and the message of the write is lost."""
        other = self.stage.replicas[1 - replica]
        for _ in range(2):
            self.do(self.world.ask_and_fill, other, document)
        self.do(self.world.deafen, other, True)
        self.do(self.world.begin, self.stage.replicas[replica], document)
        self.do(self.world.end, -1)
        self.do(self.world.ask_and_fill, other, document)
        self.do(self.world.deafen, other, False)

    @rule(replica=REPLICA)
    def late_replies(self, replica: int) -> None:
        self.do(self.world.hold_replies, self.stage.replicas[replica])

    @rule()
    def replies_come(self) -> None:
        self.do(self.world.open_gates)

    @rule(replica=REPLICA, deaf=st.booleans())
    def messages_are_lost(self, replica: int, deaf: bool) -> None:
        self.do(self.world.deafen, self.stage.replicas[replica], deaf)

    @rule(replica=REPLICA, cut_off=RARELY)
    def cut_off_from_redis(self, replica: int, cut_off: bool) -> None:
        self.do(self.world.cut_off, self.stage.replicas[replica], cut_off)

    @rule(replica=REPLICA, dice=st.sampled_from([*range(5), *[None] * 5]))
    def something_rare(self, replica: int, dice: int | None) -> None:
        steps: list[Callable[[], Coroutine[Any, Any, None]]] = [
            lambda: self.world.drop(self.stage.replicas[replica]),
            lambda: self.world.crash(self.stage.replicas[replica]),
            self.world.sever,
            self.world.fail_over,
            self.world.forget,
        ]
        if dice is not None:
            self.do(steps[dice])

    def teardown(self) -> None:
        try:
            self.stage.loop.run_until_complete(self.world.settle())
        finally:
            self.stage.loop.run_until_complete(self.world.abandon())
            heal(self.stage.servers)
            self.stage.seen.update(self.world.seen)


def take_steps(stage: Stage, *, walks: int, shrink: bool = False) -> None:
    phases = [Phase.explicit, Phase.generate] + [Phase.shrink] * shrink
    run_state_machine_as_test(
        type("Walk", (Walk,), {"stage": stage}),
        settings=settings(
            max_examples=walks, stateful_step_count=STEPS, deadline=None, database=None, phases=phases,
            suppress_health_check=list(HealthCheck), print_blob=False,
        ),
    )  # fmt: skip


@pytest.mark.proves("C2", "C4")
@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(2_000, marks=pytest.mark.timeout(280)),
        pytest.param(100_000, marks=[pytest.mark.soak, pytest.mark.timeout(4 * 3600)], id="soak"),
    ],
)
def test_no_walk_serves_an_answer_from_before_a_finished_write(stage: Stage, steps: int) -> None:
    while stage.steps < steps:
        take_steps(stage, walks=10)
        print(f"{stage.steps} steps: {dict(stage.seen)}")
    for event in (
        "hit l1",
        "hit redis",
        "miss",
        "write",
        "crash",
        "failover",
        "sever",
        "drop",
        "forget",
        "away",
    ):
        assert stage.seen[event] > 0, f"{event}: did not happen, so this proved little"


def without(script: Script, text: str, instead: str) -> Script:
    assert text in script.text
    return Script(script.text.replace(text, instead))


@pytest.mark.proves("C4")
@pytest.mark.parametrize("broken", ["no-fence", "no-lease"])
def test_a_build_without_the_fence_or_the_lease_is_caught(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    if broken == "no-fence":
        mutant = without(redis_scripts.LOOKUP, "serves and entry[1] == epoch", "entry[1]")
        monkeypatch.setattr(redis_scripts, "LOOKUP", mutant)
    else:  # writers do not wait for the replicas that serve from their memory
        mutant = without(redis_scripts.HOLD, "unpack(found)}", "nil}")
        monkeypatch.setattr(redis_scripts, "HOLD", mutant)
        ended = without(redis_scripts.END, "#readers() > 0 or", "")
        monkeypatch.setattr(redis_scripts, "END", ended)
    # what was served may differ when hypothesis walks the same way again: time is not its own
    with pytest.raises((AssertionError, Flaky)):
        take_steps(stage, walks=10)
    print(f"caught after {stage.caught} steps")
    assert 0 < stage.caught <= 1000
