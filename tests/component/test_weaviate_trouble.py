"""Weaviate in trouble and writers that crash: a document is whole or was never replaced, and nothing stays behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

from contract.documents import DIMENSIONS, document, query
from ragkube_api.adapters import weaviate_store
from ragkube_api.adapters.weaviate_store import WeaviateVectorStore, open_weaviate_store
from ragkube_api.errors import StoreUnavailableError
from ragkube_api.ports import VectorStore
from ragkube_api.settings import WeaviateStore
from support.processes import tool
from support.weaviate import WeaviateServer, start_weaviate

T = TypeVar("T")
pytestmark = [pytest.mark.component("weaviate"), pytest.mark.timeout(900)]  # the first one may build it


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WeaviateServer]:
    """One of its own: these tests kill it."""
    started = start_weaviate(tmp_path_factory.mktemp("weaviate"))
    yield started
    started.kill()


@pytest.fixture
def settings(server: WeaviateServer) -> WeaviateStore:
    server.forget("Trouble")
    return server.settings(prefix="Trouble", timeout_seconds=5)


@asynccontextmanager
async def opened(
    settings: WeaviateStore, *, dimensions: int = DIMENSIONS
) -> AsyncIterator[WeaviateVectorStore]:
    async with open_weaviate_store(settings, dimensions=dimensions) as store:
        yield store


async def eventually(action: Callable[[], Awaitable[T]], *, seconds: float = 60) -> T:
    """The first result that is no outage."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await action()
        except StoreUnavailableError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


async def found(store: VectorStore, text: str) -> list[str]:
    return sorted(p.chunk.text for p in await store.search("acme", query(text, k=20)))


class CrashError(BaseException):
    """The process ends here."""


