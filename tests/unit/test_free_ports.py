"""The ports of test servers: one that goes away and comes back finds its own."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from support.processes import free_ports


def test_none_is_one_that_the_kernel_gives_to_connections() -> None:
    setting = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if not setting.exists():
        pytest.skip("only Linux says which ports it gives to connections")
    lowest, highest = map(int, setting.read_text().split())
    ports = free_ports(100)
    assert len(set(ports)) == 100
    assert not [port for port in ports if lowest <= port <= highest]


def test_none_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    free, taken = free_ports(2)
    monkeypatch.setattr("support.processes._PORTS", (free, taken))
    with socket.create_server(("127.0.0.1", taken)):
        assert free_ports(2) == [free]
