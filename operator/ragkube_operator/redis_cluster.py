"""Plans how a Redis Cluster gets formed and healed: pure, one bounded step a call.

``plan(spec, topology)`` looks at what every pod says about the cluster and answers with the next step, with
something to wait for, or with ``Done``. The order keeps data: orphaned replicas are promoted and peers whose
address changed are met again before anything is forgotten, and slots are given away only when their owner
cannot come back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

SLOTS = 16384


@dataclass(frozen=True)
class Spec:
    """What the cluster should look like."""

    shards: int
    replicas_per_shard: int

    @property
    def size(self) -> int:
        """How many pods that takes."""
        return self.shards * (1 + self.replicas_per_shard)


@dataclass(frozen=True)
class Peer:
    """One line of CLUSTER NODES."""

    id: str
    address: str
    flags: frozenset[str]
    primary: str | None = None
    slots: frozenset[int] = frozenset()
    connected: bool = True

    @property
    def failed(self) -> bool:
        """Whether the observer thinks that this peer is dead, alone or with the others."""
        return bool(self.flags & {"fail", "fail?"})

    @property
    def greeting(self) -> bool:
        """Known by address only: a MEET is under way."""
        return "handshake" in self.flags


@dataclass(frozen=True)
class Node:
    """What one pod says about itself and the others."""

    pod: str
    address: str
    id: str
    state_ok: bool
    peers: tuple[Peer, ...]
    keys: int = 0
    offset: int = 0
    host: str = ""
    me: Peer = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Find the node's line about itself."""
        object.__setattr__(self, "me", next(peer for peer in self.peers if peer.id == self.id))

    @property
    def is_replica(self) -> bool:
        """Whether the node follows a primary."""
        return self.me.primary is not None

    def sees(self, node_id: str) -> Peer | None:
        """The node's line about another one."""
        return next((peer for peer in self.peers if peer.id == node_id), None)


@dataclass(frozen=True)
class Topology:
    """Every pod that answered, and the names of those that should exist but did not."""

    nodes: tuple[Node, ...]
    absent: tuple[str, ...] = ()

    def by_id(self) -> dict[str, Node]:
        """The nodes that answered."""
        return {node.id: node for node in self.nodes}


@dataclass(frozen=True)
class Takeover:
    """Promote a replica without asking the others: its primary is dead and cannot be outvoted."""

    pod: str
    primary: str


@dataclass(frozen=True)
class Meet:
    """Introduce nodes: ``pairs`` are (pod that is told, pod it should talk to)."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Forget:
    """Strike nodes that are gone for good from the lists of those that remain: (pod, node id)."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class AddSlots:
    """Give slots that nobody serves to a primary; ``stale`` are those it believes to be somebody else's."""

    pod: str
    slots: frozenset[int]
    stale: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Flush:
    """Empty a node that serves no slot but still has keys: it could not become a replica."""

    pod: str


