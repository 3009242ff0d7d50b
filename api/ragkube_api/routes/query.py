"""``POST /v1/query``."""

from __future__ import annotations

import time
from collections.abc import Set as AbstractSet
from typing import Final

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.responses import Response

from ragkube_api import problems
from ragkube_api.errors import BodyTooLargeError, MalformedBodyError, RagkubeError
from ragkube_api.routes.documentation import PROBLEMS
from ragkube_api.routes.request import AppRuntime, ReadTenant, read_body
from ragkube_api.schemas import QueryRequest, QueryResponse
from ragkube_api.services.answering import Question
from ragkube_api.settings import RetrievalSettings

_MAX_BODY: Final = 64 * 1024
_BODY_SCHEMA: Final = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": QueryRequest.model_json_schema()}},
    },
    "parameters": [
        {
            "name": "Cache-Control", "in": "header", "required": False, "schema": {"type": "string"},
            "description": "`no-cache` does not read the cache, `no-store` neither reads nor writes it.",
        },
        {
            "name": "X-Ragkube-Tenant", "in": "header", "required": False, "schema": {"type": "string"},
            "description": "Whose documents, where the credential leaves that open; without it `default`.",
        },
    ],
}  # fmt: skip


router = APIRouter(tags=["questions"])


@router.post(
    "/v1/query",
    summary="Ask a question",
    response_model=QueryResponse,
    responses=PROBLEMS,
    openapi_extra=_BODY_SCHEMA,
)
async def query(request: Request, runtime: AppRuntime, tenant: ReadTenant) -> Response:
    """Answer from the tenant's documents, with citations."""
    started = time.perf_counter()
    body = await _body(request, runtime.settings.server.request_timeout_seconds)
    control = {part.strip().lower() for part in request.headers.get("cache-control", "").split(",")}
    question = question_of(body, tenant, runtime.settings.retrieval, control)
    runtime.asked.note(question)
    answer = await runtime.answering.answer(question)
    request.state.facts["cache"] = answer.cache.status
    if answer.degraded:
        request.state.facts["degraded"] = answer.degraded
    elapsed = (time.perf_counter() - started) * 1000
    payload = answer.body(latency_ms=elapsed, trace_id=problems.trace_id(request))
    return Response(payload, media_type="application/json")


async def _body(request: Request, seconds: float) -> QueryRequest:
    too_large = BodyTooLargeError(f"The body of a query may have at most {_MAX_BODY:,} bytes.")
    raw = await read_body(request, _MAX_BODY, too_large, seconds)
    if not raw.strip():
        raise MalformedBodyError('The body is empty; send {"question": "…"}.')
    try:
        return QueryRequest.model_validate_json(raw)
    except ValidationError as error:
        problem: RagkubeError = problems.from_validation(error)
        raise problem from error


def question_of(
    body: QueryRequest, tenant: str, defaults: RetrievalSettings, control: AbstractSet[str] = frozenset()
) -> Question:
    """The question with what the request left open filled in; ``control``: directives of Cache-Control."""
    return Question(
        tenant=tenant,
        text=body.question,
        k=defaults.k if body.k is None else body.k,
        alpha=defaults.alpha if body.alpha is None else body.alpha,
        filters=body.filters,
        model=body.model,
        read_cache=not control & {"no-cache", "no-store"},
        write_cache="no-store" not in control,
        tags=tuple(body.tags),
    )
