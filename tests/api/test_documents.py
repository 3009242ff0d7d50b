"""One document at a time: put, read, list, replace, delete; names, metadata and limits."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragkube_api.services.document_ids import problem_with_id
from support.api import RunningApp, running_app, settings_in

TEXT = "Redis keeps answers.\n\nThe naïve 🦊 runs."


@pytest.mark.proves("I1")
async def test_put_get_list_replace_delete(app: RunningApp) -> None:
    created = await app.put("guides/redis.txt", TEXT)
    described = await app.client.get("/v1/documents/guides/redis.txt")
    content = await app.client.get("/v1/documents/guides/redis.txt/content")
    listed = await app.client.get("/v1/documents")
    replaced = await app.put("guides/redis.txt", "Other text.")
    deleted = await app.client.delete("/v1/documents/guides/redis.txt")
    gone = await app.client.get("/v1/documents/guides/redis.txt")

    body = created.json()
    assert created.status_code == 201
    assert created.headers["location"] == "/v1/documents/guides/redis.txt"
    assert body["sha256"] == hashlib.sha256(TEXT.encode()).hexdigest()
    assert (body["id"], body["chunks"], body["unchanged"], body["source"]) == (
        "guides/redis.txt",
        1,
        False,
        None,
    )
    assert described.json() == {key: value for key, value in body.items() if key != "unchanged"}
    assert content.text == TEXT
    assert [document["id"] for document in listed.json()["documents"]] == ["guides/redis.txt"]
    assert replaced.status_code == 200
    assert replaced.json()["version"] != body["version"]
    assert replaced.json()["created"] == body["created"]
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert (gone.status_code, gone.json()["code"]) == (404, "not-found")


@pytest.mark.proves("I1")
@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("txt.txt", "text/plain"),
        ("md.md", "text/markdown"),
        ("html.html", "text/html"),
        ("json.json", "application/json"),
        ("csv.csv", "text/csv"),
        ("pdf.pdf", "application/pdf"),
        ("docx.docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ],
)
async def test_every_format_is_read_by_the_suffix_of_its_name(
    app: RunningApp, test_data: Path, name: str, content_type: str
) -> None:
    body = (test_data / "formats" / name).read_bytes()

    response = await app.client.put(f"/v1/documents/{name}", content=body)

    assert response.status_code == 201, response.text
    assert response.json()["content_type"] == content_type
    text = (await app.client.get(f"/v1/documents/{name}/content")).text
    assert len(text) == response.json()["characters"] > 0


@pytest.mark.proves("I4")
async def test_the_same_again_changes_nothing_whatever_makes_it_the_same(app: RunningApp) -> None:
    first = (await app.put("a.txt", TEXT, x_ragkube_meta_team="blue")).json()
    same = await app.put("a.txt", TEXT, x_ragkube_meta_team="blue")
    other_charset = await app.put(
        "a.txt", TEXT, content_type="text/plain; charset=UTF-8", x_ragkube_meta_team="blue"
    )
    other_metadata = await app.put("a.txt", TEXT, x_ragkube_meta_team="red")

    assert (same.status_code, same.json()["unchanged"]) == (200, True)
    assert same.json()["version"] == first["version"]
    assert other_charset.json()["unchanged"] is True
    assert other_metadata.json()["unchanged"] is False
    assert other_metadata.json()["version"] != first["version"]
    assert await app.metric("rag_documents_indexed_total", outcome="unchanged") == 2


@pytest.mark.proves("I4")
async def test_a_changed_document_is_found_by_its_new_text_only(app: RunningApp) -> None:
    await app.put("a.txt", "The capital is Bern. " * 200)
    await app.put("a.txt", "The harbour is Basel.")

    answer = await app.ask("What is the capital Bern?")

    assert {c["quote"] for c in answer["citations"]} <= {"The harbour is Basel."}


async def test_the_list_goes_page_by_page(app: RunningApp) -> None:
    names = sorted(f"d/{n:02}.txt" for n in range(7))
    for name in names:
        await app.put(name, f"Text of {name}.")

    seen, cursor, pages = [], None, 0
    while True:
        query = {"limit": 3, **({"cursor": cursor} if cursor else {})}
        page = (await app.client.get("/v1/documents", params=query)).json()
        seen += [document["id"] for document in page["documents"]]
        pages, cursor = pages + 1, page["next_cursor"]
        if cursor is None:
            break

    assert (seen, pages) == (names, 3)


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x"])
async def test_a_wrong_page_size_is_refused(app: RunningApp, query: str) -> None:
    problem = (await app.client.get(f"/v1/documents?{query}")).json()

    assert (problem["status"], problem["errors"][0]["field"]) == (422, "limit")


@pytest.mark.parametrize(
    "name",
    ["a", "content", "a/content.txt", "ümlaut/日本 語.txt", "a b+c%d?e#f&g.txt", "x" * 508 + ".txt", "meta.x=1.txt", "a:b@c;d,e"],
)  # fmt: skip
async def test_names_with_anything_that_can_be_written_in_a_path(app: RunningApp, name: str) -> None:
    path = f"/v1/documents/{quote(name, safe='/')}"
    created = await app.client.put(path, content=b"Some text.", headers={"content-type": "text/plain"})

    assert created.status_code == 201, created.text
    assert created.headers["location"] == path
    assert (await app.client.get(path)).json()["id"] == name
    assert (await app.client.get(f"{path}/content")).text == "Some text."
    assert (await app.client.delete(path)).status_code == 204


@pytest.mark.parametrize(
    "path", ["", "x" * 513, "a%00b", "a%1Fb", "a//b", "a/", "%2Fa", "a/%2E%2E/b", "a/content", "a%C2%85b"]
)
async def test_names_that_cannot_be_are_refused(app: RunningApp, path: str) -> None:
    response = await app.client.put(
        f"/v1/documents/{path}", content=b"Some text.", headers={"content-type": "text/plain"}
    )

    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "id"), response.text


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(min_size=1, max_size=60).filter(lambda name: problem_with_id(name) is None))
async def test_a_document_is_found_under_the_name_it_was_put(app: RunningApp, name: str) -> None:
    path = f"/v1/documents/{quote(name, safe='')}"
    put = await app.client.put(path, content=b"Some text.", headers={"content-type": "text/plain"})

    assert put.status_code in {200, 201}, put.text
    assert (await app.client.get(path)).json()["id"] == name


async def test_metadata_by_header_by_query_and_typed(app: RunningApp) -> None:
    response = await app.client.put(
        "/v1/documents/a.txt?meta.Team=bl%C3%BCe&meta.shared=query",
        content=b"Some text.",
        headers={
            b"x-ragkube-meta-owner": "zoë".encode(),
            b"x-ragkube-meta-shared": b"header",
            b"x-ragkube-metadata": b'{"year": 2024, "draft": false, "weight": 0.5}',
        },
    )

    assert response.json()["metadata"] == {
        "Team": "blüe", "shared": "query", "owner": "zoë", "year": 2024, "draft": False, "weight": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("query", "headers", "field"),
    [
        ("team=blue", {}, "team"),
        ("meta.=x", {}, "meta."),
        ("meta.a%20b=x", {}, "meta.a b"),
        (f"meta.a={'x' * 1025}", {}, "meta.a"),
        ("", {"x-ragkube-meta-1x": "x"}, "x-ragkube-meta-1x"),
        ("", {"x-ragkube-metadata": "{"}, "X-Ragkube-Metadata"),
        ("", {"x-ragkube-metadata": "[1]"}, "X-Ragkube-Metadata"),
        ("", {"x-ragkube-metadata": '{"a": null}'}, "X-Ragkube-Metadata.a"),
        ("&".join(f"meta.k{n}=x" for n in range(33)), {}, "metadata"),
    ],
)
async def test_wrong_metadata_is_refused_by_its_name(
    app: RunningApp, query: str, headers: dict[str, str], field: str
) -> None:
    response = await app.client.put(f"/v1/documents/a.txt?{query}", content=b"Text.", headers=headers)

    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, field)


@pytest.mark.parametrize("tenant", ["", "Blue", "a_b", "-a", "a-", "a" * 64, "a/b"])
async def test_a_tenant_that_cannot_be_is_refused(app: RunningApp, tenant: str) -> None:
    response = await app.client.get("/v1/documents", headers={"X-Ragkube-Tenant": tenant})

    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "X-Ragkube-Tenant")


@pytest.mark.proves("I7")
@pytest.mark.parametrize(
    ("name", "content_type", "body", "status", "code"),
    [
        ("a.txt", "text/plain", b"", 422, "document-empty"),
        ("a.txt", "text/plain", b" \n\t ", 422, "document-empty"),
        ("a.pdf", "application/pdf", b"%PDF-1.7 cut off", 422, "document-broken"),
        ("a.pdf", "application/pdf", b"Just words.", 422, "document-mislabelled"),
        ("a.json", "application/json", b"{", 422, "document-broken"),
        ("a.png", "image/png", b"\x89PNG\r\n", 415, "document-type-unsupported"),
        ("a", "application/octet-stream", b"words", 415, "document-type-unsupported"),
        ("a.txt", "text/plain", b"x" * 2001, 413, "document-too-large"),
    ],
)
async def test_a_document_that_cannot_be_indexed_gets_its_own_error(
    tmp_path: Path, name: str, content_type: str, body: bytes, status: int, code: str
) -> None:
    async with running_app(settings_in(tmp_path, documents={"max_bytes": 2000})) as app:
        response = await app.put(name, body, content_type=content_type)

        assert (response.status_code, response.json()["code"]) == (status, code), response.text
        assert response.json()["detail"]
        assert (await app.client.get("/v1/documents")).json()["documents"] == []


@pytest.mark.proves("I7")
async def test_a_bad_replacement_leaves_the_document_as_it_was(app: RunningApp) -> None:
    await app.put("a.txt", TEXT)
    response = await app.put("a.txt", b"")

    assert response.status_code == 422
    assert (await app.client.get("/v1/documents/a.txt/content")).text == TEXT


async def test_a_compressed_body_is_refused(app: RunningApp) -> None:
    response = await app.put("a.txt", b"\x1f\x8b", content_encoding="gzip")

    assert response.status_code == 415


async def test_a_document_that_is_not_there(app: RunningApp) -> None:
    for method, path in [("GET", "nope"), ("GET", "nope/content"), ("DELETE", "nope")]:
        response = await app.client.request(method, f"/v1/documents/{path}")
        assert (response.status_code, response.json()["code"]) == (404, "not-found")
