"""From passages to an answer: the language model, and the extractive answerer while it is away."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, Literal

from ragkube_api.domain import Generation, ModelCall, Passage, Usage
from ragkube_api.errors import FieldProblem, InvalidRequestError, LLMUnavailableError
from ragkube_api.ports import Answerer
from ragkube_api.telemetry import Telemetry

# Kept back from the model's time so that an extractive answer still fits into the request's deadline.
_FALLBACK_RESERVE: Final = 0.1


class Writer:
    """Writes answers with the answerer or, while that is away, with the fallback."""

    def __init__(
        self,
        answerer: Answerer,
        fallback: Answerer | None,
        *,
        timeout_seconds: float,
        telemetry: Telemetry,
    ) -> None:
        self._answerer = answerer
        self._fallback = fallback
        self._timeout = timeout_seconds
        self._telemetry = telemetry
        for model in filter(None, {answerer.default_model, *answerer.allowed_models}):
            telemetry.expect_model(model)

    @property
    def revision(self) -> str:
        """Changes with the prompt and the method."""
        return self._answerer.revision

    def model(self, requested: str | None) -> str | None:
        """The model for a request; raises ``InvalidRequestError`` for one that is not allowed."""
        default, allowed = self._answerer.default_model, self._answerer.allowed_models
        if requested is None or requested == default or requested in allowed:
            return requested or default
        choice = f"choose one of: {', '.join(sorted(allowed))}" if allowed else "no model can be chosen here"
        problem = FieldProblem("model", f"not available; {choice}")
        raise InvalidRequestError(f"model: {problem.message}", problems=(problem,))

    async def write(
        self, text: str, passages: Sequence[Passage], *, model: str | None, ends: float
    ) -> tuple[Generation, tuple[str, ...]]:
        """The answer and what was missing; ``ends`` is the moment (``time.monotonic``) it must be there."""
        left = ends - time.monotonic()
        if self._fallback is None:
            return await self._ask(self._answerer, text, passages, model, left), ()
        try:
            reserve = self._timeout * _FALLBACK_RESERVE
            return await self._ask(self._answerer, text, passages, model, left - reserve), ()
        except LLMUnavailableError as error:
            self._telemetry.log.warning(
                "llm_call", outcome="unavailable", cause=str(error.__cause__ or error)
            )
        # the fallback has no models
        left = ends - time.monotonic()
        return await self._ask(self._fallback, text, passages, None, left), ("llm-unavailable",)

    async def _ask(
        self, answerer: Answerer, text: str, passages: Sequence[Passage], model: str | None, seconds: float
    ) -> Generation:
        started = time.perf_counter()
        try:
            generation = await answerer.answer(
                text, passages, model=model, timeout_seconds=max(seconds, 0.001)
            )
        except LLMUnavailableError:
            seconds = time.perf_counter() - started
            self._telemetry.model_called(ModelCall(model or "", "unavailable", Usage(), 0.0, seconds))
            raise
        if generation.answerer == "llm":
            self._record(generation, time.perf_counter() - started)
        return generation

    def _record(self, generation: Generation, seconds: float) -> None:
        outcome: Literal["ok", "incomplete"] = "ok" if generation.complete else "incomplete"
        call = ModelCall(generation.model or "", outcome, generation.usage, generation.cost_usd, seconds)
        self._telemetry.model_called(call)
