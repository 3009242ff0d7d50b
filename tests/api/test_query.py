"""Questions over HTTP: the answer, its citations, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ragkube_api.schemas import QueryResponse
from support.api import RunningApp, running_app, settings_in

MOON = "The moon is 384,400 kilometres away from the earth.\n\nIt has no air."
REDIS = "Redis keeps cached answers in memory. A cluster has three shards."


@pytest.mark.proves("Q1")
async def test_an_answer_cites_the_exact_span_of_the_stored_text(app: RunningApp) -> None:
    await app.put("space/moon.txt", MOON)
    await app.put("redis.txt", REDIS)

    answer = await app.ask("How far away is the moon?", k=3, alpha=0.4)

    QueryResponse.model_validate(answer)
    assert "384,400" in answer["answer"]
    first = answer["citations"][0]
    assert first["document"] == "space/moon.txt"
    described = (await app.client.get("/v1/documents/space/moon.txt")).json()
    assert first["version"] == described["version"]
    text = (await app.client.get("/v1/documents/space/moon.txt/content")).text
    assert all(
        text[c["start"] : c["end"]] == c["quote"]
        for c in answer["citations"]
        if c["document"] == described["id"]
    )
    assert answer["latency_ms"] > 0
    assert answer["degraded"] == []


@pytest.mark.proves("Q11")
async def test_without_a_model_the_answer_says_that_it_is_extractive(app: RunningApp) -> None:
    await app.put("moon.txt", MOON)

    answer = await app.ask("How far away is the moon?")

    assert (answer["answerer"], answer["model"], answer["cost_usd"]) == ("extractive", None, 0.0)
    assert answer["usage"] == {"input_tokens": 0, "output_tokens": 0}


@pytest.mark.proves("Q11")
async def test_without_documents_it_says_so_and_cites_nothing(app: RunningApp) -> None:
    answer = await app.ask("How far away is the moon?")

    assert answer["answer"]
    assert answer["citations"] == []


@pytest.mark.proves("Q1")
async def test_filters_keep_documents_by_their_metadata(app: RunningApp) -> None:
    await app.put("a.txt", "The moon is made of cheese.", x_ragkube_meta_kind="tale")
    await app.put("b.txt", "The moon is made of rock.", x_ragkube_meta_kind="science")

    answer = await app.ask("What is the moon made of?", filters={"kind": "science"})
    either = await app.ask("What is the moon made of?", filters={"kind": ["science", "tale"]})

    assert {c["document"] for c in answer["citations"]} == {"b.txt"}
    assert {c["document"] for c in either["citations"]} == {"a.txt", "b.txt"}


@pytest.mark.proves("Q1")
@pytest.mark.parametrize(
    ("value", "found"),
    [(2024, True), ([2023, 2024], True), ("2024", False), (2023, False), (True, False), (2024.0, True)],
)
async def test_a_filter_matches_a_value_of_its_type(app: RunningApp, value: Any, found: bool) -> None:
    await app.put("a.txt", "The moon is made of rock.", x_ragkube_metadata='{"year": 2024}')

    answer = await app.ask("What is the moon made of?", filters={"year": value})

    assert bool(answer["citations"]) is found


async def test_tenants_see_only_their_own_documents(app: RunningApp) -> None:
    await app.put("moon.txt", MOON, x_ragkube_tenant="blue")

    theirs = await app.ask("How far away is the moon?", headers={"X-Ragkube-Tenant": "blue"})
    ours = await app.ask("How far away is the moon?")

    assert theirs["citations"]
    assert ours["citations"] == []


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"question": "ab"}, "question"),
        ({"question": "  a \n b  "}, ""),
        ({"question": "a" * 1001}, "question"),
        ({"question": "        "}, "question"),
        ({"question": 7}, "question"),
        ({}, "question"),
        ({"question": "what?", "k": 0}, "k"),
        ({"question": "what?", "k": 21}, "k"),
        ({"question": "what?", "k": "5"}, "k"),
        ({"question": "what?", "k": 2.5}, "k"),
        ({"question": "what?", "k": True}, "k"),
        ({"question": "what?", "alpha": 1.01}, "alpha"),
        ({"question": "what?", "alpha": -0.1}, "alpha"),
        ({"question": "what?", "alpha": "half"}, "alpha"),
        ({"question": "what?", "filters": []}, "filters"),
        ({"question": "what?", "filters": {"a": None}}, "filters.a"),
        ({"question": "what?", "filters": {"a": {"b": 1}}}, "filters.a"),
        ({"question": "what?", "filters": {"a": []}}, "filters.a"),
        ({"question": "what?", "model": "claude-unheard-of"}, "model"),
        ({"question": "what?", "tags": "a"}, "tags"),
        ({"question": "what?", "tags": list("abcdefghi")}, "tags"),
        ({"question": "what?", "tags": ["release-1.2", "a/b:c_d"]}, ""),
        ({"question": "what?", "tags": ["x", "two words"]}, "tags.1"),
        ({"question": "what?", "tags": ["class:mine"]}, "tags.0"),
        ({"question": "what?", "stream": True}, "stream"),
        ({"question": "what?", "Question": "twice"}, "Question"),
    ],
)  # fmt: skip
@pytest.mark.proves("Q1")
async def test_a_wrong_field_is_refused_by_its_name(
    app: RunningApp, fields: dict[str, Any], wrong: str
) -> None:
    response = await app.client.post("/v1/query", json=fields)

    if not wrong:
        assert response.status_code == 200
        return
    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, "invalid-request")
    assert response.headers["content-type"] == "application/problem+json"
    assert [error["field"] for error in problem["errors"]] == [wrong]
    assert wrong in problem["detail"]


@pytest.mark.parametrize(
    "body", [b"", b"  ", b"{", b"question=what", b'{"question": "a\xff b c"}', b"\xff\xfe"]
)
async def test_a_body_that_is_no_json_is_malformed(app: RunningApp, body: bytes) -> None:
    response = await app.client.post("/v1/query", content=body)

    assert (response.status_code, response.json()["code"]) == (400, "malformed-body")


@pytest.mark.parametrize("body", [b"null", b"[]", b'"what is it?"', b"3"])
async def test_json_that_is_no_object_is_refused(app: RunningApp, body: bytes) -> None:
    response = await app.client.post("/v1/query", content=body)

    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "body")


async def test_a_body_far_too_large_is_refused(app: RunningApp) -> None:
    response = await app.client.post("/v1/query", json={"question": "x" * 100_000})

    assert (response.status_code, response.json()["code"]) == (413, "body-too-large")


async def test_the_deployment_says_what_k_and_alpha_are_when_the_question_does_not(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, retrieval={"k": 1, "alpha": 0.0})
    async with running_app(settings) as app:
        for name in ("a", "b", "c"):
            await app.put(f"{name}.txt", f"The moon is far, says {name}.")
        default = await app.ask("How far is the moon?")
        more = await app.ask("How far is the moon?", k=3)

    assert len({c["document"] for c in default["citations"]}) == 1
    assert len({c["document"] for c in more["citations"]}) > 1


async def test_the_openapi_document_describes_the_request(app: RunningApp) -> None:
    document = (await app.client.get("/openapi.json")).json()

    body = document["paths"]["/v1/query"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["additionalProperties"] is False
    assert set(body["properties"]) == {"question", "k", "alpha", "filters", "model", "tags"}
    assert body["required"] == ["question"]
    json.dumps(document)
    assert (await app.client.get("/docs")).status_code == 200
