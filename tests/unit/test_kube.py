"""What the operator's client knows of the kinds that a cluster serves, and how often it asks."""

from __future__ import annotations

from typing import Any

import pytest

from ragkube_operator import kube
from ragkube_operator.errors import KubeError
from ragkube_operator.kube import Kind
from ragkube_operator.metrics import Metrics

MONITOR = Kind("monitoring.coreos.com/v1", "PodMonitor")


@pytest.mark.proves("K8")
async def test_a_kind_that_comes_later_is_seen_a_minute_after_the_last_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, asked, served = 1000.0, 0, False

    async def call(*_: Any) -> dict[str, Any]:
        nonlocal asked
        asked += 1
        if not served:
            raise KubeError(404, "NotFound", "no such version")
        return {"resources": [{"name": "podmonitors", "namespaced": True, "kind": "PodMonitor"}]}

    client = kube.Kube(None, Metrics())  # type: ignore[arg-type]
    monkeypatch.setattr(client, "_call", call)
    monkeypatch.setattr(kube, "monotonic", lambda: now)
    assert not await client.serves(MONITOR)
    served = True
    now += 59
    assert not await client.serves(MONITOR)
    assert asked == 1, "it is not asked for with every look"
    now += 2
    assert await client.serves(MONITOR)
    assert await client.serves(MONITOR)
    assert asked == 2, "what is there is not asked for again"
