"""The planner against a model of a cluster that gossips, fails over, loses pods and keeps or loses their data."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ragkube_operator.redis_cluster import (
    SLOTS,
    AddSlots,
    Done,
    Flush,
    Forget,
    Meet,
    Node,
    Peer,
    Replicate,
    Spec,
    Step,
    Takeover,
    Topology,
    Wait,
    plan,
)

EVERY_SLOT = frozenset(range(SLOTS))


@dataclass
class Server:
    """One Redis: what it knows of the others is its own."""

    id: str
    address: str
    known: dict[str, str] = field(default_factory=dict)
    primary: str | None = None
    # who serves each slot, as this node believes: slot -> (epoch, id); slots are kept in eight blocks
    owners: dict[int, tuple[int, str]] = field(default_factory=dict)


BLOCKS = 12
WIDTH = SLOTS // BLOCKS


def block_slots(block: int) -> frozenset[int]:
    end = SLOTS if block == BLOCKS - 1 else (block + 1) * WIDTH
    return frozenset(range(block * WIDTH, end))


class Model:
    """As much of Redis Cluster as the planner can see and touch."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.names = itertools.count()
        self.epoch = 0
        self.pods: dict[str, Server | None] = {}
        for index in range(spec.size):
            self.pods[f"redis-{index}"] = self.fresh()

    def fresh(self) -> Server:
        number = next(self.names)
        server = Server(f"id{number}", f"10.0.0.{number}:6379")
        server.known[server.id] = server.address
        return server

    @property
    def living(self) -> dict[str, Server]:
        return {pod: server for pod, server in self.pods.items() if server is not None}

    def by_id(self) -> dict[str, Server]:
        return {server.id: server for server in self.living.values()}

    def topology(self) -> Topology:
        nodes = tuple(self._node(pod, server) for pod, server in self.living.items())
        return Topology(nodes, tuple(pod for pod, server in self.pods.items() if server is None))

    def _node(self, pod: str, server: Server) -> Node:
        living = self.by_id()
        peers = tuple(
            Peer(
                id=peer,
                address=address,
                flags=frozenset(
                    {"myself"} if peer == server.id else ({"fail"} if peer not in living else set())
                ),
                primary=self._believed_primary(peer),
                slots=self._believed_slots(server, peer),
                connected=peer in living and living[peer].address == address,
            )
            for peer, address in server.known.items()
        )
        covered = set().union(*(peer.slots for peer in peers)) == EVERY_SLOT
        healthy = all(not peer.failed or not peer.slots for peer in peers)
        return Node(pod, server.address, server.id, covered and healthy, peers, host=f"h{int(pod[6:]) % 3}")

    def _believed_primary(self, peer: str) -> str | None:
        other = self.by_id().get(peer)
        return other.primary if other is not None else None

    def _believed_slots(self, server: Server, peer: str) -> frozenset[int]:
        blocks = [block for block, (_, owner) in server.owners.items() if owner == peer]
        return frozenset().union(*map(block_slots, blocks))

    def gossip(self) -> None:
        """Everybody who can talk learns members and the newest claims; losers of slots follow the winner."""
        for _ in range(len(self.pods)):
            for one, two in itertools.permutations(self.living.values(), 2):
                if one.known.get(two.id) == two.address:
                    self._talk(one, two)
        for server in self.living.values():
            self._demote(server)

    def _talk(self, one: Server, two: Server) -> None:
        two.known[one.id] = one.address
        for peer, address in one.known.items():
            two.known.setdefault(peer, address)
        for block, claim in one.owners.items():
            if claim[1] == one.id and claim > two.owners.get(block, (-1, "")):
                two.owners[block] = claim

    def _demote(self, server: Server) -> None:
        """As Redis does: a primary whose last slot was taken follows the node that took it."""
        if server.primary is not None:
            primary = self.by_id().get(server.primary)
            if primary is not None and primary.primary is not None:
                server.primary = primary.primary

    def run(self, step: Step) -> None:
        match step:
            case Takeover(pod=pod):
                self._promote(self.living[pod])
            case Meet(pairs=pairs):
                for pod, other in pairs:
                    self.living[pod].known[self.living[other].id] = self.living[other].address
            case Forget(pairs=pairs):
                for pod, gone in pairs:
                    self._forget(self.living[pod], gone)
            case AddSlots(pod=pod, slots=slots, stale=stale):
                self._claim(self.living[pod], slots, stale)
            case Replicate(pairs=pairs):
                for pod, primary in pairs:
                    self._follow(self.living[pod], primary)
            case Flush():
                raise AssertionError("the model has no keys")

    def _promote(self, server: Server) -> None:
        assert server.primary is not None, "only a replica takes over"
        self.epoch += 1
        for block, (_, owner) in list(server.owners.items()):
            if owner == server.primary:
                server.owners[block] = (self.epoch, server.id)
        server.primary = None

    def _forget(self, server: Server, gone: str) -> None:
        assert gone not in self.by_id(), "a living node is never forgotten"
        assert server.primary != gone, "Redis refuses to forget one's own primary"
        server.known.pop(gone, None)
        server.owners = {block: claim for block, claim in server.owners.items() if claim[1] != gone}

    def _claim(self, server: Server, slots: Iterable[int], stale: frozenset[int]) -> None:
        assert server.primary is None, "a replica serves no slots"
        wanted = {block for block in range(BLOCKS) if block_slots(block) & frozenset(slots)}
        self.epoch += 1
        for block in wanted:
            owner = server.owners.get(block)
            assert owner is None or block_slots(block) & stale, "slot is already busy"
            server.owners[block] = (self.epoch, server.id)

    def _follow(self, server: Server, primary: str) -> None:
        assert primary in server.known, "unknown node"
        assert not self._believed_slots(server, server.id), "a node with slots cannot become a replica"
        server.primary = primary

    def failover(self) -> None:
        """What Redis does by itself while most primaries live."""
        voters = {owner for server in self.living.values() for _, owner in server.owners.values()}
        if len(voters & self.by_id().keys()) * 2 <= len(voters):
            return
        for gone in voters - self.by_id().keys():
            replicas = [server for server in self.living.values() if server.primary == gone]
            if replicas:
                self._promote(replicas[0])
                self.gossip()
        for server in self.living.values():
            if server.primary is not None and server.primary not in self.by_id():
                claims = [claim for claim in server.owners.values() if claim[1] in self.by_id()]
                if claims and not self._believed_slots(server, server.primary):
                    server.primary = max(claims)[1]

    def heal(self, limit: int = 40) -> list[Step]:
        taken: list[Step] = []
        for _ in range(limit):
            decision = plan(self.spec, self.topology())
            if isinstance(decision, Done):
                return taken
            if isinstance(decision, tuple):
                for step in decision:
                    self.run(step)
                    taken.append(step)
            self.gossip()
        raise AssertionError(f"not whole after {limit} passes: {decision}; taken {taken}")

    def owned(self) -> frozenset[int]:
        return frozenset().union(
            *(self._believed_slots(s, s.id) for s in self.living.values() if s.primary is None)
        )


