"""Embeddings from any server with an OpenAI-compatible ``/v1/embeddings``: TEI, vLLM, Ollama, gateways."""

from __future__ import annotations

import asyncio
import random
from asyncio import sleep
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import numpy as np
import structlog

from ragkube_api.adapters import retry_after
from ragkube_api.domain import Vectors
from ragkube_api.errors import EmbedderUnavailableError
from ragkube_api.settings import OpenAIEmbedding

_ATTEMPTS = 4
_FIRST_WAIT, _LONGEST_WAIT = 0.25, 10.0
_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_AT_ONCE = 4
_log = structlog.get_logger(__name__)


class OpenAIEmbedder:
    """Embeds in batches, a few at a time; waits and tries again when the server is busy."""

    def __init__(self, settings: OpenAIEmbedding, client: httpx2.AsyncClient) -> None:
        self._settings = settings
        self._client = client
        self._url = _embeddings_url(settings.url)
        self._at_once = asyncio.Semaphore(_AT_ONCE)

    @property
    def name(self) -> str:
        """Model and dimensions."""
        return f"openai/{self._settings.model}/{self._settings.dimensions}"

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        return self._settings.dimensions

    async def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """One row a text.

        Raises:
            EmbedderUnavailableError: the server is away, refuses, or answers with something else than vectors.
        """
        size = self._settings.batch_size
        batches = [list(texts[start : start + size]) for start in range(0, len(texts), size)]
        parts: list[Vectors] = []
        for start in range(0, len(batches), _AT_ONCE):
            parts += await asyncio.gather(*map(self._batch, batches[start : start + _AT_ONCE]))
        return np.concatenate(parts) if parts else np.zeros((0, self.dimensions), dtype=np.float32)

    async def embed_query(self, text: str) -> Vectors:
        """Shape (dimensions,)."""
        row: Vectors = (await self._batch([text]))[0]
        return row

    async def ping(self) -> None:
        """Raise when the server does not answer; costs nothing."""
        try:
            response = await self._client.get(
                self._url.removesuffix("/embeddings") + "/models", headers=self._headers()
            )
        except httpx2.HTTPError as error:
            raise EmbedderUnavailableError("the embedding server cannot be reached") from error
        if response.status_code >= 500:
            raise EmbedderUnavailableError(f"the embedding server answers {response.status_code}")

    async def _batch(self, texts: list[str]) -> Vectors:
        body = {"model": self._settings.model, "input": texts, "encoding_format": "float"}
        async with self._at_once:
            response = await self._post(body)
        return self._vectors(response, len(texts))

    async def _post(self, body: dict[str, Any]) -> httpx2.Response:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                response = await self._client.post(self._url, json=body, headers=self._headers())
            except httpx2.HTTPError as error:
                problem, cause, wait = "the embedding server cannot be reached", type(error).__name__, None
            else:
                if response.is_success:
                    return response
                problem, cause = f"the embedding server answers {response.status_code}", response.text[:200]
                wait = retry_after.seconds_of(response.headers.get("retry-after", ""))
                if response.status_code not in _RETRIED:
                    _log.warning("embedder.refused", status=response.status_code, detail=cause)
                    raise EmbedderUnavailableError(problem)
            if attempt == _ATTEMPTS or (wait or 0) > _LONGEST_WAIT:
                _log.warning("embedder.unavailable", detail=cause, attempts=attempt)
                raise EmbedderUnavailableError(problem, retry_after=wait)
            await sleep(_pause(attempt, wait))
        raise AssertionError("unreachable")

    def _headers(self) -> dict[str, str]:
        if self._settings.api_key_file is None:
            return {}
        try:
            key = (
                self._settings.api_key_file.read_text().strip()
            )  # a few bytes; read again, so that it may rotate
        except OSError as error:
            raise EmbedderUnavailableError("the embedding server's API key cannot be read") from error
        return {"Authorization": f"Bearer {key}"}

    def _vectors(self, response: httpx2.Response, count: int) -> Vectors:
        try:
            data = sorted(response.json()["data"], key=lambda item: item["index"])
            vectors: Vectors = np.array([item["embedding"] for item in data], dtype=np.float32)
        except (ValueError, KeyError, TypeError) as error:
            raise EmbedderUnavailableError("the embedding server's answer holds no vectors") from error
        if vectors.shape != (count, self.dimensions) or not np.isfinite(vectors).all():
            got = vectors.shape[1] if vectors.ndim == 2 else 0
            msg = f"the embedding server gives {len(vectors)} vectors of {got} dimensions; expected {count} of {self.dimensions}"
            raise EmbedderUnavailableError(msg)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        np.divide(vectors, norms, out=vectors, where=norms > 0)
        return vectors


def _embeddings_url(url: str) -> str:
    url = url.rstrip("/")
    if url.endswith("/embeddings"):
        return url
    return f"{url}/embeddings" if url.endswith("/v1") else f"{url}/v1/embeddings"


def _pause(attempt: int, wait: float | None) -> float:
    """What the server asked for, else doubling; up to half more, so that clients do not come back together."""
    base = wait if wait is not None else min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (attempt - 1))
    return base * (1 + random.random() / 2)  # noqa: S311  no secret


@asynccontextmanager
async def open_openai_embedder(settings: OpenAIEmbedding) -> AsyncIterator[OpenAIEmbedder]:
    """The embedder with its connections; an unreachable server shows at the first call, not here."""
    timeout = httpx2.Timeout(settings.timeout_seconds, connect=min(5.0, settings.timeout_seconds))
    async with httpx2.AsyncClient(timeout=timeout) as client:
        yield OpenAIEmbedder(settings, client)
