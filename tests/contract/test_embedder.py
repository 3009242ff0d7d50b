"""What every embedder promises."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from ragkube_api.ports import Embedder
from ragkube_api.settings import OpenAIEmbedding


class _Embeddings(BaseHTTPRequestHandler):
    """``/v1/embeddings`` with a vector that depends on the words; not of unit length, not in order."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        data = [
            {"object": "embedding", "index": index, "embedding": _words(text)}
            for index, text in enumerate(body["input"])
        ]
        self._reply({"object": "list", "data": data[::-1], "model": body["model"], "usage": {}})

    def do_GET(self) -> None:
        self._reply({"object": "list", "data": [{"id": "m", "object": "model"}]})

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def _reply(self, body: object) -> None:
        payload = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)


def _words(text: str) -> list[float]:
    total = [0.01] * 64
    for word in text.lower().split():
        total[hashlib.sha256(word.encode()).digest()[0] % 64] += 3
    return total


@pytest.fixture(scope="session")
def embeddings_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Embeddings) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(params=["wordllama", "openai"])
async def embedder(request: pytest.FixtureRequest, embeddings_url: str) -> AsyncIterator[Embedder]:
    if request.param == "wordllama":
        from ragkube_api.adapters.wordllama_embedder import WordllamaEmbedder

        yield WordllamaEmbedder.load()
        return
    from ragkube_api.adapters.openai_embedder import open_openai_embedder

    settings = OpenAIEmbedding(url=embeddings_url, model="m", dimensions=64, batch_size=7)
    async with open_openai_embedder(settings) as opened:
        yield opened


async def test_one_unit_vector_a_text_in_order(embedder: Embedder) -> None:
    texts = [f"text number {n}" for n in range(20)]
    together = await embedder.embed_documents(texts)
    assert together.shape == (20, embedder.dimensions)
    assert together.dtype == np.float32
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-4)
    for number in (0, 11, 19):
        alone = await embedder.embed_documents([texts[number]])
        assert np.allclose(alone[0], together[number], atol=1e-4)


async def test_a_question_lies_near_its_text(embedder: Embedder) -> None:
    texts = ["whales swim in the ocean", "the controller restarts pods", "bread is baked from flour"]
    rows = await embedder.embed_documents(texts)
    question = await embedder.embed_query("why the controller restarts pods")
    assert question.shape == (embedder.dimensions,)
    assert int(np.argmax(rows @ question)) == 1


async def test_nothing_and_odd_texts(embedder: Embedder) -> None:
    assert (await embedder.embed_documents([])).shape == (0, embedder.dimensions)
    rows = await embedder.embed_documents(["", " ", "😀", "中文", "\x00", "long " * 5000])
    assert rows.shape == (6, embedder.dimensions)
    assert np.isfinite(rows).all()


async def test_its_name_tells_model_and_dimensions(embedder: Embedder) -> None:
    assert str(embedder.dimensions) in embedder.name


async def test_it_can_serve(embedder: Embedder) -> None:
    await embedder.ping()
