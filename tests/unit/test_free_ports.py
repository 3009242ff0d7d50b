"""The ports of test servers: one that goes away and comes back finds its own."""

from __future__ import annotations

import socket

import pytest

from support.processes import free_ports

FIRST_OF_CONNECTIONS = 32_768
"""The lowest port that Linux gives to connections, by default (``net.ipv4.ip_local_port_range``)."""


def test_none_is_one_that_the_kernel_gives_to_connections() -> None:
    ports = free_ports(100)
    assert len(set(ports)) == 100
    assert max(ports) < FIRST_OF_CONNECTIONS


def test_none_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    free, taken = free_ports(2)
    monkeypatch.setattr("support.processes._PORTS", (free, taken))
    with socket.create_server(("127.0.0.1", taken)):
        assert free_ports(2) == [free]
