"""Answers by Claude, or by any server that speaks the Messages API, with citations of exact spans."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import httpx2
import stamina
import structlog
from anthropic.types import DocumentBlockParam, Message, MessageParam, TextBlock, TextBlockParam

from ragkube_api import go_ahead, model_time
from ragkube_api.adapters import retry_after
from ragkube_api.domain import Citation, Generation, Passage, Usage
from ragkube_api.errors import LLMUnavailableError
from ragkube_api.settings import AnthropicLLM, ModelPrice
from ragkube_api.text import prompts

log = structlog.get_logger(__name__)

_DEFAULT_URL = "https://api.anthropic.com"
_PING_SECONDS = 5.0
_LEAST_ATTEMPT_SECONDS = 0.5
_RETRIED = frozenset({408, 409, 425, 429})
_REFUSALS = {
    400: "The language model server refused the request.",
    401: "The language model server refused the API key.",
    403: "The language model server does not allow this API key to use the model.",
    404: "The language model server does not know the model.",
    413: "The question and its passages are too large for the language model.",
}
_DECLINED = "The language model declined to answer this question."


class NoMessageError(Exception):
    """The server's answer is no message."""


@asynccontextmanager
async def open_anthropic_answerer(settings: AnthropicLLM) -> AsyncIterator[AnthropicAnswerer]:
    """An answerer with its connections; an unreachable server shows at the first call, not here."""
    clients = Clients(settings)
    try:
        yield AnthropicAnswerer(settings, clients)
    finally:
        await clients.close()


class AnthropicAnswerer:
    """An ``Answerer`` that sends passages as citable documents."""

    def __init__(self, settings: AnthropicLLM, clients: Clients) -> None:
        self._settings = settings
        self._clients = clients

    @property
    def default_model(self) -> str | None:
        """The model used when the request names none."""
        return self._settings.model

    @property
    def allowed_models(self) -> frozenset[str]:
        """What a request may name."""
        return frozenset({self._settings.model, *self._settings.allowed_models})

    @property
    def revision(self) -> str:
        """Changes with the prompt and with what shapes an answer."""
        return f"messages-1/{prompts.REVISION}/{self._settings.max_tokens}"

    async def answer(
        self, question: str, passages: Sequence[Passage], *, model: str | None, timeout_seconds: float
    ) -> Generation:
        """One answer within ``timeout_seconds`` (at most the configured time), retries included.

        Raises:
            LLMUnavailableError: the server is away, overloaded, too slow, or refuses.
        """
        chosen = model or self._settings.model
        if not passages:
            return _generation(prompts.UNKNOWN, [], chosen, Usage(), 0.0, complete=True)
        budget = min(timeout_seconds, self._settings.timeout_seconds)
        began = time.monotonic()
        try:
            with model_time.waiting():
                async with asyncio.timeout(budget):
                    message = await self._ask(question, passages, chosen, began + budget)
        except (anthropic.AnthropicError, NoMessageError, httpx2.HTTPError, TimeoutError) as error:
            raise _unavailable(error, chosen) from error
        log.info(
            "llm.called", model=chosen, seconds=round(time.monotonic() - began, 3), stop=message.stop_reason,
            input_tokens=message.usage.input_tokens, output_tokens=message.usage.output_tokens,
        )  # fmt: skip
        return self._generation(message, passages, chosen)

    async def ping(self) -> None:
        """Ask for the list of models: costs nothing; a server without such a list counts as alive."""
        client = await self._clients.current()
        try:
            await client.models.list(limit=1, timeout=_PING_SECONDS)
        except anthropic.APIStatusError as error:
            if error.status_code >= 500 or error.status_code in {401, 403}:
                raise _unavailable(error, self._settings.model) from error
        except (anthropic.AnthropicError, httpx2.HTTPError) as error:
            raise _unavailable(error, self._settings.model) from error

    async def _ask(self, question: str, passages: Sequence[Passage], model: str, deadline: float) -> Message:
        request = _request(question, passages)

        def pause(error: Exception) -> bool | float:
            return _pause(error, deadline - time.monotonic())

        attempts = stamina.retry_context(
            on=pause, attempts=self._settings.max_retries + 1, timeout=None, wait_initial=0.25, wait_max=8
        )
        async for attempt in attempts:
            with attempt:
                return await self._send(request, model, deadline - time.monotonic())
        raise AssertionError("unreachable")

    async def _send(self, request: list[MessageParam], model: str, seconds: float) -> Message:
        client = await self._clients.current()
        try:
            message: Any = await client.messages.create(
                model=model, max_tokens=self._settings.max_tokens, system=prompts.SYSTEM, messages=request,
                timeout=max(0.05, seconds),
            )  # fmt: skip
        except ValueError as error:  # a body that is no JSON
            raise NoMessageError from error
        return checked(message)

    def _generation(self, message: Message, passages: Sequence[Passage], model: str) -> Generation:
        blocks = [block for block in message.content if isinstance(block, TextBlock)]
        text = "".join(block.text for block in blocks).strip()
        usage = Usage(input_tokens(message), message.usage.output_tokens)
        cost = cost_of(usage, self._settings.prices.get(model))
        complete = message.stop_reason == "end_turn" and bool(text)
        if not text:
            text = _DECLINED if message.stop_reason == "refusal" else prompts.UNKNOWN
        return _generation(text, _citations(blocks, passages), model, usage, cost, complete=complete)


