"""The handler that one would write first: FastAPI, pydantic models, the cached answer from Redis with redis-py.

Run by ``bench.cache`` under uvicorn. It checks an API key; it has no limits, no metrics and no log.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from pydantic import BaseModel, Field
from redis.asyncio.cluster import RedisCluster


class Query(BaseModel):
    """The request."""

    question: str = Field(min_length=3, max_length=1000)
    k: int = Field(default=5, ge=1, le=20)
    alpha: float = Field(default=0.5, ge=0, le=1)
    filters: dict[str, str | int | float | bool] = Field(default_factory=dict)
    model: str | None = None


class Citation(BaseModel):
    """Part of the response."""

    document: str
    version: str
    chunk: int
    start: int
    end: int
    quote: str
    score: float


class Usage(BaseModel):
    """Part of the response."""

    input_tokens: int
    output_tokens: int


class Answer(BaseModel):
    """The response."""

    id: str
    answer: str
    answerer: str
    citations: list[Citation]
    cache: dict[str, Any]
    model: str | None
    usage: Usage
    cost_usd: float
    latency_ms: float
    trace_id: str
    degraded: list[str]


@asynccontextmanager
async def lifespan(application: FastAPI) -> AsyncIterator[None]:
    """One client for the process."""
    application.state.ready = READY
    application.state.key = hashlib.sha256(os.environ["BENCH_API_KEY"].encode()).hexdigest()
    application.state.redis = RedisCluster(host="127.0.0.1", port=int(os.environ["BENCH_REDIS_PORT"]))
    await application.state.redis.initialize()  # else the first questions do it all at once, and fail
    yield
    await application.state.redis.aclose()


READY = Path(os.environ.get("BENCH_ANSWER_FILE", os.devnull)).read_text()
app = FastAPI(lifespan=lifespan)


async def identity(request: Request, authorization: Annotated[str, Header()]) -> str:
    """Who asks."""
    key = authorization.removeprefix("Bearer ")
    if hashlib.sha256(key.encode()).hexdigest() != request.app.state.key:
        raise HTTPException(401, "unknown key")
    return "admin"


@app.post("/v1/query", response_model=Answer)
async def query(request: Request, body: Query, who: Annotated[str, Depends(identity)]) -> Answer:
    """Answer from Redis; on a miss the pipeline would run."""
    started = time.perf_counter()
    redis = request.app.state.redis
    digest = hashlib.sha256(json.dumps([who, body.model_dump()], sort_keys=True).encode()).hexdigest()
    cached = await redis.get(f"answer:{digest}")
    if cached is None:
        cached = request.app.state.ready
        await redis.set(f"answer:{digest}", cached, ex=86_400)
    answer = Answer.model_validate_json(cached)
    answer.latency_ms = (time.perf_counter() - started) * 1000
    return answer
