"""What every document store promises."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.documents import DIMENSIONS, document, query
from ragkube_api.domain import Scalar
from ragkube_api.ports import VectorStore

OpenStore: TypeAlias = Callable[[], AbstractAsyncContextManager[VectorStore]]


# the first test may have to build Weaviate
WEAVIATE = pytest.param("weaviate", marks=[pytest.mark.component("weaviate"), pytest.mark.timeout(900)])


@pytest.fixture(params=["embedded", WEAVIATE])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def open_store(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """Opens the same store each time; it is empty at first."""
    if kind == "embedded":
        from ragkube_api.adapters.embedded_store import open_embedded_store

        return lambda: open_embedded_store(tmp_path / "store", dimensions=DIMENSIONS)
    from ragkube_api.adapters.weaviate_store import open_weaviate_store

    server = request.getfixturevalue("weaviate_server")
    server.forget("Suite")  # making collections anew for every test takes seconds
    configuration = server.settings(prefix="Suite")
    return lambda: open_weaviate_store(configuration, dimensions=DIMENSIONS)


@pytest.fixture
async def store(open_store: OpenStore) -> AsyncIterator[VectorStore]:
    async with open_store() as opened:
        yield opened


async def found(store: VectorStore, text: str, *, tenant: str = "acme", **options: object) -> list[str]:
    passages = await store.search(tenant, query(text, **options))  # type: ignore[arg-type]
    return [passage.chunk.text for passage in passages]


@pytest.mark.proves("I1")
async def test_a_document_comes_back_whole(store: VectorStore) -> None:
    write = document(
        "a/b.md", ["alpha beta", "gamma delta"], title="Über 😀",
        metadata={"team": "core", "year": 2026, "share": 0.5, "open": True}, source="docs",
    )  # fmt: skip
    await store.put(write)
    assert await store.get("acme", "a/b.md") == write.document
    assert await store.text("acme", "a/b.md") == (write.document, write.text)
    assert await store.count("acme") == 1
    (passage,) = await store.search("acme", query("gamma", k=1))
    assert (passage.document, passage.version, passage.title) == ("a/b.md", write.document.version, "Über 😀")
    assert passage.chunk == write.chunks[1]
    assert 0 <= passage.score <= 1


async def test_what_is_not_there(store: VectorStore) -> None:
    for tenant in ("acme", "nobody"):
        assert await store.get(tenant, "x") is None
        assert await store.text(tenant, "x") is None
        assert await store.delete(tenant, "x") is False
        assert await store.count(tenant) == 0
        assert await store.search(tenant, query("anything")) == []
        page = await store.list(tenant, cursor=None, limit=5)
        assert (list(page.documents), page.next_cursor) == ([], None)
        await store.put(document("one", ["word"]))


@pytest.mark.proves("I4")
async def test_a_replaced_document_has_only_its_new_passages(store: VectorStore) -> None:
    await store.put(document("d", ["old one", "old two", "old three"]))
    await store.put(document("d", ["new one"]))
    assert await found(store, "old one two three new", k=10) == ["new one"]
    assert await store.count("acme") == 1
    text = await store.text("acme", "d")
    assert text is not None
    assert text[1] == "new one"


@pytest.mark.proves("I1")
async def test_a_deleted_document_is_gone(store: VectorStore) -> None:
    await store.put(document("d", ["gone soon"]))
    await store.put(document("e", ["still here"]))
    assert await store.delete("acme", "d")
    assert not await store.delete("acme", "d")
    assert await store.get("acme", "d") is None
    assert await store.text("acme", "d") is None
    assert await found(store, "gone soon still here", k=10) == ["still here"]
    await store.put(document("d", ["back again"]))
    assert "back again" in await found(store, "back again")


@pytest.mark.proves("K7", "S3")
async def test_tenants_see_only_their_own(store: VectorStore) -> None:
    await store.put(document("d", ["secret alpha"], tenant="acme"))
    await store.put(document("d", ["secret beta"], tenant="zeta"))
    assert await found(store, "secret", tenant="acme", k=10) == ["secret alpha"]
    assert await found(store, "secret", tenant="zeta", k=10) == ["secret beta"]
    await store.delete("zeta", "d")
    assert await store.count("acme") == 1
    assert (await store.list("zeta", cursor=None, limit=9)).documents == []


@pytest.mark.proves("Q7")
async def test_alpha_chooses_between_words_and_vectors(store: VectorStore) -> None:
    near = document("near", ["apple pear"])
    words = document("words", ["plum cherry"])
    await store.put(replace(near, vectors=document("x", ["plum"]).vectors))
    await store.put(replace(words, vectors=document("x", ["car"]).vectors))
    assert (await found(store, "plum", alpha=1, k=2))[0] == "apple pear"
    assert (await found(store, "plum", alpha=0, k=2))[0] == "plum cherry"


@pytest.mark.proves("Q7")
async def test_words_match_in_any_form_also_in_title_and_heading(store: VectorStore) -> None:
    await store.put(document("a", ["The controllers were restarted"], title="Operations"))
    await store.put(document("b", ["Nothing of the kind"], title="Kubelet"))
    assert (await found(store, "restarting a controller", alpha=0))[0] == "The controllers were restarted"
    assert (await found(store, "kubelets", alpha=0))[0] == "Nothing of the kind"


async def test_the_best_come_first_and_at_most_k(store: VectorStore) -> None:
    for number in range(12):
        await store.put(document(f"d{number}", [f"common word{number}"]))
    for k in (1, 5, 12, 20):
        passages = await store.search("acme", query("common word7", k=k))
        assert len(passages) == min(k, 12)
        assert [p.score for p in passages] == sorted((p.score for p in passages), reverse=True)
        assert passages[0].chunk.text == "common word7"


async def test_a_question_without_words_is_answered_by_vectors(store: VectorStore) -> None:
    await store.put(document("d", ["apple"]))
    for text in ("???", "the"):
        await store.search("acme", query(text))


METADATA: dict[str, dict[str, Scalar]] = {
    "a": {"team": "core", "year": 2026, "share": 0.5, "open": True},
    "b": {"team": "web", "year": 2025, "share": 2.0, "open": False},
    "c": {"team": "core team", "year": "2026"},
    "e": {},
}


@pytest.mark.proves("Q7")
@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, "abce"),
        ({"team": "core"}, "a"),
        ({"team": "Core"}, ""),
        ({"team": ["core", "web"]}, "ab"),
        ({"team": []}, ""),
        ({"year": 2026}, "a"),
        ({"year": "2026"}, "c"),
        ({"year": [2025, "2026"]}, "bc"),
        ({"year": 2026.0}, "a"),
        ({"share": 0.5}, "a"),
        ({"share": 2}, "b"),
        ({"open": True}, "a"),
        ({"open": False}, "b"),
        ({"open": 1}, ""),
        ({"team": "core", "year": 2026}, "a"),
        ({"team": "core", "year": 2025}, ""),
        ({"unknown": "x"}, ""),
        ({"team.x[0]": "x"}, ""),
        ({"": ""}, ""),
    ],
)
async def test_filters(store: VectorStore, filters: dict[str, object], expected: str) -> None:
    for name, metadata in METADATA.items():
        await store.put(document(name, [f"common {name}"], metadata=metadata))
    for alpha in (0, 0.5, 1):
        passages = await store.search("acme", query("common", k=10, alpha=alpha, filters=filters))
        assert "".join(sorted(p.document for p in passages)) == expected


async def test_new_metadata_replaces_the_old(store: VectorStore) -> None:
    await store.put(document("d", ["word"], metadata={"state": "draft"}))
    await store.put(document("d", ["word"], metadata={"state": "final"}))
    assert await found(store, "word", filters={"state": "draft"}) == []
    assert await found(store, "word", filters={"state": "final"}) == ["word"]


IDS = [
    "a",
    "B",
    "b",
    "a/b",
    "a b",
    " a",
    "a ",
    "ä",
    "😀",
    "é",
    "e\u0301",
    "z" * 512,
    "*",
    "a%2Fb",
    "ｱ",
    "1",
    "10",
    "2",
    '"',
]


@pytest.mark.proves("I1")
async def test_a_listing_has_every_document_once_in_order(store: VectorStore) -> None:
    for number, name in enumerate(IDS):
        await store.put(document(name, [f"text {number}"], source="odd" if number % 2 else None))
    for limit in (1, 4, len(IDS), 100):
        assert await listing(store, limit) == sorted(IDS)
    assert await listing(store, 3, source="odd") == sorted(IDS[1::2])
    assert await listing(store, 3, source="none") == []
    assert await store.count("acme") == len(IDS)
    for name in IDS:
        description = await store.get("acme", name)
        assert description is not None
        assert description.id == name


async def listing(store: VectorStore, limit: int, *, source: str | None = None) -> list[str]:
    names: list[str] = []
    cursor = None
    while True:
        page = await store.list("acme", cursor=cursor, limit=limit, source=source)
        assert len(page.documents) <= limit
        names += [each.id for each in page.documents]
        cursor = page.next_cursor
        if cursor is None:
            return names


async def test_a_cursor_stays_valid_while_documents_come_and_go(store: VectorStore) -> None:
    for name in "bdfh":
        await store.put(document(name, [name]))
    page = await store.list("acme", cursor=None, limit=2)
    await store.delete("acme", "d")
    await store.put(document("a", ["a"]))
    await store.put(document("e", ["e"]))
    rest = await store.list("acme", cursor=page.next_cursor, limit=10)
    assert [each.id for each in rest.documents] == ["e", "f", "h"]


async def test_any_text_survives(store: VectorStore) -> None:
    passages = [
        "العربية עברית",
        "中文 日本語 한국어",
        "😀👩‍👩‍👧 e\u0301 ﬁ",
        "\ttab\r\nline\u2028end",
        "null \x00 byte",
    ]
    write = document("d", passages, title="  spaces  ", metadata={"ключ 😀": " значение "})
    await store.put(write)
    stored = await store.text("acme", "d")
    assert stored == (write.document, write.text)
    hits = await store.search("acme", query("中文 日本語", k=5))
    assert sorted(hit.chunk.text for hit in hits) == sorted(passages)
    assert all(write.text[hit.chunk.start : hit.chunk.end] == hit.chunk.text for hit in hits)
    assert await found(store, "tab", filters={"ключ 😀": " значение "})
    assert not await found(store, "tab", filters={"ключ 😀": "значение"})


async def test_a_document_of_many_chunks(store: VectorStore) -> None:
    passages = [f"passage number{n} of many" for n in range(450)]
    await store.put(document("big", passages))
    assert (await found(store, "number444", k=1, alpha=0))[0] == passages[444]
    await store.put(document("big", passages[:3]))
    assert sorted(await found(store, "passage of many", k=20)) == sorted(passages[:3])


async def test_vectors_of_the_wrong_shape_are_refused(store: VectorStore) -> None:
    write = document("d", ["one", "two"])
    with pytest.raises(ValueError, match="dimensions"):
        await store.put(replace(write, vectors=write.vectors[:1]))
    assert await store.get("acme", "d") is None


@pytest.mark.proves("I4")
async def test_writers_of_one_document_leave_one_whole_version(store: VectorStore) -> None:
    writes = [document("d", [f"writer{n} part{p}" for p in range(n + 1)]) for n in range(6)]
    await asyncio.gather(*(store.put(write) for write in writes))
    description = await store.get("acme", "d")
    assert description is not None
    (winner,) = [write for write in writes if write.document.version == description.version]
    assert sorted(await found(store, "writer part", k=20)) == sorted(chunk.text for chunk in winner.chunks)
    assert await store.text("acme", "d") == (winner.document, winner.text)


@pytest.mark.proves("I4")
async def test_a_search_sees_the_old_or_the_new_but_no_mixture(store: VectorStore) -> None:
    versions = [[f"shared v{n} part{p}" for p in range(4)] for n in range(8)]
    whole = {tuple(sorted(version)) for version in versions}
    await store.put(document("d", versions[0]))
    done = asyncio.Event()

    async def write() -> None:
        for version in versions[1:]:
            await store.put(document("d", version))
        done.set()

    async def read() -> int:
        reads = 0
        while not done.is_set():
            assert tuple(sorted(await found(store, "shared", k=20))) in whole
            reads += 1
            await asyncio.sleep(0)
        return reads

    results = await asyncio.gather(write(), read(), read())
    assert sum(count or 0 for count in results) > 0


@pytest.mark.proves("I4")
async def test_documents_outlive_the_process(open_store: OpenStore) -> None:
    write = document("d", ["still here"], metadata={"a": 1})
    async with open_store() as first:
        await first.put(write)
    async with open_store() as second:
        assert await second.get("acme", "d") == write.document
        assert await found(second, "still here") == ["still here"]


async def test_it_can_serve(store: VectorStore) -> None:
    await store.ping()


STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "put", "delete"]), st.sampled_from("abc"), st.integers(0, 3)),
    min_size=1, max_size=12,
)  # fmt: skip


@given(steps=STEPS)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_order_of_writes_ends_as_a_dictionary_would(
    open_store: OpenStore, steps: list[tuple[str, str, int]]
) -> None:
    async def run() -> None:
        tenant = "t" + uuid.uuid4().hex[:12]
        expected: dict[str, list[str]] = {}
        async with open_store() as store:
            for action, name, size in steps:
                if action == "put":
                    expected[name] = [f"all {name} {n}" for n in range(size + 1)]
                    await store.put(document(name, expected[name], tenant=tenant))
                else:
                    assert await store.delete(tenant, name) == (expected.pop(name, None) is not None)
            page = await store.list(tenant, cursor=None, limit=10)
            assert [each.id for each in page.documents] == sorted(expected)
            texts = await found(store, "all", tenant=tenant, k=20)
            assert sorted(texts) == sorted(text for passages in expected.values() for text in passages)

    asyncio.run(run())
