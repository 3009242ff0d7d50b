"""Cached answers as bytes: one way to render them, and nothing damaged or foreign is ever opened."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragkube_api.domain import Chunk, Citation, Generation, Key, Passage, Usage
from ragkube_api.schemas import QueryResponse
from ragkube_api.services import answer_codec, answer_keys, evidence
from ragkube_api.services.answer_codec import CacheReport, Entry

DIGEST = "0123456789abcdef" * 2
TRACE = "a" * 32
GENERATION = Generation(
    text='He said: "384,400 km" \\ 月 😀\n',
    citations=[Citation("moon.txt", "v1", 0, 3, 9, "384,400", 0.9091)],
    answerer="llm",
    model="large",
    usage=Usage(120, 30),
    cost_usd=0.0125,
    complete=True,
)
HIT = CacheReport("hit", "redis", "exact", 12.3456, None, "fence")


def value(generation: Generation = GENERATION) -> bytes:
    return answer_codec.encode(
        generation, digest=DIGEST, evidence=bytes(range(16)), documents=[("moon.txt", "v1"), ('"', "v2")],
        ttl_class="live", seconds=1.5,
    )  # fmt: skip


def entry(of: bytes | None = None) -> Entry:
    return answer_codec.opened(value() if of is None else of)


@pytest.mark.proves("C1")
@pytest.mark.proves("C8")
def test_a_hit_is_the_documented_response_with_its_receipt() -> None:
    stored = entry()
    body = answer_codec.render_hit(stored, HIT, latency_ms=0.1234, trace_id=TRACE)

    QueryResponse.model_validate_json(body)
    fields = json.loads(body)
    assert fields["id"].startswith(DIGEST)
    assert fields == {
        "id": fields["id"], "answer": GENERATION.text, "answerer": "llm",
        "citations": [
            {"document": "moon.txt", "version": "v1", "chunk": 0, "start": 3, "end": 9, "quote": "384,400",
             "score": 0.9091}
        ],
        "cache": {
            "status": "hit", "level": "redis", "kind": "exact", "age_s": 12.346, "similarity": None,
            "validated": "fence", "gates": [], "class": "live",
            "documents": [{"id": "moon.txt", "version": "v1"}, {"id": '"', "version": "v2"}],
            "saved": {"input_tokens": 120, "output_tokens": 30, "cost_usd": 0.0125},
        },
        "model": "large", "usage": {"input_tokens": 0, "output_tokens": 0}, "cost_usd": 0.0,
        "latency_ms": 0.123, "trace_id": TRACE, "degraded": [],
    }  # fmt: skip


def test_a_paraphrase_and_a_degraded_hit_say_so() -> None:
    report = CacheReport("stale", "l1", "semantic", 0.0, 0.98765, "evidence", ("numbers", "evidence"))
    fields = json.loads(
        answer_codec.render_hit(entry(), report, latency_ms=1, trace_id=TRACE, degraded=["cache-unavailable"])
    )
    assert (fields["cache"]["kind"], fields["cache"]["similarity"]) == ("semantic", 0.9877)
    assert (fields["cache"]["gates"], fields["degraded"]) == (["numbers", "evidence"], ["cache-unavailable"])


@pytest.mark.parametrize(("paid", "spent", "saved"), [(True, 120, 0), (False, 0, 120)])
def test_a_fresh_answer_has_the_same_fields_and_says_what_it_cost(paid: bool, spent: int, saved: int) -> None:
    stored = entry()
    fresh = json.loads(
        answer_codec.render_fresh(stored, CacheReport("miss"), latency_ms=1, trace_id=TRACE, paid=paid)
    )
    hit = json.loads(answer_codec.render_hit(stored, HIT, latency_ms=1, trace_id=TRACE))

    QueryResponse.model_validate(fresh)
    assert list(fresh) == list(hit)
    assert list(fresh["cache"]) == list(hit["cache"])
    assert {key for key in hit if hit[key] != fresh[key]} <= {"cache", "usage", "cost_usd"}
    assert fresh["usage"]["input_tokens"] == spent
    assert fresh["cache"]["saved"]["input_tokens"] == saved
    assert fresh["cost_usd"] == (0.0125 if paid else 0)


def test_two_answers_to_the_same_question_have_ids_of_their_own() -> None:
    first, second = (answer_codec.contents(entry(value()))["id"] for _ in range(2))
    assert first[:32] == second[:32] == DIGEST
    assert first != second


def test_an_answer_that_is_stored_again_keeps_all_but_its_age() -> None:
    stored = entry()
    once_more = entry(answer_codec.again(stored, age=77.5))
    assert once_more == stored._replace(age=77.5)
    assert answer_codec.contents(once_more) == answer_codec.contents(stored)


def test_the_mark_is_of_the_question_and_the_text() -> None:
    assert entry(value()).mark == entry(value()).mark
    assert entry(value(replace(GENERATION, text="else"))).mark != entry().mark


@pytest.mark.proves("C1")
def test_no_damage_is_ever_opened() -> None:
    whole, dice = value(), random.Random(1)
    assert answer_codec.open_entry(whole, DIGEST) is not None
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= dice.randrange(1, 256)
        assert answer_codec.open_entry(bytes(damaged), DIGEST) is None
        assert answer_codec.open_entry(whole[:position], DIGEST) is None
    assert answer_codec.open_entry(whole + b"\0", DIGEST) is None
    assert answer_codec.open_entry(whole, "f" * 32) is None, "an answer to another question"


@pytest.mark.proves("C1")
@given(st.binary(max_size=300))
def test_no_foreign_value_is_opened(foreign: bytes) -> None:
    assert answer_codec.open_entry(foreign, None) is None
    assert answer_codec.open_entry(value()[:12] + foreign, None) is None


def _passage(document: str, version: str, ordinal: int, score: float = 1.0) -> Passage:
    return Passage(document, version, "", Chunk(ordinal, 0, 1, "x"), score)


@pytest.mark.proves("C4")
def test_evidence_is_documents_versions_chunks_and_their_order_and_nothing_else() -> None:
    one, two = _passage("a", "1", 0), _passage("b", "1", 3)
    same = evidence.digest([one, two])
    assert evidence.digest([replace(one, score=0.1), replace(two, score=0.0)]) == same
    others = [
        [two, one], [one], [], [one, two, two], [replace(one, version="2"), two], [_passage("a", "1", 1), two],
        [_passage("a\n1\n0", "1", 0), two],
    ]  # fmt: skip
    digests = {evidence.digest(passages) for passages in others}
    assert len(digests) == len(others)
    assert same not in digests


def test_an_answerer_sees_the_rank_and_not_the_score() -> None:
    first = evidence.by_rank([_passage("a", "1", 0, 0.9), _passage("b", "1", 3, 0.8)])
    second = evidence.by_rank([_passage("a", "1", 0, 0.5), _passage("b", "1", 3, 0.1)])
    assert first == second
    assert 1 == first[0].score > first[1].score > 0


def test_documents_stand_once_in_the_order_of_their_best_passage() -> None:
    passages = [_passage("b", "2", 0), _passage("a", "1", 0), _passage("b", "2", 5)]
    assert evidence.documents(passages) == (("b", "2"), ("a", "1"))


def _key(question: str = "Where?", **fields: object) -> Key:
    parameters = {"k": 5, "alpha": 0.5, "filters": {}, "model": None, "state": "s", **fields}
    return answer_keys.answer_key(question=question, **parameters)  # type: ignore[arg-type]


@pytest.mark.proves("C1")
def test_every_part_makes_another_key() -> None:
    changes = [
        {"question": "Where"}, {"k": 6}, {"alpha": 0.4}, {"filters": {"a": 1}}, {"filters": {"a": "1"}},
        {"filters": {"a": True}}, {"filters": {"a": 1.0}}, {"filters": {"a": [1, 2]}}, {"model": "m"}, {"state": "t"},
    ]  # fmt: skip
    keys = {_key(**change) for change in changes}  # type: ignore[arg-type]
    assert len(keys | {_key()}) == len(changes) + 1
    assert all(key.kind == "answer" and len(bytes.fromhex(key.digest)) == 16 for key in keys)
    assert _key(" Where? \n") == _key(filters={}) == _key(alpha=0.5)


def test_a_request_is_written_the_same_for_the_same_key() -> None:
    first = answer_keys.request_of(
        question=" Where?", k=5, alpha=1, filters={"b": ["y", "x"], "a": 1}, model=None
    )
    second = answer_keys.request_of(
        question="Where?", k=5, alpha=1.0, filters={"a": 1, "b": ["x", "y"]}, model=None
    )
    assert first == second
    fields = {"question": "Where?", "k": 5, "alpha": 1.0, "filters": {"a": 1, "b": ["x", "y"]}, "model": None}
    assert json.loads(first) == fields
