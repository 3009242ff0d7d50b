"""The embedder over HTTP, against a small server that behaves as badly as real ones do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragkube_api.adapters.openai_embedder import OpenAIEmbedder, open_openai_embedder
from ragkube_api.errors import EmbedderUnavailableError
from ragkube_api.settings import OpenAIEmbedding

Reply = tuple[int, dict[str, str], bytes]


class Server:
    """Answers what ``script`` says for each call, then vectors; keeps what it was sent."""

    def __init__(self, dimensions: int = 3) -> None:
        self.script: list[Reply | None] = []
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.dimensions = dimensions
        self.port = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            path = line.split()[1].decode()
            headers: dict[str, str] = {}
            while (header := await reader.readline()).strip():
                name, _, value = header.decode().partition(":")
                headers[name.lower()] = value.strip()
            raw = await reader.readexactly(int(headers.get("content-length", 0)))
            body = json.loads(raw) if raw else None
            self.requests.append((path, headers, body))
            reply = self.script.pop(0) if self.script else self.vectors(body)
            if reply is None:
                break
            status, extra, content = reply
            lines = "".join(f"{name}: {value}\r\n" for name, value in extra.items())
            writer.write(
                f"HTTP/1.1 {status} X\r\n{lines}Content-Length: {len(content)}\r\n\r\n".encode() + content
            )
            await writer.drain()
        writer.close()

    def vectors(self, body: Any) -> Reply:
        texts = body["input"] if body else []
        data = [
            {"index": i, "embedding": [float(len(text)), *[1.0] * (self.dimensions - 1)]}
            for i, text in enumerate(texts)
        ]
        return 200, {}, json.dumps({"data": data[::-1]}).encode()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    yield server
    listener.close()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the waits instead of waiting."""
    waits: list[float] = []
    sleep = asyncio.sleep

    async def recorded(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr("ragkube_api.adapters.openai_embedder.sleep", recorded)
    return waits


@asynccontextmanager
async def embedder(server: Server, **more: Any) -> AsyncIterator[OpenAIEmbedder]:
    values = {"url": f"http://127.0.0.1:{server.port}", "model": "m", "dimensions": 3, **more}
    async with open_openai_embedder(OpenAIEmbedding(**values)) as opened:
        yield opened


async def test_texts_become_unit_vectors_in_their_order(server: Server) -> None:
    async with embedder(server, batch_size=2) as e:
        vectors = await e.embed_documents(["a", "bbbb", "cc", "ddd", "eeeee"])
        assert vectors.dtype == np.float32
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
        assert np.allclose(vectors[:, 0] / vectors[:, 1], [1, 4, 2, 3, 5])
        assert (await e.embed_query("bbbb")).shape == (3,)
        assert (await e.embed_documents([])).shape == (0, 3)
    assert [len(body["input"]) for _, _, body in server.requests][:3] == [2, 2, 1]
    assert server.requests[0][0] == "/v1/embeddings"
    assert e.name == "openai/m/3"


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "/v1/embeddings"])
async def test_the_url_may_be_given_with_or_without_its_path(server: Server, path: str) -> None:
    async with embedder(server, url=f"http://127.0.0.1:{server.port}{path}") as e:
        await e.embed_query("x")
        await e.ping()
    assert [path for path, _, _ in server.requests] == ["/v1/embeddings", "/v1/models"]


async def test_it_waits_as_long_as_a_busy_server_asks(server: Server, short_waits: list[float]) -> None:
    server.script = [(429, {"Retry-After": "3"}, b""), (503, {}, b""), None]
    async with embedder(server) as e:
        await e.embed_query("x")
    assert len(server.requests) == 4
    assert 3 <= short_waits[0] <= 4.5
    assert 0.5 <= short_waits[1] <= 0.75
    assert 1.0 <= short_waits[2] <= 1.5


async def test_it_gives_up_at_once_when_the_server_asks_for_too_long(
    server: Server, short_waits: list[float]
) -> None:
    server.script = [(429, {"Retry-After": "120"}, b"")]
    async with embedder(server) as e:
        with pytest.raises(EmbedderUnavailableError) as caught:
            await e.embed_query("x")
    assert caught.value.retry_after == 120
    assert short_waits == []


@pytest.mark.parametrize("nonsense", ["inf", "nan", "soon", ""])
async def test_a_wait_that_is_no_number_is_as_if_it_were_not_there(
    server: Server, short_waits: list[float], nonsense: str
) -> None:
    server.script = [(429, {"Retry-After": nonsense}, b"")]
    async with embedder(server) as e:
        await e.embed_query("x")
    assert 0.25 <= short_waits[0] <= 0.375


async def test_a_date_to_wait_for_is_understood(server: Server, short_waits: list[float]) -> None:
    server.script = [(429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, b"")]
    async with embedder(server) as e:
        await e.embed_query("x")
    assert short_waits == [0]


@pytest.mark.parametrize(
    ("reply", "sentence", "calls"),
    [
        ((500, {}, b"internal secret"), "answers 500", 4),
        ((401, {}, b"bad key sk-123"), "answers 401", 1),
        ((200, {}, b"<html>"), "holds no vectors", 1),
        (
            (200, {}, b'{"data": [{"index": 0, "embedding": [1, 2]}]}'),
            "1 vectors of 2 dimensions; expected 1 of 3",
            1,
        ),
        ((200, {}, b'{"data": [{"index": 0, "embedding": [1, NaN, 2]}]}'), "expected 1 of 3", 1),
        (None, "cannot be reached", 4),
    ],
)
async def test_trouble_is_one_error_with_a_sentence(
    server: Server, reply: Reply | None, sentence: str, calls: int
) -> None:
    server.script = [reply] * 10
    async with embedder(server) as e:
        with pytest.raises(EmbedderUnavailableError, match=sentence) as caught:
            await e.embed_query("x")
    assert "secret" not in caught.value.message
    assert "sk-" not in caught.value.message
    assert len(server.requests) == calls


async def test_a_server_that_is_away_shows_in_the_ping(server: Server) -> None:
    async with embedder(server, url="http://127.0.0.1:9") as e:
        with pytest.raises(EmbedderUnavailableError, match="cannot be reached"):
            await e.ping()
    server.script = [(502, {}, b"")]
    async with embedder(server) as e:
        with pytest.raises(EmbedderUnavailableError, match="answers 502"):
            await e.ping()


async def test_the_key_is_read_again_when_it_changes(server: Server, tmp_path: Path) -> None:
    key = tmp_path / "key"
    async with embedder(server, api_key_file=key) as e:
        with pytest.raises(EmbedderUnavailableError, match="API key cannot be read"):
            await e.embed_query("x")
        for value in ("one", "two"):
            key.write_text(value + "\n")
            await e.embed_query("x")
    assert [headers["authorization"] for _, headers, _ in server.requests] == ["Bearer one", "Bearer two"]
