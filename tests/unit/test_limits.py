"""The limiter's memory: bounded, and not looked through for every new client."""

from __future__ import annotations

import pytest

from ragkube_api.services import limits
from ragkube_api.settings import RateTier


def test_too_many_clients_are_forgotten_by_the_tenth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_MOST_ACCOUNTS", 100)
    now = [0.0]
    limiter = limits.Limiter(None, clock=lambda: now[0])
    tier = RateTier(requests_per_minute=60, burst=60)
    limiter.take("idle", tier)
    now[0] = 30.0
    for number in range(99):
        limiter.take(f"busy{number}", tier)
    limiter.take("one more", tier)
    known = list(limiter._accounts)
    assert len(known) == 91
    assert known[0] == "busy9", "those that came first have gone, after the idle one"
