"""The HorizontalPodAutoscaler's arithmetic, on the manifest that the product renders."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from ragkube_operator.crd.base import amount

SYNC_SECONDS: Final = 15
TOLERANCE: Final = 0.1


def wanted_by(metric: Mapping[str, Any], value: float, pods: int) -> int | None:
    """What one metric asks for; None: it has no value, and the autoscaler leaves everything as it is."""
    if math.isnan(value):
        return None
    target = metric["target"]
    goal = float(amount(str(target.get("averageValue") or target["value"])))
    ratio = value / goal if target["type"] == "Value" else value / pods / goal
    if abs(ratio - 1) <= TOLERANCE:
        return pods
    return math.ceil(round(ratio * pods, 6))


@dataclass(slots=True)
class Autoscaler:
    """One autoscaler over time: stabilisation windows and the policies of how fast it may go."""

    spec: Mapping[str, Any]
    wishes: deque[tuple[int, int]] = field(default_factory=deque)
    changes: deque[tuple[int, int]] = field(default_factory=deque)

    def decide(self, now: int, pods: int, values: Sequence[float]) -> int:
        """How many pods there shall be."""
        asked = [
            wanted_by(metric, value, pods) for metric, value in zip(self.spec["metrics"], values, strict=True)
        ]
        known = [count for count in asked if count is not None]
        if not known or (len(known) < len(asked) and max(known) < pods):
            return pods
        wish = min(max(max(known), self.spec["minReplicas"]), self.spec["maxReplicas"])
        self.wishes.append((now, wish))
        count = self._limited(now, pods, self._stabilised(now, pods, wish))
        if count != pods:
            self.changes.append((now, count - pods))
        return count

    def _stabilised(self, now: int, pods: int, wish: int) -> int:
        up, down = (
            self.spec["behavior"][way]["stabilizationWindowSeconds"] for way in ("scaleUp", "scaleDown")
        )
        while self.wishes and self.wishes[0][0] < now - max(up, down):
            self.wishes.popleft()
        least = min([count for at, count in self.wishes if at >= now - up] or [wish])
        most = max([count for at, count in self.wishes if at >= now - down] or [wish])
        return min(max(pods, least), most) if least > pods else min(pods, most)

    def _limited(self, now: int, pods: int, count: int) -> int:
        way = "scaleUp" if count > pods else "scaleDown"
        limits = [self._reach(now, pods, way, policy) for policy in self.spec["behavior"][way]["policies"]]
        return min(count, max(limits)) if way == "scaleUp" else max(count, min(limits))

    def _reach(self, now: int, pods: int, way: str, policy: Mapping[str, Any]) -> int:
        """How far a policy lets it go from where it was at the begin of the policy's period."""
        sign = 1 if way == "scaleUp" else -1
        done = sum(
            step for at, step in self.changes if at > now - policy["periodSeconds"] and step * sign > 0
        )
        start = pods - done
        if policy["type"] == "Pods":
            return start + sign * int(policy["value"])
        share = Decimal(policy["value"]) / 100
        return math.ceil(start * (1 + share)) if sign > 0 else math.floor(start * (1 - share))
