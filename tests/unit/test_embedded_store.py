"""The store in a directory: atomic, durable, owned by one process, and harmless to ask anything."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragkube_api.adapters import embedded_store_files
from ragkube_api.adapters.embedded_store import EmbeddedStore, open_embedded_store
from ragkube_api.domain import Document, DocumentWrite, SearchQuery
from ragkube_api.errors import StartupError, StorageFullError, StoreUnavailableError
from ragkube_api.text import chunking

DIMENSIONS = 4
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def vector(seed: str, dimensions: int = DIMENSIONS) -> Any:
    values = np.random.default_rng(abs(hash(seed)) % 2**32).normal(size=dimensions).astype(np.float32)
    return values / np.linalg.norm(values)


def write(
    document_id: str = "a",
    text: str = "The pump runs at 40 bar.",
    *,
    tenant: str = "default",
    version: str = "1",
    **more: Any,
) -> DocumentWrite:
    dimensions = more.pop("dimensions", DIMENSIONS)
    chunks = chunking.split(text, content_type="text/plain", max_characters=200)
    document = Document(
        tenant=tenant, id=document_id, version=version, sha256="s", fingerprint="f", content_type="text/plain",
        title=more.get("title", ""), metadata=more.get("metadata", {}), source=more.get("source"), size=len(text),
        characters=len(text), chunks=len(chunks), created=NOW, updated=NOW,
    )  # fmt: skip
    vectors = [vector(chunk.text, dimensions) for chunk in chunks]
    return DocumentWrite(document, text, chunks, np.array(vectors, dtype=np.float32).reshape(-1, dimensions))


def ask(
    text: str, *, k: int = 5, alpha: float = 0.0, dimensions: int = DIMENSIONS, **filters: Any
) -> SearchQuery:
    return SearchQuery(text, vector(text, dimensions), k, alpha, filters)


async def found(store: EmbeddedStore, query: SearchQuery, tenant: str = "default") -> list[str]:
    return [passage.document for passage in await store.search(tenant, query)]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[EmbeddedStore]:
    async with open_embedded_store(tmp_path, dimensions=DIMENSIONS) as opened:
        yield opened


@pytest.mark.proves("Q7")
async def test_words_and_vectors_find_their_own(store: EmbeddedStore) -> None:
    await store.put(write("words", "valves and pumps of the plant"))
    await store.put(write("near", "something else altogether"))
    query = SearchQuery("pumping valve", vector("something else altogether"), 2, 0.0)
    assert await found(store, query) == ["words"]
    near = SearchQuery("pumping valve", vector("something else altogether"), 1, 1.0)
    (passage,) = await store.search("default", near)
    assert (passage.document, passage.version) == ("near", "1")
    assert passage.score == pytest.approx(1.0)
    assert passage.chunk.text == "something else altogether"


@pytest.mark.proves("Q7")
async def test_filters_match_metadata_by_value_and_type(store: EmbeddedStore) -> None:
    await store.put(write("a", metadata={"team": "red", "level": 1, "open": True, "weight": 2.0}))
    await store.put(write("b", metadata={"team": "blue", "level": 2}))
    await store.put(write("c"))
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"team": "red"}, ["a"]),
        ({"team": ["red", "blue"]}, ["a", "b"]),
        ({"team": "blue", "level": 1}, []),
        ({"level": 1.0}, ["a"]),
        ({"level": True}, []),
        ({"open": True}, ["a"]),
        ({"open": 1}, []),
        ({"weight": 2}, ["a"]),
        ({"level": "1"}, []),
        ({"team": []}, []),
        ({"tea'm\" OR 1=1": "x"}, []),
    ]
    for filters, documents in cases:
        for alpha in (0.0, 0.5, 1.0):
            assert sorted(await found(store, ask("pump", alpha=alpha, **filters))) == documents, filters


async def test_a_replaced_document_is_found_by_its_new_text_only(store: EmbeddedStore) -> None:
    await store.put(write("a", "about turbines", version="1"))
    await store.put(write("a", "about generators", version="2"))
    assert await found(store, ask("turbines")) == []
    (passage,) = await store.search("default", ask("generators", alpha=0.5))
    assert passage.version == "2"
    assert await store.count("default") == 1
    assert (await store.text("default", "a") or (None, ""))[1] == "about generators"


async def test_a_deleted_document_is_gone_from_words_and_vectors(store: EmbeddedStore) -> None:
    await store.put(write("a"))
    assert await store.delete("default", "a") is True
    assert await store.delete("default", "a") is False
    assert await store.delete("nobody", "a") is False
    for alpha in (0.0, 0.5, 1.0):
        assert await found(store, ask("pump", alpha=alpha)) == []
    assert await store.get("default", "a") is None


async def test_tenants_do_not_see_or_outweigh_each_other(store: EmbeddedStore) -> None:
    await store.put(write("a", "pump"))
    await store.put(write("b", "valve"))
    before = await store.search("default", ask("pump valve"))
    for number in range(20):
        await store.put(write(f"x{number}", "pump", tenant="other"))
    assert await store.search("default", ask("pump valve")) == before
    assert await found(store, ask("pump"), tenant="nobody") == []
    assert await store.count("other") == 20


async def test_listing_goes_through_all_documents_once(store: EmbeddedStore) -> None:
    ids = [f"d/{number:02}" for number in range(7)]
    for number, document_id in enumerate(reversed(ids)):
        await store.put(write(document_id, source="s" if number % 2 else None))
    seen, cursor = [], None
    while True:
        page = await store.list("default", cursor=cursor, limit=3)
        seen += [document.id for document in page.documents]
        if (cursor := page.next_cursor) is None:
            break
    assert seen == ids
    sourced = await store.list("default", cursor=None, limit=10, source="s")
    assert [document.id for document in sourced.documents] == ["d/01", "d/03", "d/05"]
    assert (await store.list("nobody", cursor=None, limit=3)).documents == []


async def test_what_was_put_is_what_is_got(store: EmbeddedStore) -> None:
    written = write(
        "ä/😀 b", "Größe\n\n中文 text", title="T", metadata={"x": 1, "y": [1][0], "z": True}, source="s"
    )
    await store.put(written)
    assert await store.text("default", "ä/😀 b") == (written.document, written.text)
    assert await store.get("default", "ä/😀 b") == written.document


@pytest.mark.proves("K14")
async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    async with open_embedded_store(tmp_path, dimensions=DIMENSIONS) as first:
        await asyncio.gather(*(first.put(write(str(n), f"text number n{n} of many")) for n in range(100)))
        await first.delete("default", "5")
        queries = [ask(f"n{n}", alpha=alpha) for n in (3, 7) for alpha in (0.0, 0.5, 1.0)]
        before = [await first.search("default", query) for query in queries]
    async with open_embedded_store(tmp_path, dimensions=DIMENSIONS) as second:
        assert await second.count("default") == 99
        assert [await second.search("default", query) for query in queries] == before


async def test_a_search_never_sees_half_of_a_replacement(store: EmbeddedStore) -> None:
    """Each version has ten passages, all found by the same word; a mixture would show two versions or fewer."""

    def version(number: int) -> DocumentWrite:
        text = "\n\n".join(f"pump part {part} of version {number} " + "x" * 150 for part in range(10))
        return write("a", text, version=str(number))

    await store.put(version(0))

    async def replace() -> None:
        for number in range(1, 40):
            await store.put(version(number))

    task = asyncio.create_task(replace())
    searches = 0
    while not task.done():
        passages = await store.search("default", ask("pump part", k=20, alpha=0.5))
        assert len(passages) == 10
        assert len({passage.version for passage in passages}) == 1
        searches += 1
    await task
    assert searches > 5


async def test_memory_of_removed_vectors_is_taken_back(store: EmbeddedStore) -> None:
    for number in range(700):
        await store.put(write("a", f"pump {number}", version=str(number)))
    assert len(store._vectors["default"].snapshot().chunks) < 600
    assert [p.version for p in await store.search("default", ask("pump", alpha=1.0))] == ["699"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    question=st.one_of(
        st.text(max_size=80),
        st.sampled_from(
            ['"', "NEAR(a b)", "a AND NOT", "text:*", "^a", "';--", "\U0001d518 \u2177 \U0001e900"]
        ),
    )
)
async def test_any_question_can_be_asked(store: EmbeddedStore, question: str) -> None:
    await store.put(write("q", question or "x") if question.strip() else write("q"))
    for alpha in (0.0, 0.5):
        assert len(await store.search("default", ask(question, alpha=alpha))) <= 5


async def test_other_dimensions_are_found_by_words_until_the_document_is_put_again(tmp_path: Path) -> None:
    async with open_embedded_store(tmp_path, dimensions=4) as store:
        await store.put(write("old", "an old pump"))
    async with open_embedded_store(tmp_path, dimensions=6) as store:
        await store.put(write("new", "a new pump", dimensions=6))
        assert sorted(await found(store, ask("pump", dimensions=6, alpha=0.5))) == ["new", "old"]
        assert await found(store, ask("pump", dimensions=6, alpha=1.0)) == ["new"]
        await store.put(write("old", "an old pump", dimensions=6))
        assert len(await found(store, ask("pump", dimensions=6, alpha=1.0))) == 2
        with pytest.raises(ValueError, match="6 dimensions"):
            await store.put(write("bad"))


async def test_vectors_of_another_model_are_not_searched(tmp_path: Path) -> None:
    async with open_embedded_store(tmp_path, dimensions=4, embedder="one") as store:
        await store.put(write("a"))
    async with open_embedded_store(tmp_path, dimensions=4, embedder="two") as store:
        assert await found(store, ask("pump", alpha=1.0)) == []
        assert await found(store, ask("pump", alpha=0.5)) == ["a"]


@pytest.mark.proves("K14")
async def test_a_second_owner_is_refused_with_a_sentence(tmp_path: Path) -> None:
    async with open_embedded_store(tmp_path, dimensions=4):
        with pytest.raises(StartupError, match=rf"{tmp_path} is in use by process {os.getpid()}; stop it"):
            async with open_embedded_store(tmp_path, dimensions=4):
                pass
    async with open_embedded_store(tmp_path, dimensions=4):
        pass


def open_as_nobody(path: Path) -> str:
    """Permissions do not bind root: open it as somebody else."""
    code = (
        "import asyncio, os, sys\nfrom pathlib import Path\n"
        "from ragkube_api.adapters.embedded_store import open_embedded_store\n"
        "from ragkube_api.errors import StartupError\n"
        "if os.geteuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "async def main():\n"
        "    async with open_embedded_store(Path(sys.argv[1]), dimensions=4): print('opened')\n"
        "try: asyncio.run(main())\nexcept StartupError as error: print(error.message)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, env=environment, check=False
    )
    if "Permission denied" in done.stderr:
        pytest.skip("the interpreter cannot be started as another user here")
    return done.stdout.strip()


@pytest.mark.proves("K14")
async def test_a_read_only_directory_is_refused_with_a_sentence(tmp_path: Path) -> None:
    for parent in [tmp_path, *tmp_path.parents][:3]:
        parent.chmod(parent.stat().st_mode | 0o055)
    directory = tmp_path / "data"
    async with open_embedded_store(directory, dimensions=4):
        pass
    directory.chmod(0o555)
    assert (
        open_as_nobody(directory) == f"the data directory {directory} cannot be written (permission denied)"
    )


async def test_a_path_that_is_a_file_or_damaged_or_newer_is_refused_with_a_sentence(tmp_path: Path) -> None:
    async def refusal(path: Path) -> str:
        with pytest.raises(StartupError) as caught:
            async with open_embedded_store(path, dimensions=4):
                pass
        return caught.value.message

    (tmp_path / "file").write_text("x")
    assert "cannot be used (file exists)" in await refusal(tmp_path / "file")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / embedded_store_files.DATABASE).write_bytes(b"no database " * 1000)
    assert "is damaged; restore it from a backup, or delete it" in await refusal(damaged)
    newer = tmp_path / "newer"
    newer.mkdir()
    with sqlite3.connect(newer / embedded_store_files.DATABASE) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert "was written by a newer version" in await refusal(newer)


async def test_a_full_disk_fails_the_write_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = embedded_store_files.connect
    limits: list[sqlite3.Connection] = []

    def limited(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        connection.execute("PRAGMA max_page_count = 120")  # SQLite then says what it says on a full disk
        limits.append(connection)
        return connection

    monkeypatch.setattr(embedded_store_files, "connect", limited)
    async with open_embedded_store(tmp_path, dimensions=DIMENSIONS) as store:
        await store.put(write("small", "a pump"))
        big = "\n\n".join(f"line {n} {os.urandom(60).hex()}" for n in range(4000))
        with pytest.raises(StorageFullError, match=f"the disk of the data directory {tmp_path} is full"):
            await store.put(write("big", big))
        assert await found(store, ask("pump", alpha=0.5)) == ["small"]
        assert await store.get("default", "big") is None
        await store.put(write("another", "a second pump"))
        assert await store.count("default") == 2


async def test_a_disk_that_is_full_at_the_start_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = embedded_store_files.connect

    def limited(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        connection.execute("PRAGMA max_page_count = 2")
        return connection

    monkeypatch.setattr(embedded_store_files, "connect", limited)
    with pytest.raises(StartupError, match=f"the disk of the data directory {tmp_path} is full; make room"):
        async with open_embedded_store(tmp_path, dimensions=4):
            pass


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    async with open_embedded_store(tmp_path, dimensions=DIMENSIONS) as store:
        await store.put(write("a"))
    for call in (
        store.put(write("b")),
        store.get("default", "a"),
        store.search("default", ask("x")),
        store.ping(),
    ):
        with pytest.raises(StoreUnavailableError, match="the document store is closed"):
            await call


async def test_a_write_that_fails_leaves_the_others_of_its_group(store: EmbeddedStore) -> None:
    bad = write("bad", "lone surrogate")
    bad = replace(bad, text="\ud800")
    results = await asyncio.gather(
        *(store.put(w) for w in (write("a"), bad, write("b"))), return_exceptions=True
    )
    assert [type(result).__name__ for result in results] == ["NoneType", "UnicodeEncodeError", "NoneType"]
    assert await store.count("default") == 2
    assert sorted(await found(store, ask("pump", alpha=0.5))) == ["a", "b"]


WRITER = """
import asyncio, sys
from pathlib import Path
from test_embedded_store import write
from ragkube_api.adapters.embedded_store import open_embedded_store

