"""``/v1/cache``: everything here needs the role admin."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Query, Request
from pydantic import ValidationError
from starlette.responses import Response, StreamingResponse

from ragkube_api import problems
from ragkube_api.domain import EntryNote, Kind, Selector
from ragkube_api.errors import BodyTooLargeError, FieldProblem, InvalidRequestError, RagkubeError
from ragkube_api.routes.documentation import PROBLEMS
from ragkube_api.routes.query import question_of
from ragkube_api.routes.request import AdminTenant, AppRuntime, Caller, invalid, read_body
from ragkube_api.schemas import QueryRequest
from ragkube_api.schemas_cache import (
    AskedListBody,
    CachedAnswerDetailBody,
    CachedAnswersBody,
    CacheStatisticsBody,
    ClearedBody,
    WarmLine,
    WarmRequest,
)
from ragkube_api.services.answering import Question
from ragkube_api.services.cache_operations import Warmed

_MAX_BODY: Final = 4 * 1024 * 1024
_CONDITIONS: Final = frozenset({"tag", "document", "question", "kind"})
_WARM_SCHEMA: Final = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": WarmRequest.model_json_schema()}},
    }
}

router = APIRouter(prefix="/v1/cache", tags=["cache"])


@router.get("", summary="What is cached", response_model=CacheStatisticsBody, responses=PROBLEMS)
async def statistics(runtime: AppRuntime, tenant: AdminTenant) -> Response:
    """Entries and bytes of the tenant by level and kind, and what all replicas and this one have counted."""
    operations, counts = runtime.cache_operations, runtime.counts
    levels = await operations.statistics(tenant)
    totals, counted = await counts.read()
    return _json(
        {
            "enabled": runtime.settings.cache.enabled,
            "tenant": tenant,
            "levels": [dataclasses.asdict(level) for level in levels],
            "deployment": {
                "replicas": totals.replicas,
                "since": datetime.fromtimestamp(totals.since, UTC),
                "age_s": round(totals.age_seconds, 3),
                **counted,
            },
            "replica": {"name": operations.replica(), **counts.own()},
        }
    )


@router.delete("", summary="Clear the cache", response_model=ClearedBody, responses=PROBLEMS)
async def clear(
    request: Request,
    runtime: AppRuntime,
    tenant: AdminTenant,
    caller: Caller,
    tag: Annotated[str | None, Query(min_length=1, max_length=128)] = None,
    document: Annotated[str | None, Query(min_length=1, max_length=1024)] = None,
    question: Annotated[str | None, Query(min_length=1, max_length=1000)] = None,
    kind: Annotated[Kind | None, Query()] = None,
) -> Response:
    """Drop what every given condition names, on every replica; without any, all that the tenant has.

    `question` is a pattern for the whole question: `*` stands for any text, `?` for one character.
    """
    unknown = sorted(set(request.query_params) - _CONDITIONS)
    if unknown:  # a misspelt condition must not clear everything
        raise invalid(unknown[0], f"no such condition; there are {', '.join(sorted(_CONDITIONS))}")
    selector = Selector(kind=kind, tag=tag, document=document, question=question)
    return _json({"removed": await runtime.cache_operations.clear(tenant, selector, caller.subject)})


@router.get("/answers", summary="List cached answers", response_model=CachedAnswersBody, responses=PROBLEMS)
async def list_answers(
    runtime: AppRuntime,
    tenant: AdminTenant,
    cursor: Annotated[str | None, Query(max_length=65536)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Oldest first."""
    page = await runtime.cache_operations.answers(tenant, cursor=cursor, limit=limit)
    return _json({"answers": [_note(note) for note in page.answers], "next_cursor": page.next_cursor})


@router.get(
    "/answers/{id}", summary="Show a cached answer", response_model=CachedAnswerDetailBody, responses=PROBLEMS
)
async def get_answer(runtime: AppRuntime, tenant: AdminTenant, id: str) -> Response:  # noqa: A002
    """`id` is that of a response, or of the list."""
    found = await runtime.cache_operations.answer(tenant, id)
    fields, receipt = found.fields, found.fields["cache"]
    shown = {key: fields[key] for key in ("id", "answer", "citations", "model")}
    return _json(
        {
            **shown,
            "ttl_class": receipt["class"],
            "documents": receipt["documents"],
            "saved": receipt["saved"],
            "age_s": round(found.age_seconds, 3),
            "fresh_s": round(found.fresh_seconds, 3),
            "current": found.current,
        }
    )


