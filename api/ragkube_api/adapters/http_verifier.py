"""A cross-encoder behind HTTP: ``/rerank`` or ``/predict`` as Text Embeddings Inference serves them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import structlog

_TIMEOUT_SECONDS = 2.0
_log = structlog.get_logger(__name__)


class HttpVerifier:
    """A ``Verifier``. A URL that ends in ``/predict`` is asked in that shape, any other one as ``/rerank``."""

    def __init__(self, url: str, threshold: float, client: httpx2.AsyncClient) -> None:
        self._predict = url.rstrip("/").endswith("/predict")
        plain = url.rstrip("/")
        self._url = plain if plain.endswith(("/predict", "/rerank")) else f"{plain}/rerank"
        self._threshold = threshold
        self._client = client

    async def same(self, asked: str, cached: str) -> bool:
        """Whether its score reaches the threshold; False when it does not answer as it should."""
        body = (
            {"inputs": [[asked, cached]], "raw_scores": False}
            if self._predict
            else {"query": asked, "texts": [cached], "raw_scores": False}
        )
        try:
            response = await self._client.post(self._url, json=body)
            score = self._score(response.json()) if response.is_success else None
        except (httpx2.HTTPError, ValueError) as error:
            _log.warning("verifier.unavailable", detail=type(error).__name__)
            return False
        if score is None:
            _log.warning("verifier.unavailable", detail=f"status {response.status_code} or another shape")
            return False
        return score >= self._threshold

    def _score(self, document: Any) -> float | None:
        """``[{index, score}]``, or ``[[{label, score}]]``: there the score of the first label."""
        while isinstance(document, list) and document:
            document = document[0]
        score = document.get("score") if isinstance(document, dict) else None
        return float(score) if isinstance(score, int | float) and 0 <= score <= 1 else None


@asynccontextmanager
async def open_http_verifier(url: str, threshold: float) -> AsyncIterator[HttpVerifier]:
    """With a client of its own."""
    async with httpx2.AsyncClient(timeout=_TIMEOUT_SECONDS) as client:
        yield HttpVerifier(url, threshold, client)