def replace(model: Model, pods: Iterable[str]) -> None:
    for pod in pods:
        model.pods[pod] = model.fresh()


@pytest.mark.proves("K6")
@pytest.mark.parametrize(("shards", "replicas"), [(3, 0), (3, 1), (3, 2), (5, 1)])
def test_a_fresh_cluster_is_formed(shards: int, replicas: int) -> None:
    model = Model(Spec(shards, replicas))
    model.heal()
    primaries = [server for server in model.living.values() if server.primary is None]
    assert len(primaries) == shards
    assert model.owned() == EVERY_SLOT
    hosts = {node.id: node.host for node in model.topology().nodes}
    if shards == 3:
        assert len({hosts[server.id] for server in primaries}) == 3
    for server in model.living.values():
        if server.primary is not None and replicas == 1 and shards == 3:
            assert hosts[server.id] != hosts[server.primary]


@pytest.mark.proves("K6")
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_it_heals_when_any_pods_are_replaced(count: int) -> None:
    for lost in itertools.combinations(range(6), count):
        model = Model(Spec(3, 1))
        model.heal()
        replace(model, (f"redis-{index}" for index in lost))
        model.heal()
        assert model.owned() == EVERY_SLOT


def test_nothing_is_forgotten_while_a_pod_is_away() -> None:
    model = Model(Spec(3, 1))
    model.heal()
    model.pods["redis-0"] = None
    decision = plan(model.spec, model.topology())
    assert isinstance(decision, Wait)
    assert "redis-0" in decision.reason


