"""How an answer is written down, and how the response of ``POST /v1/query`` is made of it.

A value is ``magic, check, header, head, tail, tags``. ``head`` and ``tail`` are pieces of the response's JSON, so that a hit
is answered by splicing bytes. A value that is damaged, cut, of another format or of another key opens as None.
Keys are made in ``answer_keys``.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

import orjson

from ragkube_api.domain import Generation

_MAGIC: Final = b"rka2"
_CHECK_BYTES: Final = 8
_HEADER: Final = struct.Struct("<16s16s16sddIII")
_BODY: Final = len(_MAGIC) + _CHECK_BYTES
_HEAD: Final = _BODY + _HEADER.size
_ID: Final = b'{"id":"'
ID_BYTES: Final = 24
_NOTHING_SAVED: Final = {"input_tokens": 0, "output_tokens": 0, "cost_usd": 0.0}


class CacheReport(NamedTuple):
    """Where an answer came from, and why it was valid; the rest of the receipt lies in the value.

    ``validated``: by the ``fence`` (no document was written since) or by the ``evidence`` (the same passages are
    retrieved now). ``gates`` are those that a paraphrase passed.
    """

    status: Literal["hit", "miss", "stale", "bypass"]
    level: Literal["l1", "redis"] | None = None
    kind: Literal["exact", "semantic"] | None = None
    age_s: float | None = None
    similarity: float | None = None
    validated: Literal["fence", "evidence"] | None = None
    gates: tuple[str, ...] = ()


class Entry(NamedTuple):
    """A value that is whole. ``digest`` is the key's; ``age`` is how old it was when it was stored (again);
    ``seconds`` is how long it took to make."""

    digest: str
    evidence: bytes
    mark: str
    age: float
    seconds: float
    head: bytes
    tail: bytes
    tags: bytes = b"[]"
    """A JSON list of the answer's tags."""

    @property
    def id(self) -> str:
        """The answer's."""
        return self.head[len(_ID) : len(_ID) + 2 * ID_BYTES].decode()


def encode(
    generation: Generation,
    *,
    digest: str,
    evidence: bytes,
    documents: Sequence[tuple[str, str]],
    ttl_class: str,
    seconds: float,
    tags: Sequence[str] = (),
) -> bytes:
    """The value of a new answer, with an id of its own. ``digest`` is that of its key, ``seconds`` what it took."""
    head = {
        "id": digest + secrets.token_hex(8),
        "answer": generation.text,
        "answerer": generation.answerer,
        "citations": list(generation.citations),
        "cache": {},
    }
    saved = {
        "input_tokens": generation.usage.input_tokens,
        "output_tokens": generation.usage.output_tokens,
        "cost_usd": generation.cost_usd,
    }
    receipt = {
        "class": ttl_class,
        "documents": [{"id": i, "version": v} for i, v in documents],
        "saved": saved,
    }
    model = {
        "model": generation.model,
        "usage": {"input_tokens": 0, "output_tokens": 0},
        "cost_usd": 0.0,
        "latency_ms": 0,
    }
    first = orjson.dumps(head)[:-2] + b'"status":"'
    last = b"," + orjson.dumps(receipt)[1:] + b"," + orjson.dumps(model)[1:-2]
    marked = mark(digest, generation.text)
    return _value(Entry(digest, evidence, marked, 0.0, seconds, first, last, orjson.dumps(tags)))


def open_entry(value: bytes, digest: str | None) -> Entry | None:
    """The parts of a value; None when it is damaged, of another format, or not of the key with this ``digest``.

    With None instead of a digest the value of any key is opened.
    """
    if len(value) < _HEAD or not value.startswith(_MAGIC) or value[len(_MAGIC) : _BODY] != _check(value):
        return None
    key, evidence, mark, age, seconds, head, tail, tags = _HEADER.unpack_from(value, _BODY)
    if len(value) != _HEAD + head + tail + tags or (digest is not None and key.hex() != digest):
        return None
    middle, end = _HEAD + head, _HEAD + head + tail
    return Entry(
        key.hex(), evidence, mark.hex(), age, seconds, value[_HEAD:middle], value[middle:end], value[end:]
    )


