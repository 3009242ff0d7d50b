"""The platform as a fluid: pods with one core each, a queue for it, and questions that wait for the model.

What it leaves out: single requests, the network, garbage collection. What it keeps is what rules of scaling see and cause.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from simulator.traces import Moment

HIT_CPU: Final = 0.001
"""Core seconds of a cached answer."""
MISS_CPU: Final = 0.02
"""Core seconds of a question that the cache does not answer: embedding, search, prompt, citations."""
CONCURRENCY: Final = 64
START_SECONDS: Final = 15
SLO_SECONDS: Final = 0.5
"""A question whose own part takes longer is an SLO miss, and so is one that is refused."""
_FULL: Final = 0.98
_TAIL: Final = 3.0
"""The 95th percentile of an exponential wait, over its mean."""


@dataclass(slots=True)
class Readings:
    """What a pod's metrics say: all pods together, over the last second."""

    in_flight: float = 0.0
    misses: float = 0.0
    cpu: float = 0.0
    local_p95: float = 0.0
    total_p95: float = 0.0
    asked: float = 0.0


@dataclass(slots=True)
class Platform:
    """Pods, the queue before their cores, and the model's waiting room."""

    pods: int
    starting: deque[int] = field(default_factory=deque)
    queue: float = 0.0
    waiting: deque[tuple[float, float]] = field(default_factory=deque)
    again: deque[list[float]] = field(default_factory=deque)
    answered: float = 0.0
    late: float = 0.0
    refused: float = 0.0
    pod_seconds: float = 0.0

    def scale(self, wanted: int, now: int) -> None:
        """Pods that leave finish their work; pods that come take a while."""
        running = self.pods + len(self.starting)
        for _ in range(max(0, wanted - running)):
            self.starting.append(now + START_SECONDS)
        for _ in range(max(0, running - wanted)):
            if self.starting:
                self.starting.pop()
            else:
                self.pods -= 1

    def step(self, now: int, moment: Moment, retries: int) -> Readings:
        """One second."""
        while self.starting and self.starting[0] <= now:
            self.starting.popleft()
            self.pods += 1
        self.pod_seconds += self.pods + len(self.starting)
        while self.waiting and self.waiting[0][0] <= now:
            self.waiting.popleft()
        asked, taken = self._admit(now, moment, retries)
        share = moment.hits
        work = taken * (share * HIT_CPU + (1 - share) * MISS_CPU)
        spent = min(self.pods, self.queue + work)
        self.queue += work - spent
        local = self._local_p95(spent, moment)
        if taken:
            self.waiting.append((now + moment.model + moment.store + local, taken * (1 - share)))
        self.answered += taken
        self.late += taken * self._late_share(local, moment)
        mean = max(1e-9, share * HIT_CPU + (1 - share) * MISS_CPU)
        in_flight = self.queue / mean + self._at_the_model(now)
        total = local + (moment.model if share < 0.95 else 0.0)
        return Readings(in_flight, taken * (1 - share), spent, local if asked else math.nan,
                        total if asked else math.nan, asked)  # fmt: skip

    def _admit(self, now: int, moment: Moment, retries: int) -> tuple[float, float]:
        """What is asked now, and what there is room for; the rest is refused and may come again."""
        tries = [moment.questions, *(self.again.popleft() if self.again else [0.0] * retries)]
        asked = sum(tries)
        mean = moment.hits * HIT_CPU + (1 - moment.hits) * MISS_CPU
        busy = self.queue / mean + self._at_the_model(now)
        free = max(0.0, self.pods * CONCURRENCY - busy)
        # hits that are answered within the second make room as well: as many as there are, or as the cores manage
        share, queued = moment.hits, self.queue / mean
        room = min((free + share * queued) / (1 - share + 1e-9), free + share * self.pods / mean)
        taken = min(asked, room)
        refused = 1 - taken / asked if asked else 0.0
        self.refused += refused * asked
        self.again.append([count * refused for count in tries[:retries]])
        return asked, taken

    def _at_the_model(self, now: int) -> float:
        """Questions that wait for the model; those that leave within the second count by the part that they stay."""
        return sum(count * min(1.0, until - now) for until, count in self.waiting)

    def _local_p95(self, spent: float, moment: Moment) -> float:
        """The wait for a core, the work and the store, of the slowest of twenty questions."""
        use = min(_FULL, spent / self.pods)
        service = MISS_CPU if moment.hits < 0.95 else HIT_CPU
        wait = self.queue / self.pods + _TAIL * service * use / (1 - use) / 2
        return wait + service + (moment.store if moment.hits < 0.95 else 0.0)

    def _late_share(self, local: float, moment: Moment) -> float:
        """Of the answers: all when even the queue is too long, else the misses when these take too long."""
        if self.queue / self.pods > SLO_SECONDS:
            return 1.0
        return 1 - moment.hits if local > SLO_SECONDS else 0.0
