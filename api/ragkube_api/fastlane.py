"""Cached answers to ``POST /v1/query`` past FastAPI and pydantic.

The gateway has admitted the request when it comes here. The lane answers the plain case: a small, valid body of known
fields and a cached answer that may be served as it is. Everything else (errors, misses, cache control, anything
unusual) goes on to the application, with the body to read again and what was looked up in ``scope["state"]``, so that
it neither asks the cache twice nor decides differently. Where the two could differ the lane steps aside.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from functools import lru_cache
from typing import Any, Final, Protocol, cast

import orjson
from starlette.types import Message, Receive, Scope

from ragkube_api.admission import HeaderList, RequestHeaders
from ragkube_api.context import Runtime
from ragkube_api.domain import Identity
from ragkube_api.errors import RagkubeError
from ragkube_api.immediate import Later
from ragkube_api.routes.request import TENANT_HEADER, tenant_of
from ragkube_api.schemas import MAX_FILTER_CHARACTERS, MAX_FILTERS, QUESTION_MAX, QUESTION_MIN, is_tag
from ragkube_api.services.answer_keys import normalise
from ragkube_api.services.answering import LookedUp, Question
from ragkube_api.services.tags import MAX_TAGS

PATH: Final = "/v1/query"
_MOST_BYTES: Final = 9999
_MOST_DIGITS: Final = 4
_MOST_KEY_CHARACTERS: Final = 64
_MOST_PASSAGES: Final = 20
_MOST_MODEL_CHARACTERS: Final = 200
_TENANT: Final = TENANT_HEADER.lower().encode()
_JSON: Final = (b"content-type", b"application/json")
_NO_FILTERS: Final[dict[str, Any]] = {}
_FIELDS: Final = frozenset({"question", "k", "alpha", "filters", "model", "tags"})
# A body that is not here yet is for the application to wait for, under the deadline of the request.
_PATIENCE_SECONDS: Final = 0.1
# Bodies that come again are decoded once; larger ones are not worth the memory.
_MOST_KNOWN: Final = 4096
_MOST_KNOWN_BYTES: Final = 1024


class Exchange(Protocol):
    """Where the answer goes."""

    async def answer(self, headers: HeaderList, body: bytes) -> None:
        """Send a whole response with status 200."""


class _Route:
    path = PATH


class FastLane:
    """``serve`` returns None when it has answered."""

    def __init__(self, runtime: Runtime) -> None:
        self._answering = runtime.answering
        self._asked = runtime.asked
        self._defaults = runtime.settings.retrieval
        self._known = lru_cache(_MOST_KNOWN)(self._question)

    def takes(self, scope: Scope) -> bool:
        """Whether the request may be one for the lane."""
        return bool(scope["path"] == PATH and scope["method"] == "POST")

    async def serve(
        self, scope: Scope, headers: RequestHeaders, receive: Receive, exchange: Exchange
    ) -> Receive | None:
        """Answer, or give back how to receive the body, of which a part may have been read."""
        started = time.perf_counter()
        state = scope["state"]
        tenant = _tenant(state["identity"], headers)
        long = len(headers.get(b"content-length") or "") > _MOST_DIGITS
        if tenant is None or long or headers.get(b"cache-control") is not None:
            return receive
        first = await _soon(receive)
        if first is None:
            return receive
        body = first.get("body", b"")
        read = self._known if len(body) <= _MOST_KNOWN_BYTES else self._question
        question = None if first.get("more_body") else read(tenant, body)
        found = None if question is None else await self._look_up(question)
        if found is None or found.answer is None:
            state["looked_up"] = found
            return _replayed(first, receive)
        answer, facts = found.answer, state["facts"]
        self._asked.note(found.question)
        facts["tenant"], facts["cache"] = tenant, answer.cache.status
        scope["route"] = _Route
        elapsed = (time.perf_counter() - started) * 1000
        response = answer.body(latency_ms=elapsed, trace_id=state["trace_id"])
        await exchange.answer([(b"content-length", b"%d" % len(response)), _JSON], response)
        return None

    async def _look_up(self, question: Question) -> LookedUp | None:
        try:
            return await self._answering.look_up(question)
        except RagkubeError:
            return None  # the application meets it again, and says so

    def _question(self, tenant: str, body: bytes) -> Question | None:
        """The question of a body that is plainly valid; None is no judgement."""
        fields = _fields(body)
        if fields is None:
            return None
        text = normalise(fields["question"])
        k, alpha = fields.get("k"), fields.get("alpha")
        filters = fields.get("filters", _NO_FILTERS)
        model = fields.get("model")
        if not (
            QUESTION_MIN <= len(text) <= QUESTION_MAX
            and (k is None or (type(k) is int and 1 <= k <= _MOST_PASSAGES))
            and (alpha is None or (type(alpha) in {int, float} and 0 <= alpha <= 1))
            and (filters is _NO_FILTERS or _plain(filters))
            and ("tags" not in fields or _tags(fields["tags"]))
            and (model is None or (type(model) is str and 1 <= len(model) <= _MOST_MODEL_CHARACTERS))
        ):
            return None
        return Question(
            tenant=tenant,
            text=text,
            k=self._defaults.k if k is None else k,
            alpha=self._defaults.alpha if alpha is None else alpha,
            filters=filters,
            model=model,
            tags=tuple(fields.get("tags", ())),
        )


def _fields(body: bytes) -> dict[str, Any] | None:
    """Known fields with a text as question."""
    if len(body) > _MOST_BYTES:
        return None
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if type(fields) is dict and fields.keys() <= _FIELDS and type(fields.get("question")) is str:
        return fields
    return None


def _plain(filters: Any) -> bool:
    """Texts, whole numbers and truth values; the application knows more kinds."""
    return (
        type(filters) is dict
        and len(filters) <= MAX_FILTERS
        and all(
            1 <= len(key) <= _MOST_KEY_CHARACTERS
            and (
                (type(value) is str and len(value) <= MAX_FILTER_CHARACTERS)
                or (type(value) is int and abs(value) < 2**63)
                or type(value) is bool
            )
            for key, value in filters.items()
        )
    )


def _tags(tags: Any) -> bool:
    return (
        type(tags) is list and len(tags) <= MAX_TAGS and all(type(tag) is str and is_tag(tag) for tag in tags)
    )


def _tenant(identity: Identity, headers: RequestHeaders) -> str | None:
    try:
        return tenant_of(identity, headers.get(_TENANT), "reader")
    except RagkubeError:
        return None


async def _soon(receive: Receive) -> Message | None:
    """The next message; None when it takes a while."""
    later: Later[Message] = Later(cast("Coroutine[Any, Any, Message]", receive()))
    if later.done:  # as nearly always: then there is nothing to time
        return later.value
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await later
    except TimeoutError:
        return None


def _replayed(first: Message, receive: Receive) -> Receive:
    """What was read already, and then the rest."""
    pending: list[Message] = [first]

    async def again() -> Message:
        return pending.pop() if pending else await receive()

    return again
