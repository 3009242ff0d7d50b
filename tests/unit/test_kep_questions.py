"""The questions on Kubernetes enhancement proposals keep the rules of their README."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
QUESTIONS = REPOSITORY / "tests" / "data" / "keps" / "questions.jsonl"
FIELDS = {"id", "document", "quote", "question", "paraphrases", "answer", "split"}

Question = dict[str, Any]


def load() -> list[Question]:
    return [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]


def wordings(question: Question) -> list[str]:
    return [question["question"], *question["paraphrases"]]


def split_of(identifier: str) -> str:
    digest = int(hashlib.sha256(identifier.encode()).hexdigest(), 16)
    return "tune" if digest % 5 < 2 else "report"


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    return load()


@pytest.fixture(scope="module")
def corpus() -> dict[str, str]:
    """The text of every proposal by id; absent data is a failure on CI where it was meant to be there."""
    shared = REPOSITORY.parent / "shared"
    directory = Path(os.environ.get("RAGKUBE_TEST_DATA") or shared / "data")
    path = directory / "keps" / "corpus.jsonl.gz"
    if not path.is_file():
        reason = f"the data is absent: no {path}, set RAGKUBE_TEST_DATA"
        if os.environ.get("CI") == "true" and shared.exists():
            pytest.fail(reason)
        pytest.skip(reason)
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return {proposal["id"]: proposal["text"] for proposal in map(json.loads, lines)}


def test_there_are_enough_questions_on_enough_documents(questions: list[Question]) -> None:
    assert len(questions) >= 70
    assert sum(len(question["paraphrases"]) for question in questions) >= 140
    assert len({question["document"] for question in questions}) >= 60


def test_every_line_has_the_fields(questions: list[Question]) -> None:
    for question in questions:
        assert set(question) == FIELDS, question["id"]
        assert len(question["paraphrases"]) >= 2, question["id"]
        assert all(text.strip() == text for text in wordings(question)), question["id"]
        assert question["answer"].strip(), question["id"]


def test_ids_are_unique(questions: list[Question]) -> None:
    identifiers = [question["id"] for question in questions]
    assert len(identifiers) == len(set(identifiers))


def test_no_wording_occurs_twice(questions: list[Question]) -> None:
    texts = [" ".join(text.lower().split()) for question in questions for text in wordings(question)]
    assert len(texts) == len(set(texts))


def test_lengths(questions: list[Question]) -> None:
    for question in questions:
        assert 40 <= len(question["quote"]) <= 300, question["id"]
        assert all(3 <= len(text) <= 1000 for text in wordings(question)), question["id"]


def test_the_split_follows_from_the_id(questions: list[Question]) -> None:
    assert all(question["split"] == split_of(question["id"]) for question in questions)
    share = sum(question["split"] == "tune" for question in questions) / len(questions)
    assert 0.3 <= share <= 0.5


def test_every_quote_occurs_once_in_its_document_and_in_no_other(
    questions: list[Question], corpus: dict[str, str]
) -> None:
    wrong = {}
    for question in questions:
        found = {name: count for name, text in corpus.items() if (count := text.count(question["quote"]))}
        if found != {question["document"]: 1}:
            wrong[question["id"]] = found
    assert not wrong
