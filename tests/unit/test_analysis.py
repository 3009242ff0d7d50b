"""Terms are the same for a document and for a question about it, whatever is typed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragkube_api.text import fusion
from ragkube_api.text.analysis import query_terms, terms


@pytest.mark.parametrize(
    ("asked", "written"),
    [
        ("running pumps", "The pump runs"),
        ("disruption budget", "PodDisruptionBudget"),
        ("maxSurge", "max_surge"),
        ("cafe", "Café's"),
        ("日本語", "これは日本語のテストです"),
        ("GRÖSSE", "größe"),
    ],
)
def test_a_question_finds_other_forms_of_the_word(asked: str, written: str) -> None:
    assert set(query_terms(asked)) <= set(terms(written))


def test_words_without_meaning_are_dropped_unless_alone() -> None:
    assert query_terms("What is the pump of a car?") == ["pump", "car"]
    assert query_terms("the who") == ["the", "who"]
    assert query_terms("?!") == []


@given(st.text(max_size=300))
def test_terms_are_words_only(text: str) -> None:
    assert all(term and term.isalnum() for term in terms(text))
    assert len(query_terms(text)) <= 64


def test_fusion_weighs_normalised_scores() -> None:
    keywords, vectors = {"a": 10.0, "b": 5.0, "c": 0.0}, {"b": 0.9, "c": 0.8, "d": 0.7}
    assert fusion.fuse(keywords, vectors, alpha=0.0, k=1) == [("a", 1.0)]
    assert fusion.fuse(keywords, vectors, alpha=1.0, k=1) == [("b", 1.0)]
    assert fusion.fuse(keywords, vectors, alpha=0.5, k=2) == [("b", 0.75), ("a", 0.5)]
    assert fusion.fuse({}, {}, alpha=0.5, k=5) == []
    assert fusion.fuse({"a": 3.0}, {}, alpha=0.5, k=5) == [("a", 0.5)]
