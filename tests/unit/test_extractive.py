"""Answers without a model are sentences of the documents, word for word, or that it does not know."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragkube_api.adapters.extractive_answerer import UNKNOWN, ExtractiveAnswerer
from ragkube_api.domain import Generation, Passage
from ragkube_api.text import chunking
from ragkube_api.text.sentences import sentences

GUIDE = """# Pump guide

- [Limits](#limits)

## Limits

The pump runs at no more than 40 bar.
A valve opens at
45 bar and lets the water out.

## Paint

* The housing is painted blue, e.g. with P. Miller's RAL 5010.
* Paint dries within two hours.

| part | weight |
| --- | --- |
| rotor | 12 kg |
"""


def passages(text: str = GUIDE, *, size: int = 200, title: str = "Pump guide") -> list[Passage]:
    chunks = chunking.split(text, content_type="text/markdown", max_characters=size)
    return [Passage("guide.md", "7", title, chunk, 1 - i / 10) for i, chunk in enumerate(chunks)]


async def ask(question: str, found: list[Passage]) -> Generation:
    return await ExtractiveAnswerer().answer(question, found, model=None, timeout_seconds=1)


@pytest.mark.proves("Q11")
@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        ("What is the highest pressure of the pump?", "The pump runs at no more than 40 bar."),
        ("At how many bar does the valve open?", "A valve opens at\n45 bar and lets the water out."),
        (
            "Which colour is the housing painted?",
            "The housing is painted blue, e.g. with P. Miller's RAL 5010.",
        ),
        ("How heavy is the rotor?", "rotor | 12 kg |"),
    ],
)
async def test_the_best_sentence_is_quoted_with_its_span(question: str, sentence: str) -> None:
    generation = await ask(question, passages())
    assert sentence in [citation.quote for citation in generation.citations]
    assert " ".join(sentence.split()) in generation.text
    assert 1 <= len(generation.citations) <= 3
    for citation in generation.citations:
        assert GUIDE[citation.start : citation.end] == citation.quote
        assert (citation.document, citation.version) == ("guide.md", "7")
        assert 0 <= citation.score <= 1
    assert (generation.answerer, generation.model, generation.cost_usd, generation.complete) == (
        "extractive", None, 0.0, True,
    )  # fmt: skip


@pytest.mark.proves("Q11")
@pytest.mark.parametrize("question", ["Who won the football world cup in 1990?", "Wie backt man Brot?", "?!"])
async def test_it_does_not_know_what_the_documents_do_not_say(question: str) -> None:
    generation = await ask(question, passages())
    assert (generation.text, list(generation.citations)) == (UNKNOWN, [])


@pytest.mark.proves("Q11")
async def test_without_passages_it_does_not_know() -> None:
    generation = await ask("What is the highest pressure?", [])
    assert (generation.text, list(generation.citations)) == (UNKNOWN, [])


async def test_the_same_sentence_is_not_quoted_twice() -> None:
    twice = [*passages(), *passages()]
    quotes = [
        citation.quote for citation in (await ask("At how many bar does the valve open?", twice)).citations
    ]
    assert len(quotes) == len(set(quotes))


def test_sentences_of_prose_lists_tables_and_code() -> None:
    text = (
        "# Head\n\nOne e.g. two. Three?  Four\ngoes on!\n\n- item one\n- [link](x)\n1. item two. More.\n\n"
        "| a | b |\n|---|---|\n\n```\ncode = 1\nmore\n```\n<!-- note -->\n全角。次。\n"
    )
    assert [sentence.text for sentence in sentences(text)] == [
        "One e.g. two.", "Three?", "Four\ngoes on!", "item one", "item two.", "More.", "a | b |", "code = 1", "more",
        "全角。", "次。",
    ]  # fmt: skip


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(["a b. ", "C! ", "\n", "\n\n", "- ", "# h\n", "```\n", "| x |\n", "é😀。", "1. "]),
        max_size=40,
    )
)
def test_sentences_are_exact_cuts(pieces: list[str]) -> None:
    text = "".join(pieces)
    end = 0
    for sentence in sentences(text):
        assert text[sentence.start : sentence.end] == sentence.text
        assert sentence.start >= end
        end = sentence.end


async def test_a_sentence_that_only_asks_the_question_again_is_no_answer() -> None:
    question = "How many bar does the pump of the garden stand?"
    text = f"# FAQ\n\nOften asked: {question}\n\nThe pump of the garden stands 40 bar.\n"
    generation = await ask(question, passages(text))

    assert [citation.quote for citation in generation.citations] == ["The pump of the garden stands 40 bar."]
