"""Servers that the benchmarks start: none outlives what went wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from bench import cache_litellm, cache_semantic, cache_servers
from bench.cache_servers import Server, World

SILENT = "import time; time.sleep(600)"
BROKEN = """#!{python}
import http.server, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""
"""It lives, and knows no POST: 501."""


@pytest.fixture
def world(tmp_path: Path) -> World:
    redis: Any = None  # nobody asks it
    return World(tmp_path, redis, None, None)


def ended(server: Server) -> bool:
    return server.process is not None and server.process.returncode is not None


def test_a_server_that_never_answers_is_not_left_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_servers, "_START_SECONDS", 0.2)
    server = Server("silent", [sys.executable, "-c", SILENT], tmp_path)
    with pytest.raises(SystemExit, match="silent did not start"):
        server.start()
    assert ended(server)


def test_a_proxy_that_cannot_answer_is_left_out_and_says_why(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "litellm"
    program.write_text(BROKEN.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setattr(cache_litellm, "_program", lambda: program)
    monkeypatch.setattr(cache_litellm, "_configured", lambda _: tmp_path / "litellm.yaml")
    made: list[Server] = world.servers
    with pytest.raises(cache_litellm.UnavailableError, match="501"):
        cache_litellm.start(world, cache_litellm.bodies(["How far is the moon?"]))
    assert [ended(server) for server in made] == [True]


def test_the_servers_of_a_part_end_with_it(world: World) -> None:
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "PORT"]
    servers = [world.server(name, command).start("/") for name in ("one", "other")]
    world.stop_servers()
    assert all(map(ended, servers))


def test_no_wording_comes_twice() -> None:
    wordings = list(cache_semantic._wordings())
    assert len(set(wordings)) == len(wordings) > 50_000