def opened(value: bytes) -> Entry:
    """The parts of a value that was just made; anything else is a fault."""
    entry = open_entry(value, None)
    if entry is None:
        msg = "not an answer"
        raise ValueError(msg)
    return entry


def again(entry: Entry, *, age: float, tags: Sequence[str] = ()) -> bytes:
    """The value to store again when its evidence was found to hold: as old as it is, with the tags it has and these."""
    known = orjson.loads(entry.tags)
    return _value(entry._replace(age=age, tags=orjson.dumps(list(dict.fromkeys([*known, *tags])))))


def render_hit(
    entry: Entry, report: CacheReport, *, latency_ms: float, trace_id: str, degraded: Sequence[str] = ()
) -> bytes:
    """The body of the response for a cached answer. The only place that makes one, for both lanes.

    ``report`` has a level, a kind, an age (seconds) and a validation. ``trace_id`` is hexadecimal.
    """
    similarity = "null" if report.similarity is None else f"{report.similarity:.4f}"
    gates = orjson.dumps(report.gates).decode() if report.gates else "[]"
    middle = (
        f'{report.status}","level":"{report.level}","kind":"{report.kind}","age_s":{report.age_s:.3f},'
        f'"similarity":{similarity},"validated":"{report.validated}","gates":{gates}'
    )
    missing = orjson.dumps(degraded).decode() if degraded else "[]"
    end = f'{latency_ms:.3f},"trace_id":"{trace_id}","degraded":{missing}}}'
    return b"".join((entry.head, middle.encode(), entry.tail, end.encode()))


def render_fresh(
    entry: Entry,
    report: CacheReport,
    *,
    latency_ms: float,
    trace_id: str,
    degraded: Sequence[str] = (),
    paid: bool = True,
) -> bytes:
    """The body for an answer that was generated for this request or, not ``paid``, for one that asked the same."""
    body = contents(entry)
    receipt = body["cache"]
    body["cache"] = {**report._asdict(), **{key: receipt[key] for key in ("class", "documents", "saved")}}
    if paid:
        saved = receipt["saved"]
        body["usage"] = {key: saved[key] for key in ("input_tokens", "output_tokens")}
        body["cost_usd"] = saved["cost_usd"]
        body["cache"]["saved"] = _NOTHING_SAVED
    body |= {"latency_ms": round(latency_ms, 3), "trace_id": trace_id, "degraded": list(degraded)}
    return orjson.dumps(body)


def contents(entry: Entry) -> dict[str, Any]:
    """The response's fields as a hit would have them: id, answer, citations, cache.saved, …"""
    report = CacheReport("hit", "l1", "exact", 0.0, None, "fence")
    fields: dict[str, Any] = orjson.loads(render_hit(entry, report, latency_ms=0, trace_id=""))
    return fields


def _value(entry: Entry) -> bytes:
    header = _HEADER.pack(
        bytes.fromhex(entry.digest), entry.evidence, bytes.fromhex(entry.mark), entry.age, entry.seconds,
        len(entry.head), len(entry.tail), len(entry.tags),
    )  # fmt: skip
    unchecked = b"".join((_MAGIC, bytes(_CHECK_BYTES), header, entry.head, entry.tail, entry.tags))
    return _MAGIC + _check(unchecked) + unchecked[_BODY:]


def _check(value: bytes) -> bytes:
    return hashlib.blake2b(memoryview(value)[_BODY:], digest_size=_CHECK_BYTES).digest()


def mark(digest: str, text: str) -> str:
    """What a disowned answer is known by: the digest of its question's key, and its text."""
    return hashlib.blake2b(f"{digest}\n{text}".encode(), digest_size=16).hexdigest()