def test_peers_that_moved_are_met_before_anything_is_forgotten() -> None:
    model = Model(Spec(3, 1))
    model.heal()
    replace(model, ["redis-5"])
    for number, server in enumerate(model.living.values()):
        server.address = f"10.9.0.{number}:6379"
        server.known[server.id] = server.address
    steps = model.heal()
    kinds = [type(step).__name__ for step in steps]
    assert kinds.index("Meet") < kinds.index("Forget")
    assert "AddSlots" not in kinds


def test_replicas_take_over_when_most_primaries_are_away() -> None:
    model = Model(Spec(3, 1))
    model.heal()
    lost = [pod for pod, server in model.living.items() if server.primary is None][:2]
    for pod in lost:
        model.pods[pod] = None
    decision = plan(model.spec, model.topology())
    assert isinstance(decision, tuple)
    assert {type(step) for step in decision} == {Takeover}
    assert len(decision) == 2


def test_a_minority_of_dead_primaries_is_left_to_redis() -> None:
    model = Model(Spec(3, 1))
    model.heal()
    lost = next(pod for pod, server in model.living.items() if server.primary is None)
    model.pods[lost] = None
    assert isinstance(plan(model.spec, model.topology()), Wait)


class Outages(RuleBasedStateMachine):
    """Any history of lost, replaced and moved pods ends in a whole cluster once all pods run."""

    @initialize(shards=st.integers(3, 4), replicas=st.integers(0, 2))
    def form(self, shards: int, replicas: int) -> None:
        self.model = Model(Spec(shards, replicas))
        self.model.heal()

    def _pods(self, picks: set[int]) -> list[str]:
        return [f"redis-{pick % self.model.spec.size}" for pick in sorted(picks)]

    @rule(picks=st.sets(st.integers(0, 11), min_size=1, max_size=12))
    def pods_are_replaced(self, picks: set[int]) -> None:
        replace(self.model, self._pods(picks))

    @rule(picks=st.sets(st.integers(0, 11), min_size=1, max_size=4))
    def pods_vanish(self, picks: set[int]) -> None:
        for pod in self._pods(picks):
            self.model.pods[pod] = None

    @rule(picks=st.sets(st.integers(0, 11), min_size=1, max_size=12))
    def pods_move_with_their_data(self, picks: set[int]) -> None:
        for pod in self._pods(picks):
            server = self.model.pods[pod]
            if server is not None:
                server.address = self.model.fresh().address
                server.known[server.id] = server.address

    @rule()
    def redis_fails_over(self) -> None:
        self.model.gossip()
        self.model.failover()

    @rule()
    def the_operator_takes_one_pass(self) -> None:
        decision = plan(self.model.spec, self.model.topology())
        for step in decision if isinstance(decision, tuple) else ():
            self.model.run(step)

    @rule()
    def everything_runs_again(self) -> None:
        replace(self.model, [pod for pod, server in self.model.pods.items() if server is None])
        self.model.gossip()
        self.model.heal()
        assert self.model.owned() == EVERY_SLOT
        primaries = {s.id for s in self.model.living.values() if s.primary is None}
        assert len(primaries) == self.model.spec.shards

    @invariant()
    def living_primaries_are_followed(self) -> None:
        if hasattr(self, "model"):
            assert len(self.model.pods) == self.model.spec.size


TestOutages = Outages.TestCase
TestOutages.settings = settings(
    max_examples=60,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