@dataclass(frozen=True)
class Replicate:
    """Make pods follow a primary: (pod, node id of the primary)."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Wait:
    """Nothing to do but wait; ``reason`` is for people."""

    reason: str


@dataclass(frozen=True)
class Done:
    """Every slot is served, every node agrees and every primary has its replicas."""


Step = Takeover | Meet | Forget | AddSlots | Flush | Replicate
Plan = tuple[Step, ...] | Wait | Done


def plan(spec: Spec, topology: Topology) -> Plan:
    """The next steps towards the spec; they may be run in this order and then be observed again."""
    complete = len(topology.nodes) >= spec.size and not topology.absent
    if takeovers := tuple(_takeovers(topology, complete=complete)):
        return takeovers
    if not _formed(topology) and not complete:
        return Wait(_absence(spec, topology))
    if pairs := tuple(_strangers(topology)):
        return (Meet(pairs),)
    if not complete:
        return Wait(_absence(spec, topology))
    if orphans := tuple(_orphans(topology)):
        return _rehome(topology, orphans)
    if pairs := tuple(_dead(topology)):
        return (Forget(pairs),)
    if any(peer.greeting for node in topology.nodes for peer in node.peers):
        return Wait("nodes are being introduced to each other")
    return _complete_plan(spec, topology)


def _complete_plan(spec: Spec, topology: Topology) -> Plan:
    """Every pod is there and knows exactly the others."""
    conflicts = _contested(topology)
    if conflicts:
        return Wait(f"{conflicts} slots are claimed twice until the newer claim wins")
    if assignments := tuple(_assignments(spec, topology)):
        return assignments
    if flushes := tuple(_flushes(topology)):
        return flushes
    if pairs := tuple(_replications(spec, topology)):
        return (Replicate(pairs),)
    unsettled = [node.pod for node in topology.nodes if not node.state_ok]
    if unsettled:
        return Wait(f"{', '.join(unsettled)} does not report cluster_state:ok yet")
    return Done()


def _formed(topology: Topology) -> bool:
    return any(peer.slots for node in topology.nodes for peer in node.peers)


def _absence(spec: Spec, topology: Topology) -> str:
    names = f": {', '.join(topology.absent)}" if topology.absent else ""
    return f"{len(topology.nodes)} of {spec.size} Redis pods answer; waiting for the others{names}"


def _primaries(topology: Topology) -> list[Node]:
    """Live nodes that serve slots, in pod order."""
    return [node for node in _ordered(topology.nodes) if node.me.slots and not node.is_replica]


def _ordered(nodes: Iterable[Node]) -> list[Node]:
    return sorted(nodes, key=lambda node: (len(node.pod), node.pod))


def _takeovers(topology: Topology, *, complete: bool) -> Iterator[Takeover]:
    """Replicas of dead primaries, one per primary, the most complete copy first."""
    live = topology.by_id()
    chosen: set[str] = set()
    for node in sorted(topology.nodes, key=lambda n: (-n.offset, n.pod)):
        primary = node.me.primary
        if primary is None or primary in live or primary in chosen:
            continue
        if not _serves_in_views(topology, primary):
            continue
        if complete or (_agreed_dead(topology, primary) and not _quorum(topology)):
            chosen.add(primary)
            yield Takeover(node.pod, primary)


def _serves_in_views(topology: Topology, node_id: str) -> bool:
    views = [peer for node in topology.nodes if (peer := node.sees(node_id))]
    return any(peer.slots for peer in views)


def _agreed_dead(topology: Topology, node_id: str) -> bool:
    views = [peer for node in topology.nodes if (peer := node.sees(node_id))]
    return bool(views) and all(peer.failed or not peer.connected for peer in views)


def _quorum(topology: Topology) -> bool:
    """Whether the primaries that answer can still vote for a new one by themselves."""
    voters = {peer.id for node in topology.nodes for peer in node.peers if peer.slots}
    return len(voters & topology.by_id().keys()) * 2 > len(voters)


def _strangers(topology: Topology) -> Iterator[tuple[str, str]]:
    """Pairs of live nodes of which one does not know the other, or knows it at an old address."""
    nodes = _ordered(topology.nodes)
    for index, first in enumerate(nodes):
        for second in nodes[index + 1 :]:
            if not _acquainted(first, second):
                yield first.pod, second.pod
            elif not _acquainted(second, first):
                yield second.pod, first.pod


def _acquainted(observer: Node, other: Node) -> bool:
    known = observer.sees(other.id)
    if known is not None and not known.greeting:
        return known.address == other.address and "noaddr" not in known.flags
    return any(peer.greeting and peer.address == other.address for peer in observer.peers)


def _dead(topology: Topology) -> Iterator[tuple[str, str]]:
    live = topology.by_id()
    for node in _ordered(topology.nodes):
        for peer in node.peers:
            if peer.id not in live and not peer.greeting:
                yield node.pod, peer.id


def _orphans(topology: Topology) -> Iterator[Node]:
    """Replicas of a primary that is gone for good and served nothing: they would refuse to forget it."""
    live = topology.by_id()
    for node in _ordered(topology.nodes):
        if node.me.primary is not None and node.me.primary not in live:
            yield node


def _rehome(topology: Topology, orphans: Sequence[Node]) -> Plan:
    primaries = _primaries(topology)
    if not primaries:
        # nobody serves anything: any orphan may become the first primary
        return (Takeover(orphans[0].pod, orphans[0].me.primary or ""),)
    followers = _followers(topology)
    pairs: list[tuple[str, str]] = []
    for node in orphans:
        known = [primary for primary in primaries if node.sees(primary.id)]
        if not known:
            return Wait(f"{node.pod} does not know a living primary yet")
        target = min(known, key=lambda primary: followers[primary.id])
        followers[target.id] += 1
        pairs.append((node.pod, target.id))
    return (Replicate(tuple(pairs)),)


def _followers(topology: Topology) -> Counter[str]:
    return Counter(node.me.primary for node in topology.nodes if node.me.primary is not None)


def _contested(topology: Topology) -> int:
    claims = Counter(slot for node in topology.nodes if not node.is_replica for slot in node.me.slots)
    return sum(1 for count in claims.values() if count > 1)


def _assignments(spec: Spec, topology: Topology) -> Iterator[AddSlots]:
    """Slots that nobody serves go to new primaries while shards are missing, else to the smallest one."""
    primaries = _primaries(topology)
    covered = {slot for node in primaries for slot in node.me.slots}
    free = [slot for slot in range(SLOTS) if slot not in covered]
    if not free:
        return
    empty = [node for node in _ordered(topology.nodes) if not node.is_replica and not node.me.slots]
    missing = max(spec.shards - len(primaries), 0)
    takers = _spread(empty, missing, {node.host for node in primaries})
    if not takers:
        takers = sorted(primaries, key=lambda node: len(node.me.slots))[:1]
    for index, node in enumerate(takers):
        share = free[index * len(free) // len(takers) : (index + 1) * len(free) // len(takers)]
        stale = {slot for peer in node.peers if peer.id != node.id for slot in peer.slots}
        yield AddSlots(node.pod, frozenset(share), frozenset(share) & stale)


def _spread(candidates: Sequence[Node], count: int, used: set[str]) -> list[Node]:
    """Pick nodes on hosts that have no primary yet while there are such hosts."""
    left, picked, hosts = list(candidates), list[Node](), Counter(used)
    while left and len(picked) < count:
        best = min(left, key=lambda node: (hosts[node.host], left.index(node)))
        hosts[best.host] += 1
        left.remove(best)
        picked.append(best)
    return picked


def _flushes(topology: Topology) -> Iterator[Flush]:
    for node in topology.nodes:
        if not node.is_replica and not node.me.slots and node.keys:
            yield Flush(node.pod)


def _replications(spec: Spec, topology: Topology) -> Iterator[tuple[str, str]]:
    """Idle nodes follow the primary with the fewest replicas, off its host; surplus replicas move over."""
    primaries = _primaries(topology)
    served = {node.id for node in primaries}
    followers = _followers(topology)
    idle = [
        node
        for node in _ordered(topology.nodes)
        if (node.me.primary not in served if node.is_replica else not node.me.slots)
    ]
    chosen: list[tuple[Node, Node]] = []
    for node in [*idle, *_surplus(spec, topology, followers)]:
        if node.me.primary is not None:
            followers[node.me.primary] -= 1
        target = min(primaries, key=lambda p: (followers[p.id], node.host == p.host, p.pod))
        followers[target.id] += 1
        chosen.append((node, target))
    for node, target in _apart(chosen):
        if target.id != node.me.primary:
            yield node.pod, target.id


def _apart(pairs: list[tuple[Node, Node]]) -> list[tuple[Node, Node]]:
    """Swap targets where that takes a replica off its primary's host."""
    result = list(pairs)
    for i, j in ((i, j) for i in range(len(result)) for j in range(len(result)) if i != j):
        (first, one), (second, two) = result[i], result[j]
        now = (first.host == one.host) + (second.host == two.host)
        swapped = (first.host == two.host) + (second.host == one.host)
        if swapped < now:
            result[i], result[j] = (first, two), (second, one)
    return result


def _surplus(spec: Spec, topology: Topology, followers: Counter[str]) -> Iterator[Node]:
    """One replica of each primary that has too many, while another has too few."""
    served = {node.id for node in _primaries(topology)}
    if all(followers[primary] >= spec.replicas_per_shard for primary in served):
        return
    for primary in sorted(served):
        if followers[primary] > spec.replicas_per_shard:
            yield next(node for node in reversed(_ordered(topology.nodes)) if node.me.primary == primary)
