"""A model server in trouble, through the real SDK: retries within the budget, clear refusals, nothing leaked."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from contract.test_answerer import passages
from llm_server.server import Behaviour, LLMServer, running
from ragkube_api.adapters.anthropic_answerer import AnthropicAnswerer, open_anthropic_answerer
from ragkube_api.domain import Generation
from ragkube_api.errors import LLMUnavailableError
from ragkube_api.settings import AnthropicLLM, ModelPrice
from support.processes import free_ports

QUESTION = "What does the colour of the sky come from?"


@pytest.fixture(scope="module")
def server() -> Iterator[LLMServer]:
    with running() as started:
        yield started


@pytest.fixture
def llm(server: LLMServer) -> LLMServer:
    server.script()
    server.api_key = None
    return server


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[AnthropicAnswerer]:
    async with open_anthropic_answerer(AnthropicLLM(model="small", base_url=url, **options)) as answerer:
        yield answerer


async def ask(answerer: AnthropicAnswerer, *, model: str | None = None, seconds: float = 30) -> Generation:
    return await answerer.answer(QUESTION, passages(), model=model, timeout_seconds=seconds)


@pytest.mark.proves("R1")
@pytest.mark.parametrize(
    "trouble",
    [
        Behaviour("fail", status=529),
        Behaviour("fail", status=500),
        Behaviour("fail", status=429, retry_after="0"),
        Behaviour("cut"),
        Behaviour("garbage"),
        Behaviour(overrides={"content": None}),
    ],
    ids=lambda each: f"{each.kind}-{each.status}",
)
async def test_passing_trouble_is_tried_again(llm: LLMServer, trouble: Behaviour) -> None:
    llm.script(trouble)
    async with opened(llm.url) as answerer:
        answer = await ask(answerer)
    assert "Rayleigh" in answer.text
    assert len(llm.requests) == 2


@pytest.mark.proves("R1")
async def test_the_server_says_when_to_come_back(llm: LLMServer) -> None:
    llm.script(Behaviour("fail", status=429, retry_after="1"))
    async with opened(llm.url) as answerer:
        await ask(answerer)
    assert llm.requests[1].moment - llm.requests[0].moment >= 1


@pytest.mark.proves("R1")
async def test_it_does_not_wait_beyond_its_budget(llm: LLMServer) -> None:
    llm.script(*[Behaviour("fail", status=429, retry_after="20")] * 5)
    async with opened(llm.url) as answerer:
        began = time.monotonic()
        with pytest.raises(LLMUnavailableError) as caught:
            await ask(answerer, seconds=5)
        assert time.monotonic() - began < 5
    assert caught.value.retry_after == 20
    assert len(llm.requests) == 1


@pytest.mark.proves("R1")
async def test_it_gives_up_after_its_retries(llm: LLMServer) -> None:
    llm.script(*[Behaviour("fail", status=529)] * 9)
    async with opened(llm.url, max_retries=2) as answerer:
        with pytest.raises(LLMUnavailableError, match="overloaded") as caught:
            await ask(answerer)
    assert len(llm.requests) == 3
    assert "internal" not in caught.value.message


@pytest.mark.proves("R1")
async def test_a_slow_server_costs_no_more_than_the_budget(llm: LLMServer) -> None:
    llm.script(*[Behaviour(delay=8)] * 3)
    async with opened(llm.url) as answerer:
        began = time.monotonic()
        with pytest.raises(LLMUnavailableError, match="in time"):
            await ask(answerer, seconds=0.5)
        assert time.monotonic() - began < 6


@pytest.mark.proves("R1")
@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "refused the request"),
        (401, "API key"),
        (403, "allow"),
        (404, "know the model"),
        (413, "too large"),
    ],
)
async def test_a_refusal_is_said_at_once(llm: LLMServer, status: int, message: str) -> None:
    llm.script(*[Behaviour("fail", status=status)] * 3)
    async with opened(llm.url) as answerer:
        with pytest.raises(LLMUnavailableError, match=message) as caught:
            await ask(answerer)
    assert len(llm.requests) == 1
    assert "internal" not in caught.value.message


async def test_nobody_there() -> None:
    (port,) = free_ports(1)
    async with opened(f"http://127.0.0.1:{port}", max_retries=1) as answerer:
        with pytest.raises(LLMUnavailableError):
            await ask(answerer)
        with pytest.raises(LLMUnavailableError):
            await answerer.ping()


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ({"stop_reason": "max_tokens"}, "Rayleigh"),
        ({"stop_reason": "refusal", "content": []}, "declined"),
        ({"stop_reason": "pause_turn"}, "Rayleigh"),
        ({"content": []}, "don't know"),
    ],
)
async def test_only_a_finished_answer_is_complete(
    llm: LLMServer, overrides: dict[str, Any], text: str
) -> None:
    llm.script(Behaviour(overrides=overrides))
    async with opened(llm.url) as answerer:
        answer = await ask(answerer)
        assert not answer.complete
        assert text in answer.text
        assert (await ask(answerer)).complete


async def test_usage_and_cost_follow_the_prices(llm: LLMServer) -> None:
    usage = {"input_tokens": 1000, "output_tokens": 200, "cache_read_input_tokens": 500}
    llm.script(*[Behaviour(overrides={"usage": usage})] * 2)
    prices = {"small": ModelPrice(input_per_mtok=2, output_per_mtok=10)}
    async with opened(llm.url, prices=prices, allowed_models=["large"]) as answerer:
        priced = await ask(answerer)
        unpriced = await ask(answerer, model="large")
    assert (priced.usage.input_tokens, priced.usage.output_tokens) == (1500, 200)
    assert priced.cost_usd == pytest.approx(0.005)
    assert (unpriced.model, unpriced.cost_usd) == ("large", 0)


@pytest.mark.proves("S5")
async def test_documents_are_sent_as_data_to_cite(llm: LLMServer) -> None:
    async with opened(llm.url, max_tokens=321) as answerer:
        await ask(answerer)
    body = llm.requests[0].body
    *documents, question = body["messages"][0]["content"]
    assert [block["type"] for block in documents] == ["document", "document"]
    assert all(block["citations"] == {"enabled": True} for block in documents)
    assert documents[0]["title"] == "Sky"
    assert f"sky.md@{passages()[0].version.split('v')[0]}" in documents[0]["context"]
    assert QUESTION in question["text"]
    assert "not instructions" in body["system"]
    assert (body["model"], body["max_tokens"]) == ("small", 321)
    assert not {"temperature", "top_p", "top_k"} & body.keys()


@pytest.mark.proves("S6")
async def test_the_key_is_read_again_when_it_changes(
    llm: LLMServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "from-the-environment")
    file = tmp_path / "key"
    file.write_text("first\n")
    llm.api_key = "second"
    async with opened(llm.url, api_key_file=file) as answerer:
        with pytest.raises(LLMUnavailableError, match="API key"):
            await ask(answerer)
        with pytest.raises(LLMUnavailableError, match="API key"):
            await answerer.ping()
        file.write_text("second\n")
        await answerer.ping()
        assert (await ask(answerer)).complete
        file.unlink()
        with pytest.raises(LLMUnavailableError, match="cannot be read"):
            await ask(answerer)
    assert [each.headers["authorization"] for each in llm.requests] == ["Bearer first", "Bearer second"]


async def test_a_local_server_needs_no_key(llm: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "from-the-environment")
    async with opened(llm.url) as answerer:
        assert (await ask(answerer)).complete
    assert "from-the-environment" not in str(llm.requests[0].headers)


@pytest.mark.parametrize(
    ("cited", "expected"),
    [
        (
            {"start_char_index": 0, "end_char_index": 4, "cited_text": "grey"},
            "grey",
        ),  # span and text disagree
        ({"start_char_index": 0, "end_char_index": 9, "cited_text": "not in there"}, None),
        ({"document_index": 7}, None),
        ({"start_char_index": -3, "end_char_index": 4, "cited_text": ""}, None),
    ],
)
async def test_a_citation_that_is_wrong_never_gets_out(
    llm: LLMServer, cited: dict[str, Any], expected: str | None
) -> None:
    citation = {
        "type": "char_location", "cited_text": "The sky", "document_index": 0, "document_title": None,
        "start_char_index": 0, "end_char_index": 7, **cited,
    }  # fmt: skip
    content = [{"type": "text", "text": "It is grey.", "citations": [citation]}]
    llm.script(Behaviour(overrides={"content": content}))
    async with opened(llm.url) as answerer:
        answer = await ask(answerer)
    assert [each.quote for each in answer.citations] == ([expected] if expected else [])
