"""Which tenants may be served paraphrase hits: those whose bound on the error rate is within the budget.

Fail closed: a tenant begins without hits. What would have been served is compared with the answer that is made anyway,
until so many comparisons were right that the bound is within the budget. Then hits are served and a sample of them is
audited. When the bound leaves the budget the tenant has exact hits only, and begins again.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from ragkube_api.services.semantic.bound import Windows
from ragkube_api.telemetry import Telemetry

_TENANTS: Final = 1_000
_SIZE_BY_BUDGET: Final = 30
"""A window holds so many audits for each expected error of the whole budget."""


@dataclass(slots=True)
class _State:
    windows: Windows
    serving: bool = False


class ErrorBudget:
    """Of each tenant, in this process."""

    def __init__(self, max_error_rate: float, telemetry: Telemetry) -> None:
        self._budget = max_error_rate
        self._telemetry = telemetry
        self._states: OrderedDict[str, _State] = OrderedDict()

    def serving(self, tenant: str) -> bool:
        """Whether paraphrase hits are served."""
        return self._state(tenant).serving

    def record(self, tenant: str, *, wrong: bool) -> None:
        """One audit: of a hit that was served, or of one that would have been."""
        state = self._state(tenant)
        state.windows.add(wrong=wrong)
        bound = state.windows.bound
        was = state.serving
        state.serving = bound <= self._budget
        if was and not state.serving:
            state.windows.restart()
            self._telemetry.log.warning("semantic_budget_spent", tenant=tenant, bound=round(bound, 4))
        elif state.serving and not was:
            self._telemetry.log.info("semantic_serving", tenant=tenant, bound=round(bound, 4))
        outcome = "wrong" if wrong else "right"
        self._telemetry.semantic_audits.labels(tenant, outcome).inc()
        self._show(tenant, state)

    def _state(self, tenant: str) -> _State:
        state = self._states.get(tenant)
        if state is None:
            state = self._states[tenant] = _State(Windows(math.ceil(_SIZE_BY_BUDGET / self._budget)))
            self._show(tenant, state)
            if len(self._states) > _TENANTS:
                self._forget(*self._states.popitem(last=False))
        else:
            self._states.move_to_end(tenant)
        return state

    def _show(self, tenant: str, state: _State) -> None:
        self._telemetry.semantic_bound.labels(tenant).set(state.windows.bound)
        self._telemetry.semantic_serving.labels(tenant).set(state.serving)

    def _forget(self, tenant: str, _: _State) -> None:
        for metric in (self._telemetry.semantic_bound, self._telemetry.semantic_serving):
            metric.remove(tenant)
