"""Static vectors: unit length, no network, the same one by one and in batches; and what they do for ranking."""

from __future__ import annotations

import socket
import subprocess
import sys
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from ragkube_api.adapters.embedded_store import open_embedded_store
from ragkube_api.adapters.reranked_store import RerankedStore
from ragkube_api.adapters.wordllama_embedder import WordllamaEmbedder
from ragkube_api.adapters.wordllama_model import load_model, mapped
from ragkube_api.domain import Document, DocumentWrite, SearchQuery
from ragkube_api.errors import StartupError
from ragkube_api.text import chunking


@pytest.mark.parametrize("dimensions", [64, 128, 256])
async def test_vectors_have_unit_length(dimensions: int) -> None:
    embedder = WordllamaEmbedder.load(dimensions)
    vectors = await embedder.embed_documents(["a pump", "", "größe 中文 😀", "word " * 5000])
    assert vectors.shape == (4, dimensions)
    assert np.allclose(np.linalg.norm(vectors, axis=1), [1, 0, 1, 1], atol=1e-5)
    assert np.allclose(await embedder.embed_query("a pump"), vectors[0])
    assert embedder.name == f"wordllama/l2_supercat_256/{dimensions}"
    await embedder.ping()


async def test_similar_texts_are_near() -> None:
    vectors = await WordllamaEmbedder.load().embed_documents(
        ["a car on the road", "vehicles in traffic", "boil the egg"]
    )
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.1


async def test_many_texts_are_embedded_like_one() -> None:
    embedder = WordllamaEmbedder.load(64)
    texts = [f"text {n} about pumps" for n in range(300)]
    vectors = await embedder.embed_documents(texts)
    assert np.allclose(vectors[250], await embedder.embed_query(texts[250]), atol=1e-6)
    assert (await embedder.embed_documents([])).shape == (0, 64)


def test_vectors_are_exactly_those_of_the_file() -> None:
    model = load_model()
    spec = find_spec("wordllama")
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0])
    (stored,) = load_file(folder / "weights" / "l2_supercat_256.safetensors").values()
    table = stored.astype(np.float32)
    every = np.arange(len(table), dtype=np.uint16)
    assert all(np.array_equal(model.total(every[n : n + 1]), table[n]) for n in range(0, len(table), 7))
    assert np.allclose(model.weights, np.linalg.norm(table, axis=1), rtol=1e-6)

    question, text = model.tokens(["How far is the moon?", "The distance of the moon is 384,400 km."])
    units = table / np.linalg.norm(table, axis=1)[:, None]
    asked = np.unique(question)
    best = (units[asked] @ units[text].T).max(axis=1)
    wanted = model.weights[asked] @ best / model.weights[asked].sum()
    assert np.allclose(model.interaction(question, [text]), [wanted], atol=1e-5)


@pytest.mark.parametrize("content", [b"", b"\x05\0\0\0\0\0\0\0[1,2]", b"\xff" * 100])
def test_a_damaged_model_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(StartupError, match="damaged"):
        mapped(file)


def test_loading_needs_no_network_and_not_the_package_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", None)
    load_model.cache_clear()
    load_model()
    code = (
        "import sys; from ragkube_api.adapters.wordllama_embedder import WordllamaEmbedder as W; W.load();"
        "print(sorted({'wordllama', 'requests', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_interaction_looks_for_each_word_of_the_question() -> None:
    model = load_model()
    question, both, one, none, empty = model.tokens(
        ["valve pressure", "the pressure at a valve", "a valve", "soup", ""]
    )
    scores = model.interaction(question, [both, one, none, empty])
    assert scores[0] > scores[1] > scores[2] > scores[3] == 0
    assert model.interaction(empty, [both]).tolist() == [0]


@pytest.mark.proves("Q7")
async def test_the_passage_that_answers_moves_up(tmp_path: Path) -> None:
    texts = {
        "topic": "Pump pump pump. Pumps and pumping of pumped water by a pump.",
        "answer": "The greatest pressure at which it may be run is 40 bar; the pump stops above it.",
    }
    embedder = WordllamaEmbedder.load(64)
    now = datetime.now(UTC)
    async with open_embedded_store(tmp_path, dimensions=64, embedder=embedder.name) as inner:
        store = RerankedStore(inner)
        for name, text in texts.items():
            chunks = chunking.split(text, content_type="text/plain", max_characters=300)
            document = Document(
                tenant="t", id=name, version="1", sha256="", fingerprint="", content_type="text/plain", title="",
                metadata={}, source=None, size=1, characters=len(text), chunks=1, created=now, updated=now,
            )  # fmt: skip
            vectors = await embedder.embed_documents([chunk.text for chunk in chunks])
            await store.put(DocumentWrite(document, text, chunks, vectors))
        question = "At which greatest pressure may the pump run?"
        query = SearchQuery(question, await embedder.embed_query(question), 1, 0.5)
        (best,) = await store.search("t", query)
        assert (best.document, best.chunk.text) == ("answer", texts["answer"])
        assert 0 <= best.score <= 1
        assert await store.count("t") == 2
        assert await store.search("nobody", query) == []


def test_many_tokens_are_compared_like_few() -> None:
    """Which goes part by part: every thread keeps the memory it once needed."""
    model = load_model()
    question = model.tokens(["How are certificates rotated?"])[0]
    texts = [np.arange(start, start + 400, dtype=np.uint16) for start in range(1000, 9000, 400)]
    together = model.interaction(question, texts)
    assert np.allclose(together, [model.interaction(question, [text])[0] for text in texts], atol=1e-5)