def crash_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Let that many requests of a write through, then end."""
    left = steps

    def counting(real: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def step(*arguments: Any) -> Any:
            nonlocal left
            if left == 0:
                raise CrashError
            left -= 1
            return await real(*arguments)

        return step

    monkeypatch.setattr(weaviate_store, "_insert", counting(weaviate_store._insert))
    monkeypatch.setattr(weaviate_store, "_delete", counting(weaviate_store._delete))


@pytest.mark.proves("I4")
@pytest.mark.parametrize("steps", range(6))
async def test_a_crash_leaves_the_old_document_or_the_new_one(
    settings: WeaviateStore, server: WeaviateServer, steps: int
) -> None:
    old, new = ["shared old one", "shared old two"], [f"shared new {n}" for n in range(300)]
    async with opened(settings) as store:
        await store.put(document("d", old))
        with pytest.MonkeyPatch.context() as patch:
            crash_after(patch, steps)
            replacement = document("d", new)
            with suppress(CrashError):
                await store.put(replacement)
    async with opened(settings) as store:
        committed = steps >= 4  # two batches of chunks, the text, the document
        expected = new if committed else old
        text = await store.text("acme", "d")
        assert text is not None
        assert text[1] == "\n\n".join(expected)
        assert set(await found(store, "shared old new")) <= set(expected)
        assert len(await found(store, "shared old new")) == min(20, len(expected))
        await store.put(document("d", ["shared third"]))
        await store.sweep(grace_seconds=0)
        assert await found(store, "shared") == ["shared third"]
        assert server.objects("Trouble", "Chunk", "acme") == 1
        assert server.objects("Trouble", "Text", "acme") == 1


@pytest.mark.proves("I4")
async def test_a_first_write_that_crashed_is_swept(settings: WeaviateStore, server: WeaviateServer) -> None:
    async with opened(settings) as store:
        await store.put(document("kept", ["kept one", "kept two"]))
        with pytest.MonkeyPatch.context() as patch:
            crash_after(patch, 2)
            with pytest.raises(CrashError):
                await store.put(document("lost", ["lost one"]))
        assert await found(store, "lost one kept two") == ["kept one", "kept two"]
        assert await store.get("acme", "lost") is None
        assert await store.sweep() == 0, "it may still be under way"
        assert await store.sweep(grace_seconds=0) == 1
        assert server.objects("Trouble", "Chunk", "acme") == 2
        assert await found(store, "kept") == ["kept one", "kept two"]


@pytest.mark.proves("I4")
async def test_leftovers_do_not_crowd_out_what_is_current(settings: WeaviateStore) -> None:
    async with opened(settings) as store:
        await store.put(document("d", ["common"] * 80))
        with pytest.MonkeyPatch.context() as patch:
            crash_after(patch, 3)  # committed, the old chunks stay
            with pytest.raises(CrashError):
                await store.put(document("d", ["common but other words too"]))
        await store.put(document("e", ["common and different"]))
        assert await found(store, "common") == ["common and different", "common but other words too"]


@pytest.mark.proves("K7", "R3")
async def test_it_heals_when_weaviate_comes_back(settings: WeaviateStore, server: WeaviateServer) -> None:
    write = document("d", ["still here"])
    async with opened(settings) as store:
        await store.put(write)
        server.kill()
        for call in (
            lambda: store.search("acme", query("still")),
            lambda: store.get("acme", "d"),
            lambda: store.put(document("e", ["x"])),
            store.ping,
        ):
            with pytest.raises(StoreUnavailableError) as caught:
                async with asyncio.timeout(20):  # the client's own patience is a minute
                    await call()
            assert "127.0.0.1" not in caught.value.message
        await asyncio.to_thread(server.start)
        await eventually(store.ping)
        assert await eventually(lambda: store.text("acme", "d")) == (write.document, write.text)
        assert await found(store, "still here") == ["still here"]
        await store.put(document("e", ["new"]))


@pytest.mark.proves("K7", "R3")
async def test_it_starts_without_weaviate_and_again_after_all_data_were_lost(tmp_path: Path) -> None:
    server = WeaviateServer(tool("weaviate"), tmp_path)
    try:
        async with opened(server.settings(timeout_seconds=5)) as store:
            with pytest.raises(StoreUnavailableError):
                await store.count("acme")
            await asyncio.to_thread(server.start)
            await eventually(store.ping)
            await store.put(document("d", ["one"]))
            server.kill()
            (tmp_path / "data").rename(tmp_path / "lost")
            await asyncio.to_thread(server.start)
            await eventually(store.ping)
            assert await eventually(lambda: store.count("acme")) == 0
            await store.put(document("d", ["two"]))
            assert await found(store, "two") == ["two"]
    finally:
        server.kill()


async def test_replicas_that_start_together_make_the_collections_once(
    server: WeaviateServer,
) -> None:
    settings = server.settings(prefix="Together")

    async def start(number: int) -> None:
        async with opened(settings) as store:
            await store.put(document(f"d{number}", [f"text {number}"]))

    await asyncio.gather(*(start(number) for number in range(5)))
    assert len(server.collections("Together")) == 3
    async with opened(settings) as store:
        assert await store.count("acme") == 5


async def test_collections_for_other_vectors_are_refused_in_words(settings: WeaviateStore) -> None:
    async with opened(settings) as store:
        await store.put(document("d", ["one"]))
    async with opened(settings, dimensions=64) as store:
        with pytest.raises(StoreUnavailableError, match=r"256 dimensions.*64 dimensions"):
            await store.ping()
        with pytest.raises(StoreUnavailableError, match="collection prefix"):
            await store.get("acme", "d")


@pytest.mark.proves("S6")
async def test_a_new_key_needs_no_restart(settings: WeaviateStore) -> None:
    assert settings.api_key_file is not None
    key = settings.api_key_file.read_text()
    settings.api_key_file.write_text("wrong")
    async with opened(settings) as store:
        with pytest.raises(StoreUnavailableError) as caught:
            await store.count("acme")
        assert "wrong" not in caught.value.message
        settings.api_key_file.write_text(key)
        assert await eventually(lambda: store.count("acme")) == 0
