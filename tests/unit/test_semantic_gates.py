"""Each guard refuses its kind of difference and lets the same question through."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from ragkube_api.adapters.http_verifier import HttpVerifier
from ragkube_api.adapters.wordllama_model import load_model
from ragkube_api.domain import Chunk, Passage
from ragkube_api.services.semantic.gates import Gates, evidence_agrees

REFUSED = [
    ("characters", "Is the payments service public?", "Is the pаyments service public?"),  # noqa: RUF001
    ("characters", "Is café open?", "Is cafe open?"),
    ("characters", "Is port 80 open?", "Is port ８０ open?"),  # noqa: RUF001
    ("characters", "Is the key rotated?", "Is the k\u200bey rotated?"),
    ("language", "Wie lange wird das Protokoll gespeichert?", "Wie lange wird das Protokoll heute gespeichert?"),
    ("numbers", "What is new in version 1.28?", "What is new in version 1.29?"),
    ("numbers", "What needs 10Gi of memory?", "What needs 20Gi of memory?"),
    ("numbers", "Which two nodes failed?", "Which three nodes failed?"),
    ("numbers", "How much does the 1,000 dollar plan save?", "How much does the 10,000 dollar plan save?"),
    ("units", "Is a timeout of 30 seconds enough?", "Is a timeout of 30 minutes enough?"),
    ("units", "Is 5 MB too large?", "Is 5 MiB too large?"),
    ("negation", "Can pods be resized?", "Can pods not be resized?"),
    ("negation", "Why do non-root users fail?", "Why do root users fail?"),
    ("negation", "What runs with a proxy?", "What runs without a proxy?"),
    ("polarity", "How do I enable tracing?", "How do I disable tracing?"),
    ("polarity", "What runs before the upgrade?", "What runs after the upgrade?"),
    ("polarity", "What is the maximum size?", "What is the minimum size?"),
    ("polarity", "Who reads the log?", "Who writes the log?"),
    ("quantifiers", "Do all replicas restart?", "Does only one replica restart?"),
    ("modality", "Must the field be set?", "Can the field be set?"),
    ("tense", "Who will win the cup?", "Who did win the cup?"),
    ("persons", "What is his salary?", "What is her salary?"),
    ("question-type", "Why was the job restarted?", "When was the job restarted?"),
    ("names", "What does maxSurge do?", "What does maxUnavailable do?"),
    ("names", "How does EndpointSlice work?", "How does EndpointSliceMirroring work?"),
    ("names", "What does `--force` do?", "What does `--force-all` do?"),
    ("order", "How do I move from Redis to Valkey?", "How do I move from Valkey to Redis?"),
    ("order", "Which field replaced the annotation?", "Which field was replaced by the annotation?"),
    ("order", "Is science capable of explaining faith?", "Is faith capable of explaining science?"),
    ("content", "Why does authentication fail?", "Why does authorization fail?"),
    ("content", "How long are logs kept per tenant?", "How long are logs kept per replica?"),
    ("content", "How do I renew the certificate?", "How do I renew the certificate in staging?"),
]  # fmt: skip
SERVED = [
    ("How long are logs kept?", "For how long do you keep logs?"),
    ("How do I enable tracing?", "How can I turn on tracing?"),
    ("Why was the job restarted by the controller?", "What is the reason that the controller restarted the job?"),
    ("What is the maximum size of an upload?", "How large can an upload be at most?"),
    ("What does maxSurge do?", "What does `maxSurge` do?"),
    ("Can a pod be resized after creation?", "Can I resize a pod after its creation?"),
]  # fmt: skip


@pytest.fixture(scope="module")
def gates() -> Gates:
    return Gates(load_model())


@pytest.mark.proves("C7")
@pytest.mark.parametrize(("gate", "cached", "asked"), REFUSED)
def test_a_difference_is_refused_in_both_directions(gates: Gates, gate: str, cached: str, asked: str) -> None:
    assert gates.judge(asked, cached).refused == gate
    assert gates.judge(cached, asked).refused == gate


@pytest.mark.proves("C7")
@pytest.mark.parametrize(("cached", "asked"), SERVED)
def test_the_same_question_passes(gates: Gates, cached: str, asked: str) -> None:
    assert gates.judge(asked, cached).refused is None


def passage(document: str, ordinal: int = 0, version: str = "1") -> Passage:
    return Passage(document, version, document, Chunk(ordinal, 0, 4, "text"), 1.0)


@pytest.mark.proves("C7")
def test_evidence() -> None:
    def agrees(found: list[Passage], citations: set[tuple[str, str, int]], *, same: bool = False) -> bool:
        documents = [("a", "1"), ("b", "1")]
        return evidence_agrees(found, citations=citations, documents=documents, same_evidence=same)

    cites = {("a", "1", 0), ("b", "1", 2)}
    assert agrees([passage("a"), passage("c"), passage("b", 2)], cites)
    assert not agrees([passage("a"), passage("c")], cites), "a cited passage is not found"
    assert not agrees([passage("b", 2), passage("a")], cites), "another document is the best"
    assert not agrees([passage("a", 0, "2"), passage("b", 2)], cites), "another version"
    assert not agrees([passage("a")], set()), "an answer that cites nothing"
    assert agrees([], set(), same=True), "the very same passages"


Reply = Callable[[httpx2.Request], httpx2.Response]


def verifier(url: str, reply: Reply) -> HttpVerifier:
    return HttpVerifier(url, 0.9, httpx2.AsyncClient(transport=httpx2.MockTransport(reply)))


@pytest.mark.proves("C7")
@pytest.mark.parametrize(("score", "same"), [(0.95, True), (0.9, True), (0.89, False)])
async def test_a_cross_encoder_is_asked_in_the_shape_of_rerank(score: float, same: bool) -> None:
    sent: list[Any] = []

    def reply(request: httpx2.Request) -> httpx2.Response:
        sent.append((request.url.path, json.loads(request.content)))
        return httpx2.Response(200, json=[{"index": 0, "score": score}])

    assert await verifier("http://v:80", reply).same("new?", "old?") is same
    assert sent == [("/rerank", {"query": "new?", "texts": ["old?"], "raw_scores": False})]


async def test_or_of_predict() -> None:
    sent: list[Any] = []

    def reply(request: httpx2.Request) -> httpx2.Response:
        sent.append((request.url.path, json.loads(request.content)))
        return httpx2.Response(200, json=[[{"label": "LABEL_0", "score": 0.99}]])

    assert await verifier("http://v:80/predict", reply).same("new?", "old?")
    assert sent == [("/predict", {"inputs": [["new?", "old?"]], "raw_scores": False})]


def _refuse(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ConnectError("refused", request=request)


@pytest.mark.proves("C7")
@pytest.mark.parametrize(
    "reply",
    [
        _refuse,
        lambda _: httpx2.Response(500),
        lambda _: httpx2.Response(200, text="not json"),
        lambda _: httpx2.Response(200, json=[]),
        lambda _: httpx2.Response(200, json={"score": "high"}),
        lambda _: httpx2.Response(200, json=[{"index": 0, "score": 7.1}]),
    ],
)
async def test_a_verifier_that_does_not_answer_as_it_should_refuses(reply: Reply) -> None:
    assert not await verifier("http://v:80", reply).same("new?", "old?")
