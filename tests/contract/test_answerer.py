"""What everyone who writes answers promises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from contract.documents import document
from llm_server.server import LLMServer, running
from ragkube_api.domain import Passage
from ragkube_api.ports import Answerer
from ragkube_api.settings import AnthropicLLM, ModelPrice

SKY = "The sky above the port was grey. Its colour comes from Rayleigh scattering 😀 of light. Nothing else."
SEA = "Whales live in the sea. They breathe air."


def passages() -> list[Passage]:
    """Two documents; the first passage does not begin where its document begins."""
    sky, sea = document("sky.md", ["Preface.", SKY], title="Sky"), document("sea.md", [SEA], title="Sea")
    return [
        Passage("sky.md", sky.document.version, "Sky", sky.chunks[1], 0.9),
        Passage("sea.md", sea.document.version, "Sea", sea.chunks[0], 0.4),
    ]


STORED = {"sky.md": f"Preface.\n\n{SKY}", "sea.md": SEA}


@pytest.fixture(scope="session")
def llm() -> Iterator[LLMServer]:
    with running() as server:
        yield server


@pytest.fixture(params=["extractive", "anthropic"])
async def answerer(request: pytest.FixtureRequest, llm: LLMServer) -> AsyncIterator[Answerer]:
    if request.param == "extractive":
        from ragkube_api.adapters.extractive_answerer import ExtractiveAnswerer

        yield ExtractiveAnswerer()
        return
    from ragkube_api.adapters.anthropic_answerer import open_anthropic_answerer

    llm.script()
    settings = AnthropicLLM(
        model="small",
        allowed_models=["large"],
        base_url=llm.url,
        prices={"small": ModelPrice(input_per_mtok=1)},
    )
    async with open_anthropic_answerer(settings) as opened:
        yield opened


@pytest.mark.proves("Q1", "Q11")
async def test_every_citation_is_an_exact_span_of_a_retrieved_document(answerer: Answerer) -> None:
    given = passages()
    answer = await answerer.answer(
        "What does the colour of the sky come from?", given, model=None, timeout_seconds=30
    )
    assert "Rayleigh" in answer.text
    assert answer.complete
    assert answer.citations
    versions = {passage.document: passage.version for passage in given}
    for citation in answer.citations:
        assert STORED[citation.document][citation.start : citation.end] == citation.quote
        assert citation.version == versions[citation.document]
        assert 0 <= citation.score <= 1
    assert any("Rayleigh" in citation.quote for citation in answer.citations)
    assert answer.citations[0].chunk == 1


@pytest.mark.proves("Q11")
async def test_without_passages_it_does_not_know(answerer: Answerer) -> None:
    answer = await answerer.answer("What is the sky?", [], model=None, timeout_seconds=30)
    assert "don't know" in answer.text
    assert (list(answer.citations), answer.cost_usd, answer.usage.output_tokens) == ([], 0, 0)


async def test_what_the_passages_do_not_say_it_does_not_know(answerer: Answerer) -> None:
    question = "Which quarterback won Super Bowl XXIV?"
    answer = await answerer.answer(question, passages(), model=None, timeout_seconds=30)
    assert "don't know" in answer.text
    assert list(answer.citations) == []


async def test_it_says_who_answers(answerer: Answerer) -> None:
    answer = await answerer.answer("Where do whales live?", passages(), model=None, timeout_seconds=30)
    assert answer.model == answerer.default_model
    assert answer.answerer == ("extractive" if answer.model is None else "llm")
    assert answerer.default_model is None or answerer.default_model in answerer.allowed_models
    assert answerer.revision


async def test_any_text_is_quoted_exactly(answerer: Answerer) -> None:
    text = "عنوان مهم.\nNaïve café 👩‍👩‍👧 whales\u2028swim e\u0301 far. ﬁn"
    odd = document("odd", ["x", text], title="")
    given = [Passage("odd", "v1", "", odd.chunks[1], 1.0)]
    answer = await answerer.answer("How far do naïve whales swim?", given, model=None, timeout_seconds=30)
    assert all(odd.text[each.start : each.end] == each.quote for each in answer.citations)


async def test_it_can_serve(answerer: Answerer) -> None:
    await answerer.ping()
