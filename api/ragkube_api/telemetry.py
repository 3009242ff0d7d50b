"""Metrics and logs: the one place that names them.

Metrics live in a registry of their own per application. Logs are events with fields, one JSON line each;
``EVENTS`` lists every event the data plane writes.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import random
import re
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import product
from typing import Any, Final, Protocol, TextIO, cast

import orjson
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from structlog.typing import FilteringBoundLogger, Processor

from ragkube_api.domain import ModelCall
from ragkube_api.log_output import LogOutput
from ragkube_api.loop_metrics import LoopCounter, LoopHistogram
from ragkube_api.settings import LogSettings

EVENTS: Final = {
    "started": "the process serves (url, store, cache, embedder, llm)",
    "stopping": "a signal asked the process to end (signal, drain_seconds)",
    "stopped": "the process has ended",
    "request": "one HTTP request (method, route, path, status, latency_ms, tenant, cache; slow=true above server.slow_request_seconds)",
    "log_lines_dropped": "standard output took no more lines for a while (lines)",
    "request_refused": "a request failed on purpose (code, status, cause)",
    "request_failed": "a request failed by a fault of ours (exception)",
    "api_keys_loaded": "the file of hashed API keys was read (usable)",
    "api_keys_unusable": "the file of hashed API keys, or lines of it, cannot be used (usable, unusable, detail)",
    "llm_call": "one call of a language model (model, outcome, input_tokens, output_tokens, cost_usd, latency_ms)",
    "cache_cleared": "cached values were dropped on request (tenant, by, removed, kind, tag, document, question)",
    "cache_answer_disowned": "an answer was removed for good on request (tenant, answer, by)",
    "asked_not_counted": "counting of asked questions ended by a fault (exception)",
    "counts_not_shared": "handing over hits, misses and errors to the sums of the deployment ended by a fault (exception)",
    "cache_unavailable": "the cache could not be reached; the request went on without it",
    "cache_entry_corrupt": "a cached value could not be read and counts as a miss",
    "cache_refresh_failed": "a cached answer could not be made anew in the background (code)",
    "semantic_serving": "a tenant's bound came within the budget: paraphrases are served (tenant, bound)",
    "semantic_budget_spent": "a tenant's bound left the budget: exact hits only (tenant, bound)",
    "semantic_audit_failed": "a paraphrase hit could not be audited (code)",
    "verifier.unavailable": "the verifier did not answer; the paraphrase was not served (detail)",
    "embedder_unavailable": "a question could not be embedded; it was searched by words only",
    "document_indexed": "a document was added or replaced (tenant, document, version, chunks, latency_ms)",
    "document_deleted": "a document was removed (tenant, document)",
    "source_synced": "one pass over a source has ended (source, total, indexed, unchanged, deleted, failed)",
    "source_file_failed": "a file of a source could not be indexed (source, path, code, detail)",
    "source_failed": "a pass over a source was given up and will be repeated (source, detail)",
    "source_board_unavailable": "the progress of a source could not be published",
    "store.documents_of_another_embedder": "documents that only words find until they are put again (documents)",
    "store.write_failed": "the embedded store could not write (error)",
    "store.swept": "chunks that a crashed write left behind were removed (versions)",
    "weaviate.failed": "a call of Weaviate failed (error, detail)",
    "weaviate.other_schema": "a collection was made for other settings (collection, found)",
    "redis.away": "the cache could not be reached and is left alone for a moment (detail)",
    "redis.failed": "a call of Redis failed (error, detail)",
    "embedder.refused": "the embedding server refused a request (status, detail)",
    "embedder.unavailable": "the embedding server did not answer after retries (detail, attempts)",
    "llm.called": "a response of the model's server (model, seconds, stop, input_tokens, output_tokens)",
    "llm.failed": "a call of the model's server failed (model, status, error, detail)",
    "llm.no_key": "the model's API key cannot be read (file, error)",
    "llm.citation_dropped": "the model cited a span that is not in the passage (source)",
}
"""Event name → what it says and its fields. ``trace_id`` stands in every line that belongs to a request."""

_LOGGED = "(logged)"
# from an answer out of the process' own memory (measured: about 0.1 ms) to a slow model (20 s and more)
_LATENCY = (
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60,
)  # fmt: skip
_MODEL_LATENCY = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120)
_LEVELS = ("l1", "redis")
_FAILURES = ("500", "502", "503", "504")
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")


class RequestLine(Protocol):
    """Writes the line of one request; ``quiet`` ones (probes) only when the level is debug."""

    def __call__(self, fields: Mapping[str, Any], *, quiet: bool) -> None: ...


class Telemetry:
    """Counters of one application and the logger it writes to."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.registry = registry
        self.log: FilteringBoundLogger = structlog.get_logger("ragkube_api")
        self.request_line: RequestLine = self._request_line
        self._declare_requests(registry)
        self._declare_cache(registry)
        self._declare_semantic(registry)
        self._declare_models(registry)
        self._declare_documents(registry)
        self._start_at_zero()
        ProcessCollector(registry=registry)

    def _declare_requests(self, registry: CollectorRegistry) -> None:
        self.requests = LoopCounter(
            "rag_requests_total", "HTTP requests.", ["route", "method", "status"], registry=registry
        )
        self.request_latency = LoopHistogram(
            "rag_request_latency_seconds", "Time to the end of the response.", ["route"],
            buckets=_LATENCY, registry=registry,
        )  # fmt: skip
        self.local_latency = LoopHistogram(
            "rag_local_latency_seconds", "Time of a question without waiting for the model.", [],
            buckets=_LATENCY, registry=registry,
        )  # fmt: skip
        self.in_flight = Gauge(
            "rag_requests_in_flight", "Requests being answered, probes not counted.", registry=registry
        )
        self.limit = Gauge(
            "rag_requests_limit", "Requests that this process takes at a time.", registry=registry
        )
        self.rate_limited = Counter(
            "rag_rate_limited_total", "Requests refused because their client asked too much.", ["tier"],
            registry=registry,
        )  # fmt: skip

    def _declare_cache(self, registry: CollectorRegistry) -> None:
        self.cache_hits = LoopCounter(
            "rag_cache_hits_total", "Values from the cache.", ["level", "kind"], registry=registry
        )
        self.cache_misses = LoopCounter(
            "rag_cache_misses_total", "Look-ups that found no valid value.", ["kind"], registry=registry
        )
        self.cache_errors = Counter(
            "rag_cache_errors_total",
            "Cache troubles: unavailable, corrupt (entry unreadable), oversized (answer not stored).",
            ["reason"], registry=registry,
        )  # fmt: skip
        self.cache_validations = LoopCounter(
            "rag_cache_validations_total",
            "Cached answers from before a write whose passages were retrieved again: held, changed.",
            ["outcome"], registry=registry,
        )  # fmt: skip
        self.cache_flights = LoopCounter(
            "rag_cache_flights_total",
            "Answers that were not in the cache: led (made here), joined (another asker was making it).",
            ["role"], registry=registry,
        )  # fmt: skip
        self.cache_refreshes = Counter(
            "rag_cache_refreshes_total",
            "Cached answers made anew in the background: early (before the end of the TTL), stale (after it).",
            ["reason"], registry=registry,
        )  # fmt: skip

    def _declare_semantic(self, registry: CollectorRegistry) -> None:
        self.semantic_proposals = Counter(
            "rag_semantic_proposals_total",
            "Cached answers that passed every gate for a paraphrase: served, recalled (judged before), withheld (no budget);"
            " loading: none was looked for, as the cached questions were still being read.",
            ["outcome"], registry=registry,
        )  # fmt: skip
        self.semantic_refusals = Counter(
            "rag_semantic_refusals_total", "Candidates that a gate refused, by the first that did.", ["gate"],
            registry=registry,
        )  # fmt: skip
        self.semantic_audits = Counter(
            "rag_semantic_audits_total", "Paraphrase hits compared with the question's own answer: right, wrong.",
            ["tenant", "outcome"], registry=registry,
        )  # fmt: skip
        self.semantic_bound = Gauge(
            "rag_semantic_error_bound", "Upper bound on the share of wrong paraphrase hits, at every moment valid.",
            ["tenant"], registry=registry,
        )  # fmt: skip
        self.semantic_serving = Gauge(
            "rag_semantic_serving", "1 while the tenant's bound is within its budget and paraphrase hits are served.",
            ["tenant"], registry=registry,
        )  # fmt: skip

    def _declare_models(self, registry: CollectorRegistry) -> None:
        self.llm_calls = Counter(
            "rag_llm_calls_total", "Calls of a language model.", ["model", "outcome"], registry=registry
        )
        self.llm_tokens = Counter(
            "rag_llm_tokens_total", "Tokens, as the provider counted them.", ["model", "direction"],
            registry=registry,
        )  # fmt: skip
        self.llm_cost = Counter(
            "rag_llm_cost_dollars", "Cost of the calls in US dollars.", ["model"], registry=registry
        )
        self.llm_latency = Histogram(
            "rag_llm_latency_seconds", "Time of a call of a language model, failed ones too.", ["model"],
            buckets=_MODEL_LATENCY, registry=registry,
        )  # fmt: skip
        self.degraded = Counter(
            "rag_degraded_answers_total", "Answers given without a part that was away.", ["reason"],
            registry=registry,
        )  # fmt: skip

    def _declare_documents(self, registry: CollectorRegistry) -> None:
        self.documents_indexed = Counter(
            "rag_documents_indexed_total",
            "Writes of documents: created, replaced, unchanged, deleted, failed.",
            ["outcome"], registry=registry,
        )  # fmt: skip
        self.retrieval = Histogram(
            "rag_retrieval_seconds", "Embedding of the question and search.", buckets=_LATENCY,
            registry=registry,
        )  # fmt: skip
        self.dependency_up = Gauge(
            "rag_dependency_up", "1 when the dependency answers.", ["dependency"], registry=registry
        )
        self.api_keys = Gauge(
            "rag_api_keys", "Hashed API keys in the keys file, and lines that are wrong.", ["state"],
            registry=registry,
        )  # fmt: skip

    def _start_at_zero(self) -> None:
        """``rate()`` sees no increase of a series that begins at 1: the first failure would be missed."""
        for status in ("200", *_FAILURES):
            self.requests.labels("/v1/query", "POST", status)
        for kind in ("exact", "embedding", "retrieval", "document"):
            self.cache_misses.labels(kind)
        for level, kind in product(_LEVELS, ("exact", "semantic", "embedding", "retrieval", "document")):
            self.cache_hits.labels(level, kind)
        for counter, values in (
            (self.cache_errors, ("unavailable", "corrupt", "oversized")),
            (self.cache_validations, ("held", "changed")),
            (self.cache_flights, ("led", "joined")),
            (self.cache_refreshes, ("early", "stale")),
            (self.semantic_proposals, ("served", "recalled", "withheld", "loading")),
            (self.degraded, ("llm-unavailable", "cache-unavailable", "embedder-unavailable")),
            (self.documents_indexed, ("created", "replaced", "unchanged", "deleted", "failed")),
        ):
            for value in values:
                counter.labels(value)

    def expect_model(self, model: str) -> None:
        """Calls of this model will be counted: its series begin at zero."""
        for outcome in ("ok", "incomplete", "unavailable"):
            self.llm_calls.labels(model, outcome)
        for direction in ("input", "output"):
            self.llm_tokens.labels(model, direction)
        self.llm_cost.labels(model)
        self.llm_latency.labels(model)

    def model_called(self, call: ModelCall) -> None:
        """Count one call, and write its line unless it failed: who called says so."""
        self.llm_calls.labels(call.model, call.outcome).inc()
        self.llm_latency.labels(call.model).observe(call.seconds)
        if call.outcome == "unavailable":
            return
        self.llm_tokens.labels(call.model, "input").inc(call.usage.input_tokens)
        self.llm_tokens.labels(call.model, "output").inc(call.usage.output_tokens)
        self.llm_cost.labels(call.model).inc(call.cost_usd)
        self.log.info(
            "llm_call", model=call.model, outcome=call.outcome, input_tokens=call.usage.input_tokens,
            output_tokens=call.usage.output_tokens, cost_usd=call.cost_usd, latency_ms=round(call.seconds * 1000, 1),
        )  # fmt: skip

    def _request_line(self, fields: Mapping[str, Any], *, quiet: bool) -> None:
        write = self.log.debug if quiet else self.log.info
        write("request", **fields)