async def main():
    async with open_embedded_store(Path(sys.argv[1]), dimensions=4) as store:
        async def put(n):
            await store.put(write(f"d{n:05}", f"pump number n{n} " + "word " * 200))
            print(f"d{n:05}", flush=True)
        for start in range(0, 100_000, 8):
            await asyncio.gather(*(put(n) for n in range(start, start + 8)))
asyncio.run(main())
"""


@pytest.mark.proves("K14")
def test_kill_9_loses_no_document_that_was_acknowledged(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    acknowledged = [process.stdout.readline().strip() for _ in range(120)]
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate()
    acknowledged += [line for line in rest.split("\n")[:-1] if line]
    assert len(acknowledged) >= 120
    asyncio.run(all_are_there(tmp_path, acknowledged))


async def all_are_there(path: Path, acknowledged: list[str]) -> None:
    async with open_embedded_store(path, dimensions=DIMENSIONS) as store:
        for document_id in acknowledged:
            assert await store.get("default", document_id) is not None
        assert await found(store, ask("n7", alpha=0.5)) != []
        assert await store.count("default") >= len(acknowledged)


async def test_the_event_loop_is_free_while_the_store_works(store: EmbeddedStore) -> None:
    """Between two beats of the loop lies no whole write: the beats during one are many."""
    text = "\n\n".join(f"pump {n} " + "word " * 30 for n in range(3000))
    big = write("big", text)
    beats = 0
    task = asyncio.create_task(store.put(big))
    while not task.done():
        await asyncio.sleep(0.001)
        beats += 1
    assert beats > 5
