"""A language model as ``Verifier``: both questions in one short call, one word back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, Literal

import anthropic
import httpx2
import structlog
from anthropic.types import Message, TextBlock

from ragkube_api import model_time
from ragkube_api.adapters.anthropic_answerer import Clients, NoMessageError, checked, cost_of, input_tokens
from ragkube_api.domain import ModelCall, Usage
from ragkube_api.errors import LLMUnavailableError
from ragkube_api.settings import AnthropicLLM
from ragkube_api.text import prompts

_TIMEOUT_SECONDS: Final = 5.0
_MAX_TOKENS: Final = 8
_FAILURES: Final = (
    anthropic.AnthropicError,
    httpx2.HTTPError,
    NoMessageError,
    LLMUnavailableError,
    TimeoutError,
)
_log = structlog.get_logger(__name__)


class ModelVerifier:
    """Asked once, never again: what takes longer than an answer of its own spares nothing. ``called`` counts each call."""

    def __init__(
        self,
        settings: AnthropicLLM,
        model: str,
        clients: Clients,
        called: Callable[[ModelCall], None],
        timeout_seconds: float,
    ) -> None:
        self._timeout = timeout_seconds
        self._price = settings.prices.get(model)
        self._model = model
        self._clients = clients
        self._called = called

    async def same(self, asked: str, cached: str) -> bool:
        """Whether the model says so, in exactly that word; False for anything else."""
        began = time.perf_counter()
        try:
            with model_time.waiting():
                async with asyncio.timeout(self._timeout):
                    message = await self._send(asked, cached)
        except _FAILURES as error:
            _log.warning("verifier.unavailable", detail=type(error).__name__)
            self._called(ModelCall(self._model, "unavailable", Usage(), 0.0, time.perf_counter() - began))
            return False
        verdict = prompts.verdict("".join(b.text for b in message.content if isinstance(b, TextBlock)))
        usage = Usage(input_tokens(message), message.usage.output_tokens)
        outcome: Literal["ok", "incomplete"] = "incomplete" if verdict is None else "ok"
        cost = cost_of(usage, self._price)
        self._called(ModelCall(self._model, outcome, usage, cost, time.perf_counter() - began))
        if verdict is None:
            _log.warning("verifier.unavailable", detail="no verdict")
        return verdict is True

    async def _send(self, asked: str, cached: str) -> Message:
        client = await self._clients.current()
        try:
            message: Any = await client.messages.create(
                model=self._model, max_tokens=_MAX_TOKENS, system=prompts.VERIFIER, timeout=self._timeout,
                messages=[{"role": "user", "content": prompts.two_questions(asked, cached)}],
            )  # fmt: skip
        except ValueError as error:  # a body that is no JSON
            raise NoMessageError from error
        return checked(message)


@asynccontextmanager
async def open_model_verifier(
    settings: AnthropicLLM,
    model: str,
    called: Callable[[ModelCall], None],
    *,
    timeout_seconds: float = _TIMEOUT_SECONDS,
) -> AsyncIterator[ModelVerifier]:
    """With connections of its own."""
    clients = Clients(settings)
    try:
        yield ModelVerifier(settings, model, clients, called, timeout_seconds)
    finally:
        await clients.close()
