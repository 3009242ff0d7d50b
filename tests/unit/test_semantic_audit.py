"""How the answer that was served is compared with the one that the question has by itself."""

from __future__ import annotations

from typing import Literal

import pytest

from ragkube_api.adapters.wordllama_model import load_model
from ragkube_api.domain import Citation, Generation, Usage
from ragkube_api.services import answer_codec
from ragkube_api.services.answer_codec import Entry
from ragkube_api.services.semantic import audit
from ragkube_api.text.alignment import TokenModel

pytestmark = pytest.mark.proves("C7")
SERVED = "The tickets service keeps its records for 26 days before they are removed."


@pytest.fixture(scope="module")
def model() -> TokenModel:
    return load_model()


def answer(
    text: str,
    *,
    by: Literal["llm", "extractive"] = "llm",
    cites: tuple[tuple[str, str, int, int], ...] = (("tickets", "1", 0, 0),),
) -> Entry:
    """Citations as (document, version, chunk, start)."""
    citations = [
        Citation(name, version, chunk, start, start + 9, "x" * 9, 0.5)
        for name, version, chunk, start in cites
    ]
    generation = Generation(text, citations, by, "m", Usage(), 0.0, complete=True)
    return answer_codec.opened(
        answer_codec.encode(
            generation,
            digest="0" * 32,
            evidence=bytes(16),
            documents=[("tickets", "1")],
            ttl_class="default",
            seconds=1,
        )
    )


@pytest.mark.parametrize(
    "fresh",
    [
        SERVED,
        f"According to the documents: {SERVED}",
        "Before they are removed, the tickets service keeps its records for 26 days.",
        "The `tickets` service keeps its records for 26 days before they are removed",
        "According to the documents, its records are kept by the tickets service for 26 days before they are removed.",
    ],
)
def test_a_model_that_says_the_same_is_right(model: TokenModel, fresh: str) -> None:
    assert audit.wrong(answer(SERVED), answer(fresh), model) is False
    assert audit.wrong(answer(fresh), answer(SERVED), model) is False


@pytest.mark.parametrize(
    "fresh",
    [
        SERVED.replace("26", "27"),
        SERVED.replace("days", "weeks"),
        SERVED.replace("keeps", "does not keep"),
        SERVED.replace("tickets", "`tickets-v2`"),
        f"{SERVED} Only a manager of finance may shorten that.",
        "Nobody can tell.",
    ],
)
def test_a_model_that_says_something_else_is_wrong(model: TokenModel, fresh: str) -> None:
    assert audit.wrong(answer(SERVED), answer(fresh), model) is True
    assert audit.wrong(answer(fresh), answer(SERVED), model) is True


@pytest.mark.parametrize(
    "cites", [(), (("tickets", "1", 3, 0),), (("tickets", "2", 0, 0),), (("other", "1", 0, 0),)]
)
def test_a_model_that_cites_other_passages_is_wrong(
    model: TokenModel, cites: tuple[tuple[str, str, int, int], ...]
) -> None:
    assert audit.wrong(answer(SERVED), answer(f"It says: {SERVED}", cites=cites), model) is True


def test_quoted_answers_are_right_when_they_quote_a_sentence_in_common(model: TokenModel) -> None:
    one, two, three = ("a", "1", 0, 0), ("a", "1", 0, 50), ("b", "1", 0, 0)
    served = answer("One. Two.", by="extractive", cites=(one, two))
    assert audit.wrong(served, answer("Two. Three.", by="extractive", cites=(two, three)), model) is False
    assert audit.wrong(served, answer("Three.", by="extractive", cites=(three,)), model) is True


def test_a_quoted_answer_says_nothing_about_a_model_s(model: TokenModel) -> None:
    assert audit.wrong(answer(SERVED), answer("Other.", by="extractive"), model) is None