class Clients:
    """The SDK's client for the key that stands in the file now."""

    def __init__(self, settings: AnthropicLLM) -> None:
        self._settings = settings
        self._http = anthropic.DefaultAsyncHttpxClient(event_hooks={"request": [_when_it_is_ours]})
        self._client: anthropic.AsyncAnthropic | None = None
        self._key: str | None = None

    async def current(self) -> anthropic.AsyncAnthropic:
        """Reads the key file (a few bytes) each time, so that a new key needs no restart."""
        key = await self._read_key()
        if self._client is None or key != self._key:
            self._key = key
            self._client = anthropic.AsyncAnthropic(
                api_key=key, base_url=self._settings.base_url or _DEFAULT_URL, max_retries=0,
                http_client=self._http, open_telemetry=False,
            )  # fmt: skip
        return self._client

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def _read_key(self) -> str:
        file = self._settings.api_key_file
        if file is None:
            return (
                "none"  # a local server asks for none, and the SDK must not look into the environment for one
            )
        try:
            return (await asyncio.to_thread(file.read_text)).strip()
        except OSError as error:
            log.error("llm.no_key", file=str(file), error=error.strerror)  # noqa: TRY400  no traceback needed
            raise LLMUnavailableError("The language model's API key cannot be read.") from error


def checked(message: Any) -> Message:
    """The SDK builds what it gets without checking it; raises ``NoMessageError``."""
    content, usage = getattr(message, "content", None), getattr(message, "usage", None)
    if isinstance(message, Message) and isinstance(content, list) and usage is not None:
        return message
    raise NoMessageError


async def _when_it_is_ours(_request: httpx2.Request) -> None:
    """The SDK takes its time to build a request: only sending it waits."""
    await go_ahead.given()


def _request(question: str, passages: Sequence[Passage]) -> list[MessageParam]:
    content: list[DocumentBlockParam | TextBlockParam] = [_block(passage) for passage in passages]
    content.append({"type": "text", "text": prompts.question_text(question)})
    return [{"role": "user", "content": content}]


def _block(passage: Passage) -> DocumentBlockParam:
    return {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": passage.chunk.text},
        "title": (passage.title or passage.document)[:255],
        "context": prompts.passage_context(passage),
        "citations": {"enabled": True},
    }


def _citations(blocks: Sequence[TextBlock], passages: Sequence[Passage]) -> list[Citation]:
    found: dict[tuple[str, int, int], Citation] = {}
    for block in blocks:
        for cited in block.citations or []:
            if cited.type != "char_location" or not 0 <= cited.document_index < len(passages):
                continue
            citation = _citation(
                passages[cited.document_index], cited.start_char_index, cited.end_char_index, cited.cited_text
            )
            if citation is not None:
                found.setdefault((citation.document, citation.start, citation.end), citation)
    return list(found.values())


def _citation(passage: Passage, start: int, end: int, quote: str) -> Citation | None:
    """The span as the server gives it; where its text is another one, where the quoted text really stands."""
    text = passage.chunk.text
    if text[start:end] != quote or not 0 <= start < end:
        start = text.find(quote) if quote else -1
        end = start + len(quote)
    if start < 0:
        log.warning("llm.citation_dropped", source=prompts.passage_source(passage))
        return None
    return Citation(
        document=passage.document, version=passage.version, chunk=passage.chunk.ordinal,
        start=passage.chunk.start + start, end=passage.chunk.start + end, quote=text[start:end],
        score=passage.score,
    )  # fmt: skip


def _generation(
    text: str, citations: Sequence[Citation], model: str, usage: Usage, cost: float, *, complete: bool
) -> Generation:
    return Generation(
        text=text,
        citations=citations,
        answerer="llm",
        model=model,
        usage=usage,
        cost_usd=cost,
        complete=complete,
    )


def input_tokens(message: Message) -> int:
    """Cached ones too."""
    usage = message.usage
    return (
        usage.input_tokens + (usage.cache_creation_input_tokens or 0) + (usage.cache_read_input_tokens or 0)
    )


def cost_of(usage: Usage, price: ModelPrice | None) -> float:
    """US dollars; 0 for a model without a price."""
    if price is None:
        return 0.0
    dollars = usage.input_tokens * price.input_per_mtok + usage.output_tokens * price.output_per_mtok
    return dollars / 1_000_000


def _pause(error: Exception, left: float) -> bool | float:
    """Whether to try again: a number of seconds when the server said when, else True (back-off with jitter)."""
    if isinstance(error, anthropic.APIStatusError):
        if error.status_code < 500 and error.status_code not in _RETRIED:
            return False
    elif not isinstance(error, anthropic.APIConnectionError | NoMessageError | httpx2.TransportError):
        return False
    asked = _retry_after(error)
    if left < max(asked or 0, 0) + _LEAST_ATTEMPT_SECONDS:
        return False
    return True if asked is None else asked


def _retry_after(error: Exception) -> float | None:
    if not isinstance(error, anthropic.APIStatusError):
        return None
    return retry_after.seconds_of(error.response.headers.get("retry-after", ""))


def _unavailable(error: Exception, model: str) -> LLMUnavailableError:
    status = error.status_code if isinstance(error, anthropic.APIStatusError) else None
    log.warning("llm.failed", model=model, status=status, error=type(error).__name__, detail=str(error)[:500])
    if status in _REFUSALS:
        return LLMUnavailableError(_REFUSALS[status])
    if status in {429, 529}:
        return LLMUnavailableError("The language model is overloaded.", retry_after=_retry_after(error) or 5)
    if isinstance(error, TimeoutError | anthropic.APITimeoutError):
        return LLMUnavailableError("The language model did not answer in time.", retry_after=5)
    return LLMUnavailableError("The language model does not answer.", retry_after=5)