def new_trace_id() -> str:
    """32 hexadecimal digits, as in W3C Trace Context."""
    # unique, not secret: no system call
    return f"{random.getrandbits(128):032x}"


def trace_id_of(traceparent: str | None) -> str:
    """The trace the caller is in, or a new one when it names none (or not a valid one)."""
    if traceparent is None:
        return new_trace_id()
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None or not match[1].strip("0") or not match[2].strip("0"):
        return new_trace_id()
    if traceparent.startswith("00-") and match[3]:
        return new_trace_id()
    return match[1]


def configure_logging(settings: LogSettings) -> LogOutput:
    """Send our events and the libraries' warnings to standard output. Entry points call it, once, and close it."""
    output = LogOutput(sys.stdout.fileno(), _dropped_line)
    atexit.register(output.close)  # what was logged last is out, however the process ends
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_json)]
        if settings.format == "json"
        else [_text_renderer()]
    )
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", output)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(cast("TextIO", output))
    handler.addFilter(_is_news)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
    return output


def request_lines(settings: LogSettings, output: LogOutput) -> RequestLine | None:
    """Writes the very lines that the logger would, at a fifth of its cost; None where they are text for people."""
    if settings.format != "json":
        return None
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    second, told = 0, ""

    def write(fields: Mapping[str, Any], *, quiet: bool) -> None:
        nonlocal second, told
        if level > (logging.DEBUG if quiet else logging.INFO):
            return
        now = time.time_ns() // 1000
        if now // 1_000_000 != second:
            second = now // 1_000_000
            told = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        stamp = f"{told}.{now % 1_000_000:06d}Z"
        name = "debug" if quiet else "info"
        output.write(_json({**fields, "event": "request", "level": name, "timestamp": stamp}) + "\n")

    return write


def _dropped_line(lines: int) -> str:
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    fields = {"lines": lines, "event": "log_lines_dropped", "level": "warning", "timestamp": now}
    return _json(fields) + "\n"


def mark_logged(error: BaseException) -> None:
    """Say that an exception is in the log, so that the server does not write it down again."""
    error.add_note(_LOGGED)


def _is_news(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, asyncio.CancelledError):
        return False  # a request that was given up when the process had to end
    return _LOGGED not in getattr(error, "__notes__", ())


def _text_renderer() -> Processor:
    """For people; plain tracebacks, because the pretty ones print local variables: keys and documents."""
    plain = structlog.dev.plain_traceback
    return structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), exception_formatter=plain)


def _json(event: Any, **_: Any) -> str:
    return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
