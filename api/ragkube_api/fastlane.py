"""``POST /v1/query`` past FastAPI and pydantic.

The lane takes the plain case: a small, valid body of known fields. A cached answer that may be served as it is comes
at once where it lies in this process (``now``), before the server makes anything for the request, and with the reply of
the shared level (``ask``, ``found``). What has to be waited for otherwise, made or refused is the gateway's request
(``answer``). Everything else (cache control, a body that is not plainly valid, anything unusual) goes on to the
application. Where the two could differ the lane steps aside.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Final, TypeAlias

import orjson

from ragkube_api.admission import Admission
from ragkube_api.context import Runtime
from ragkube_api.domain import Identity, Lookup
from ragkube_api.errors import RagkubeError
from ragkube_api.routes.request import TENANT_HEADER, tenant_of
from ragkube_api.schemas import MAX_FILTER_CHARACTERS, MAX_FILTERS, QUESTION_MAX, QUESTION_MIN, is_tag
from ragkube_api.services.answer_keys import normalise
from ragkube_api.services.answering import Answer, Question, Ready
from ragkube_api.services.tags import MAX_TAGS
from ragkube_api.visits import QUERY_PATH, TRACE_ID, HeaderList, RequestHeaders, Visit, Visits

MOST_BYTES: Final = 9999
_MOST_DIGITS: Final = 4
_MOST_KEY_CHARACTERS: Final = 64
_MOST_PASSAGES: Final = 20
_MOST_MODEL_CHARACTERS: Final = 200
_TENANT: Final = TENANT_HEADER.lower().encode()
_JSON: Final = (b"content-type", b"application/json")
_NO_FILTERS: Final[dict[str, Any]] = {}
_FIELDS: Final = frozenset({"question", "k", "alpha", "filters", "model", "tags"})
# What asks for something that only the application or the server knows.
_UNUSUAL: Final = frozenset(
    {b"cache-control", b"expect", b"upgrade", b"x-forwarded-for", b"x-forwarded-proto"}
)
# Bodies that come again are decoded once; larger ones are not worth the memory.
_MOST_KNOWN: Final = 4096
_MOST_KNOWN_BYTES: Final = 1024

Whole: TypeAlias = tuple[HeaderList, bytes]
"""A response with status 200: all its headers but the server's own, and its body."""


class _Foresight:
    """Whether the next look-up misses, as a saturating counter of two bits foresees it: two of the other kind change its mind."""

    def __init__(self) -> None:
        self._misses = 1

    @property
    def miss(self) -> bool:
        return self._misses >= 2

    def learn(self, *, missed: bool) -> None:
        self._misses = min(3, self._misses + 1) if missed else max(0, self._misses - 1)


class FastLane:
    """Decides, looks up and renders; it reads nothing and sends nothing."""

    def __init__(self, runtime: Runtime, admission: Admission, visits: Visits) -> None:
        self._answering = runtime.answering
        self._asked = runtime.asked
        self._defaults = runtime.settings.retrieval
        self._admission = admission
        self._visits = visits
        self._known = lru_cache(_MOST_KNOWN)(self._question)
        self._foresight = _Foresight()

    @property
    def foresees_miss(self) -> bool:
        """Whether what ``ask`` asks for will probably have to be made, judging by the last ones."""
        return self._foresight.miss

    def now(self, visit: Visit, body: bytes) -> Whole | None:
        """The whole answer if this process has it and the client may have it; the visit has ended then.

        Else the gateway goes on with the visit and what is known of it.
        """
        if self._visits.full or self._visits.draining:
            return None
        token = TRACE_ID.set(visit.trace_id)
        try:
            identity = self._admission.identify(visit)
            question = visit.question = self._read(visit, identity, body)
            ready = None if question is None else self._answering.peek(question)
            if question is None or ready is None or not self._admits(visit, identity):
                return None
            return self._hit(visit, question, ready)
        except RagkubeError:
            return None  # the gateway meets it again, and says so
        finally:
            TRACE_ID.reset(token)

    def ask(self, visit: Visit, deliver: Callable[[Visit], None]) -> bool:
        """Ask the shared level for what ``now`` did not find; ``deliver`` is called once, later, and may ask for ``found``.

        When it is False, the gateway goes on with what is known of it.
        """
        question, identity = visit.question, visit.identity
        if question is None or identity is None or visit.admitted or not self._admits(visit, identity):
            return False
        try:
            visit.asking = self._answering.ask(question, partial(self._told, visit, deliver))
        except RagkubeError:
            return False  # the gateway meets it again, and says so
        return visit.asking

    def _told(self, visit: Visit, deliver: Callable[[Visit], None], lookup: Lookup) -> None:
        visit.lookup, visit.asking = lookup, False
        self._foresight.learn(missed=lookup.found is None or not lookup.found.current)
        if visit.asked is not None and not visit.asked.done():  # whose request was given up waits no more
            visit.asked.set_result(None)
        deliver(visit)

    def found(self, visit: Visit) -> Whole | None:
        """The whole answer if the reply to ``ask`` is one that may be served as it is; the visit has ended then."""
        question, lookup = visit.question, visit.lookup
        if question is None or lookup is None or self._visits.draining:
            return None
        token = TRACE_ID.set(visit.trace_id)
        try:
            ready = self._answering.found(question, lookup)
            return None if ready is None else self._hit(visit, question, ready)
        finally:
            TRACE_ID.reset(token)

    async def answer(self, visit: Visit, question: Question) -> Whole:
        """The whole answer, cached or made for it; raises what the client is to be told."""
        visit.route, visit.facts["tenant"] = QUERY_PATH, question.tenant
        self._asked.note(question)
        vector = None
        if visit.asked is not None:
            if self.foresees_miss:
                vector = await self._answering.prepared(question)
            await visit.asked
        ago = visit.elapsed_ms / 1000 if visit.lookup else 0.0
        answer = await self._answering.answer(question, visit.lookup, ago_seconds=ago, vector=vector)
        return self._response(visit, question, answer)

    def _admits(self, visit: Visit, identity: Identity) -> bool:
        """Whether it may be answered now; it has its place among those that are answered then."""
        admitted = self._admission.charge(visit, identity)
        self._visits.busy += admitted
        return admitted

    def _leaves(self, visit: Visit) -> None:
        self._visits.busy -= 1
        self._visits.end(visit)

    def _hit(self, visit: Visit, question: Question, ready: Ready) -> Whole:
        self._asked.note(question)
        response = self._response(visit, question, self._answering.hit(ready))
        self._leaves(visit)
        return response

    def _response(self, visit: Visit, question: Question, answer: Answer) -> Whole:
        facts = visit.facts
        facts["tenant"], facts["cache"] = question.tenant, answer.cache.status
        if answer.degraded:
            facts["degraded"] = answer.degraded
        visit.route, visit.status = QUERY_PATH, 200
        body = answer.body(latency_ms=visit.elapsed_ms, trace_id=visit.trace_id)
        return [(b"content-length", b"%d" % len(body)), _JSON, *self._visits.headers(visit)], body

    def _read(self, visit: Visit, identity: Identity, body: bytes) -> Question | None:
        tenant = tenant_of(identity, visit.headers.get(_TENANT), "reader")
        read = self._known if len(body) <= _MOST_KNOWN_BYTES else self._question
        return read(tenant, body)

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
    if len(body) > MOST_BYTES:
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


def may_be_plain(headers: RequestHeaders) -> bool:
    """Whether the head leaves it open that this is a question for the lane."""
    values = headers.values
    return _UNUSUAL.isdisjoint(values) and len(values.get(b"content-length", b"")) <= _MOST_DIGITS
