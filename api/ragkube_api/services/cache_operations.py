"""What an administrator does with the cache: look, clear, disown a wrong answer, warm it up."""

from __future__ import annotations

import asyncio
import base64
import binascii
import math
import re
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from ragkube_api.domain import EntryNote, Key, LevelStatistics, Selector
from ragkube_api.errors import FieldProblem, InvalidRequestError, NotFoundError, RagkubeError
from ragkube_api.ports import FencedCache
from ragkube_api.services import answer_codec
from ragkube_api.services.answering import Answering, Question
from ragkube_api.telemetry import Telemetry

DIGEST_DIGITS: Final = 32
_ID = re.compile(r"[0-9a-f]{32}(?:[0-9a-f]{16})?")


@dataclass(frozen=True, slots=True)
class AnswerPage:
    """One page of cached answers, oldest first; ``next_cursor`` is None on the last."""

    answers: Sequence[EntryNote]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class CachedAnswerDetail:
    """One cached answer: ``fields`` as a hit would have them, its age and the seconds its TTL has left."""

    fields: dict[str, Any]
    age_seconds: float
    fresh_seconds: float
    current: bool


@dataclass(frozen=True, slots=True)
class Warmed:
    """What became of one question: made now, cached before, answered but not cacheable, or not answered."""

    question: str
    outcome: Literal["warmed", "cached", "uncacheable", "failed"]
    code: str | None = None
    detail: str | None = None


class CacheOperations:
    """All of it for one tenant at a time."""

    def __init__(self, cache: FencedCache, answering: Answering, telemetry: Telemetry) -> None:
        self._cache = cache
        self._answering = answering
        self._telemetry = telemetry

    async def statistics(self, tenant: str) -> Sequence[LevelStatistics]:
        """By level and kind; the level in the process is that of this replica."""
        await self._cache.settled(tenant)
        return await self._cache.statistics(tenant)

    def replica(self) -> str:
        """The name of this pod, or of the machine."""
        return socket.gethostname()

    async def answers(self, tenant: str, *, cursor: str | None, limit: int) -> AnswerPage:
        """Cached answers in the order of their time; raises ``InvalidRequestError`` for a cursor that is none."""
        since, seen = _opened(cursor)
        await self._cache.settled(tenant)
        # Answers of the same moment may stand on both sides of the page's end.
        found = await self._cache.entries(tenant, since=since, limit=limit + len(seen) + 1)
        fresh = [note for note in found if note.key.digest not in seen]
        page = fresh[:limit]
        if len(fresh) <= limit or not page:
            return AnswerPage(page, None)
        last = page[-1].stored
        same = [note.key.digest for note in page if note.stored == last]
        return AnswerPage(page, _cursor(last, same if last > since else [*seen, *same]))

    async def answer(self, tenant: str, answer_id: str) -> CachedAnswerDetail:
        """The answer with this id; raises ``NotFoundError`` when it is not cached (any more)."""
        answer = await self._cached(tenant, answer_id)
        if answer is None or not str(answer.fields["id"]).startswith(answer_id):
            raise _unknown(answer_id)
        return answer

    async def disown(self, tenant: str, answer_id: str, subject: str) -> None:
        """Remove the answer; the same text never comes back for its question. Raises ``NotFoundError``."""
        await self._cache.settled(tenant)
        cached = await self._cached(tenant, answer_id) if len(answer_id) > DIGEST_DIGITS else None
        if cached is not None and not str(cached.fields["id"]).startswith(answer_id):
            raise _unknown(answer_id)
        # even where none is found here: another replica may hold it in its memory
        if not await self._cache.disown(tenant, _key(answer_id)):
            raise _unknown(answer_id)
        self._telemetry.log.info("cache_answer_disowned", tenant=tenant, answer=answer_id, by=subject)

    async def clear(self, tenant: str, selector: Selector, subject: str) -> int:
        """Drop what the selector names from every level of every replica."""
        await self._cache.settled(tenant)
        removed = await self._cache.drop(tenant, selector)
        self._telemetry.log.info(
            "cache_cleared", tenant=tenant, by=subject, removed=removed, kind=selector.kind, tag=selector.tag,
            document=selector.document, question=selector.question,
        )  # fmt: skip
        return removed

    async def most_asked(self, tenant: str, limit: int) -> Sequence[tuple[bytes, int]]:
        """Bodies of ``POST /v1/query`` with how often they came, most asked first."""
        return await self._cache.most_asked(tenant, limit)

    async def warm(self, questions: Sequence[Question], concurrency: int) -> AsyncIterator[Warmed]:
        """Answer the questions as if they were asked, so many at a time; what becomes of each, as it comes."""
        room = asyncio.Semaphore(concurrency)

        async def one(question: Question) -> Warmed:
            async with room:
                return await self._warm(question)

        tasks = [asyncio.create_task(one(question)) for question in questions]
        try:
            for done in asyncio.as_completed(tasks):
                yield await done
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _cached(self, tenant: str, answer_id: str) -> CachedAnswerDetail | None:
        """What is cached for the question of that answer."""
        key = _key(answer_id)
        found = (await self._cache.lookup(tenant, key)).found
        entry = answer_codec.open_entry(found.value, key.digest) if found is not None else None
        if found is None or entry is None:
            return None
        age = entry.age + found.age_seconds
        return CachedAnswerDetail(answer_codec.contents(entry), age, found.fresh_seconds, found.current)

    async def _warm(self, question: Question) -> Warmed:
        try:
            answer = await self._answering.answer(question)
        except RagkubeError as error:
            return Warmed(question.text, "failed", error.code, error.message)
        await self._cache.settled(question.tenant)  # every replica finds it
        if answer.degraded:
            return Warmed(
                question.text, "uncacheable", answer.degraded[0], "Degraded answers are not cached."
            )
        if answer.cache.status == "bypass":
            return Warmed(question.text, "uncacheable", "cache-disabled", "The cache is switched off.")
        return Warmed(question.text, "warmed" if answer.cache.status == "miss" else "cached")


def _key(answer_id: str) -> Key:
    if not _ID.fullmatch(answer_id):
        raise _unknown(answer_id)
    return Key("answer", answer_id[:DIGEST_DIGITS])


def _unknown(answer_id: str) -> NotFoundError:
    return NotFoundError(f"There is no cached answer '{answer_id[:64]}'.")


def _cursor(stored: float, digests: Sequence[str]) -> str:
    return base64.urlsafe_b64encode(f"{stored!r} {' '.join(digests)}".encode()).decode()


def _opened(cursor: str | None) -> tuple[float, list[str]]:
    if cursor is None:
        return 0.0, []
    try:
        stored, *digests = base64.urlsafe_b64decode(cursor.encode()).decode().split()
        since = float(stored)
    except (binascii.Error, UnicodeError, ValueError) as error:
        raise _no_cursor() from error
    if not math.isfinite(since):
        raise _no_cursor()
    return since, digests


def _no_cursor() -> InvalidRequestError:
    problem = FieldProblem("cursor", "pass next_cursor of the page before")
    return InvalidRequestError(f"cursor: {problem.message}.", problems=(problem,))