@router.delete("/answers/{id}", summary="Disown a wrong answer", status_code=204, responses=PROBLEMS)
async def disown(runtime: AppRuntime, tenant: AdminTenant, caller: Caller, id: str) -> Response:  # noqa: A002
    """On return no replica serves it, and the same text is never cached again for its question."""
    await runtime.cache_operations.disown(tenant, id, caller.subject)
    return Response(status_code=204)


@router.get("/questions", summary="Most asked questions", response_model=AskedListBody, responses=PROBLEMS)
async def most_asked(
    runtime: AppRuntime, tenant: AdminTenant, limit: Annotated[int, Query(ge=1, le=1000)] = 20
) -> Response:
    """Counts reach the cache every few seconds."""
    await runtime.asked.flush()
    found = await runtime.cache_operations.most_asked(tenant, limit)
    return _json({"questions": [{"request": orjson.loads(r), "count": n} for r, n in found]})


@router.post(
    "/warm",
    summary="Answer questions ahead of time",
    response_class=StreamingResponse,
    responses={200: {"model": WarmLine, "description": "One JSON object a line, as it comes."}, **PROBLEMS},
    openapi_extra=_WARM_SCHEMA,
)
async def warm(request: Request, runtime: AppRuntime, tenant: AdminTenant) -> Response:
    """Each question goes the ordinary way, with the limits of a query. A client that leaves stops it."""
    seconds = runtime.settings.server.request_timeout_seconds
    too_large = BodyTooLargeError(f"The body may have at most {_MAX_BODY:,} bytes.")
    raw = await read_body(request, _MAX_BODY, too_large, seconds)
    try:
        wanted = WarmRequest.model_validate_json(raw or b"{}")
    except ValidationError as error:
        problem: RagkubeError = problems.from_validation(error)
        raise problem from error
    requests = [_request(given, position) for position, given in enumerate(wanted.questions)]
    if wanted.most_asked is not None:
        await runtime.asked.flush()
        requests += _valid(await runtime.cache_operations.most_asked(tenant, wanted.most_asked))
    if not requests and wanted.most_asked is None:
        raise invalid("questions", "name some, or give most_asked")
    defaults = runtime.settings.retrieval
    questions = list({r.model_dump_json(): question_of(r, tenant, defaults) for r in requests}.values())
    results = runtime.cache_operations.warm(questions, wanted.concurrency)
    return StreamingResponse(_lines(results, questions), media_type="application/x-ndjson")


async def _lines(results: AsyncIterator[Warmed], questions: Sequence[Question]) -> AsyncIterator[bytes]:
    done = 0
    async for result in results:
        done += 1
        yield orjson.dumps({"done": done, "total": len(questions), **dataclasses.asdict(result)}) + b"\n"


def _request(given: str | dict[str, Any], position: int) -> QueryRequest:
    body = {"question": given} if isinstance(given, str) else given
    try:
        return QueryRequest.model_validate(body)
    except ValidationError as error:
        found = problems.from_validation(error).problems
        where = f"questions.{position}"
        named = tuple(
            FieldProblem(where if isinstance(given, str) else f"{where}.{p.field}", p.message) for p in found
        )
        detail = "; ".join(f"{p.field}: {p.message}" for p in named)
        raise InvalidRequestError(f"{detail}.", problems=named) from error


def _valid(asked: Sequence[tuple[bytes, int]]) -> Iterator[QueryRequest]:
    """Counted under rules of an earlier version, one may be no valid request any more."""
    for body, _ in asked:
        try:
            yield QueryRequest.model_validate_json(body)
        except ValidationError:
            continue


def _note(note: EntryNote) -> dict[str, Any]:
    about = note.about
    return {
        "id": note.key.digest,
        "question": about.question,
        "ttl_class": about.ttl_class,
        "tags": about.tags,
        "documents": about.documents,
        "request": orjson.loads(about.request) if about.request else {},
        "stored": datetime.fromtimestamp(note.stored, UTC),
    }


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")
