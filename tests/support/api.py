"""The API for tests: in the process over its real embedded parts, or as the process a user starts."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx2

from ragkube_api import runtime as composition
from ragkube_api.adapters.wordllama_embedder import WordllamaEmbedder
from ragkube_api.app import create_app
from ragkube_api.context import Backends, Runtime
from ragkube_api.settings import Settings
from support.processes import REPOSITORY, free_ports

# The model is read once for all tests: it never changes.
_load_once = functools.cache(WordllamaEmbedder.load)
Change = Callable[[Backends], Backends]


def settings_in(directory: Path, **parts: Any) -> Settings:
    """Embedded defaults with the index in ``directory``."""
    document = {"store": {"kind": "embedded", "path": str(directory / "index")}, **parts}
    return Settings.model_validate(document)


@dataclass(slots=True)
class RunningApp:
    """An application with a client that talks to it."""

    runtime: Runtime
    client: httpx2.AsyncClient

    async def put(self, document: str, text: str | bytes, **headers: str) -> httpx2.Response:
        named = {"content-type": "text/plain", **{k.replace("_", "-"): v for k, v in headers.items()}}
        body = text.encode() if isinstance(text, str) else text
        return await self.client.put(f"/v1/documents/{document}", content=body, headers=named)

    async def ask(self, question: str, *, headers: dict[str, str] | None = None, **fields: Any) -> Any:
        response = await self.client.post(
            "/v1/query", json={"question": question, **fields}, headers=headers or {}
        )
        assert response.status_code == 200, response.text
        return response.json()

    async def ask_and_store(self, question: str, **fields: Any) -> Any:
        """``ask``; other replicas find the answer then."""
        answer = await self.ask(question, **fields)
        await self.runtime.backends.cache.settled("default")
        return answer

    async def metric(self, name: str, **labels: str) -> float:
        text = (await self.client.get("/metrics")).text
        return metric_in(text, name, **labels)


def metric_in(exposition: str, name: str, **labels: str) -> float:
    """The sum over all series of that name with these labels."""
    total = 0.0
    for line in exposition.splitlines():
        series, _, value = line.rpartition(" ")
        if series.partition("{")[0] == name and all(f'{k}="{v}"' in series for k, v in labels.items()):
            total += float(value)
    return total


@asynccontextmanager
async def running_app(settings: Settings, change: Change | None = None) -> AsyncIterator[RunningApp]:
    """The application as ``python -m ragkube_api`` builds it; ``change`` puts other adapters in."""
    async with AsyncExitStack() as stack:
        with patch.object(WordllamaEmbedder, "load", _load_once):
            runtime = await composition.build(settings, stack)
        if change is not None:
            runtime = composition.assemble(settings, change(runtime.backends), stack)
        transport = httpx2.ASGITransport(app=create_app(runtime), raise_app_exceptions=False)
        client = httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080")
        yield RunningApp(runtime, await stack.enter_async_context(client))


@dataclass(slots=True)
class ApiProcess:
    """``python -m ragkube_api`` with a settings file."""

    directory: Path
    document: dict[str, Any]
    command: tuple[str, ...] = ("-m", "ragkube_api")
    port: int = 0
    running: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.directory / "api.log"

    def start(self) -> None:
        self.port = self.port or free_ports(1)[0]
        document = {**self.document, "server": {**self.document.get("server", {}), "port": self.port}}
        file = self.directory / "settings.json"
        file.write_text(json.dumps(document))
        paths = [str(REPOSITORY / "api"), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ, "RAGKUBE_SETTINGS": str(file), "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            **self.environment,
        }  # fmt: skip
        with self.log.open("ab") as output:
            self.running = subprocess.Popen(
                [sys.executable, *self.command], env=environment, stdout=output, stderr=output
            )

    def wait_until(self, path: str, good: Callable[[httpx2.Response], bool], seconds: float = 30) -> Any:
        """The JSON of the first response that is good."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.running is not None
            assert self.running.poll() is None, self.log.read_text()
            try:
                response = httpx2.get(self.url + path, timeout=5)
            except httpx2.TransportError:
                response = None
            if response is not None and good(response):
                return response.json()
            time.sleep(0.02)
        raise AssertionError(
            f"{path} did not become good within {seconds} s:\n{self.log.read_text()[-4000:]}"
        )

    def wait_ready(self) -> None:
        self.wait_until("/readyz", lambda response: response.status_code == 200)

    def wait_synced(self, seconds: float = 60) -> dict[str, Any]:
        """The first source, once a pass over it is done."""

        def done(response: httpx2.Response) -> bool:
            return bool(response.json()["sources"][0]["state"] == "synced")

        source: dict[str, Any] = self.wait_until("/v1/sources", done, seconds)["sources"][0]
        return source

    def signal(self, number: signal.Signals) -> None:
        assert self.running is not None
        self.running.send_signal(number)

    def wait(self, seconds: float = 30) -> int:
        assert self.running is not None
        return self.running.wait(seconds)

    def kill(self) -> None:
        if self.running is not None and self.running.poll() is None:
            self.running.kill()
            self.running.wait()


@contextmanager
def api_process(directory: Path, **parts: Any) -> Iterator[ApiProcess]:
    """A process that is killed at the end, whatever happens."""
    store = {"kind": "embedded", "path": str(directory / "index")}
    process = ApiProcess(directory, {"store": store, **parts})
    try:
        yield process
    finally:
        process.kill()
