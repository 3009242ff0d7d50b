"""The servers of ``bench.cache``: real Redis Cluster, real Weaviate, a Messages API, ragkube and what it is compared with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.cache_load import Target
from bench.datasets import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "tests"))

from support.processes import free_ports
from support.redis import NEVER_LOST, RedisServers, start_cluster
from support.weaviate import WeaviateServer, start_weaviate

KEY = "bench-key-with-enough-characters"
HEADERS = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
SERVER_CORE, LOAD_CORE = 0, 1
_PROCESS_CLOCK = 2
"""With the process's number, a clock of Linux: nanoseconds, where ``/proc`` has hundredths of a second."""
_START_SECONDS = 120
_STOP_SECONDS = 30


@dataclass
class Server:
    """One process on one core, its output in a file."""

    name: str
    command: Sequence[str]
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    core: int = SERVER_CORE
    port: int = field(default_factory=lambda: free_ports(1)[0])
    path: str = "/v1/query"
    """Where questions are asked."""
    process: subprocess.Popen[bytes] | None = None

    def start(self, path: str = "/readyz", *, any_status: bool = False) -> Server:
        """Until it answers there; ``SystemExit`` when it does not, and then nothing of it is left."""
        paths = [str(REPOSITORY / part) for part in ("api", "hack", "tests")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **self.environment}
        pinned = [
            "taskset",
            "-c",
            str(self.core),
            *(word.replace("PORT", str(self.port)) for word in self.command),
        ]
        with (self.folder / f"{self.name}.log").open("wb") as log:
            self.process = subprocess.Popen(pinned, env=environment, stdout=log, stderr=log)
        try:
            self._wait(self.process, path, any_status)
        except BaseException:
            self.stop()
            raise
        return self

    def _wait(self, process: subprocess.Popen[bytes], path: str, any_status: bool) -> None:
        end = time.monotonic() + _START_SECONDS
        while not self._answers(path, any_status):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{self.name} did not start: see {self.folder}/{self.name}.log")
            time.sleep(0.1)

    def _answers(self, path: str, any_status: bool) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5):
                return True
        except urllib.error.HTTPError:
            return any_status
        except OSError:
            return False

    def stop(self) -> None:
        """When it has ended; one that has ended before is left alone."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def target(self, bodies: Sequence[bytes]) -> Target:
        return Target(self.port, self.path, bodies, HEADERS)

    def ask(self, body: bytes, **headers: str) -> bytes:
        return self.call("POST", self.path, body, **headers)

    def call(self, method: str, path: str, body: bytes, **headers: str) -> bytes:
        named = {**HEADERS, **{name.replace("_", "-"): value for name, value in headers.items()}}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body, named, method=method)
        with urllib.request.urlopen(request, timeout=60) as response:
            return bytes(response.read())

    @property
    def pid(self) -> int:
        """Of the process, while it runs."""
        assert self.process is not None
        return self.process.pid

    def cpu(self) -> float:
        """Seconds of processor time so far: hardly changes with what else the machine does."""
        return time.clock_gettime(~self.pid << 3 | _PROCESS_CLOCK)

    def waited(self) -> float:
        """Seconds so far in which it could have run, had its core not been somebody else's."""
        return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[1]) / 1e9

    def memory(self) -> float:
        """Resident megabytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@dataclass
class World:
    """What every server in the comparison shares, and those servers: none is left when it stops."""

    folder: Path
    redis: RedisServers
    weaviate: WeaviateServer | None
    llm: Server | None
    servers: list[Server] = field(default_factory=list)

    def server(self, name: str, command: Sequence[str], **how: Any) -> Server:
        """One that ends with this world; ``how`` is as for ``Server``."""
        made = Server(name, command, self.folder, **how)
        self.servers.append(made)
        return made

    def stop_servers(self) -> None:
        """Those that were made so far."""
        while self.servers:
            self.servers.pop().stop()

    def ragkube(
        self, name: str, *, local: int, core: int = SERVER_CORE, documents: str = "", **cache: Any
    ) -> Server:
        """Keys, limits, metrics and the log are on; ``local`` bounds the level in the process.

        ``documents`` names the server whose it answers from, if they are not its own.
        """
        port = free_ports(1)[0]
        (self.folder / "admin-key").write_text(KEY)
        document: dict[str, Any] = {
            "server": {"port": port, "max_concurrency": 256},
            "auth": {"mode": "api-key", "admin_key_file": str(self.folder / "admin-key")},
            "limits": {"tiers": {"default": {"requests_per_minute": 10_000_000, "burst": 1_000_000}}},
            "store": {"kind": "embedded", "path": str(self.folder / (documents or name))},
            "cache": {
                "backend": self.redis.settings(prefix=f"bench-{name}").model_dump(mode="json"),
                "local": {"max_entries": local}, **cache,
            },
        }  # fmt: skip
        if self.weaviate is not None:
            prefix = "".join(filter(str.isalnum, (documents or name).title()))
            document["store"] = self.weaviate.settings(prefix=prefix).model_dump(mode="json")
        if self.llm is not None:
            (self.folder / "llm-key").write_text("sk-test")
            document["llm"] = {
                "kind": "anthropic", "model": "claude-test", "base_url": f"http://127.0.0.1:{self.llm.port}",
                "api_key_file": str(self.folder / "llm-key"),
            }  # fmt: skip
        file = self.folder / f"{name}.json"
        file.write_text(json.dumps(document))
        command = [sys.executable, "-m", "ragkube_api"]
        environment = {"RAGKUBE_SETTINGS": str(file), "MALLOC_ARENA_MAX": "2"}  # as in a pod
        return self.server(name, command, environment=environment, core=core, port=port)

    def reference(self, name: str, answer: bytes) -> Server:
        """``bare`` or ``ordinary`` under uvicorn with all that makes it fast."""
        (self.folder / "answer.json").write_bytes(answer)
        command = [
            sys.executable,
            "-m",
            "uvicorn",
            f"bench.cache_{name}:app",
            *(["--factory"] if name == "bare" else []),
            "--port",
            "PORT",
        ]
        command += ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
        environment = {
            "BENCH_ANSWER_FILE": str(self.folder / "answer.json"), "BENCH_API_KEY": KEY,
            "BENCH_REDIS_PORT": str(self.redis.ports[0]),
        }  # fmt: skip
        return self.server(name, command, environment=environment)

    def stop(self) -> None:
        """With all that is in it."""
        self.stop_servers()
        self.redis.stop()
        if self.weaviate is not None:
            self.weaviate.kill()
        if self.llm is not None:
            self.llm.stop()


def open_world(folder: Path) -> World:
    """Redis Cluster without a password, Weaviate and the Messages API, all away from the server's core."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {LOAD_CORE})  # what is started from here inherits it
    try:
        redis = start_cluster("redis", folder / "redis", node_timeout=NEVER_LOST)
        (folder / "weaviate").mkdir()
        weaviate = start_weaviate(folder / "weaviate")
        command = [sys.executable, "-m", "llm_server", "--port", "PORT"]
        llm = Server("llm", command, folder, core=LOAD_CORE).start("/health", any_status=True)
    finally:
        os.sched_setaffinity(0, mine)
    return World(folder, redis, weaviate, llm)
