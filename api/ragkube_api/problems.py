"""Errors as ``application/problem+json``: every one, with nothing of the inside in it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ragkube_api.errors import (
    BodyTooLargeError,
    DependencyUnavailableError,
    DocumentTooLargeError,
    FieldProblem,
    InvalidRequestError,
    MalformedBodyError,
    OverloadedError,
    RagkubeError,
    UnauthenticatedError,
)
from ragkube_api.telemetry import Telemetry, mark_logged

MEDIA_TYPE = "application/problem+json"
_LINGER_BYTES = 8 * 1024 * 1024
_LINGER_SECONDS = 2.0
_CLIENT_HAS_LEFT = 499
_RETRY_AFTER_SECONDS = 5.0


def body(error: RagkubeError, trace_id: str) -> dict[str, Any]:
    """The members of the problem."""
    return _members(
        error.status, error.code, error.title, error.message, trace_id,
        [{"field": p.field, "message": p.message} for p in error.problems],
    )  # fmt: skip


def respond(
    error: RagkubeError, trace_id: str, *, extra: Mapping[str, Any] | None = None, close: bool = False
) -> Response:
    """The response for an error; ``close`` ends the connection, for a body that was not read to its end."""
    headers = {"connection": "close"} if close else {}
    retry_after = _retry_after(error)
    if retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(retry_after)))
    if isinstance(error, UnauthenticatedError):
        headers["www-authenticate"] = "Bearer"
    members = {**body(error, trace_id), **(extra or {})}
    return _response(members, error.status, headers, _LingeringResponse if close else Response)


def from_validation(error: ValidationError) -> RagkubeError:
    """Name every wrong field of a JSON body; a body that is no JSON is malformed."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    if any(item["type"] == "json_invalid" for item in found):
        return MalformedBodyError(
            f"The body is no valid JSON: {_sentence(found[0]['msg'].removeprefix('Invalid JSON: '))}"
        )
    return _invalid([(item["loc"], item["type"], item["msg"]) for item in found])


def refused(error: RagkubeError, trace_id: str, telemetry: Telemetry) -> Response:
    """The response to a request that fails on purpose, and its line in the log."""
    # Below 500 the cause may quote what the client sent, and that is nobody's business.
    severe = error.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    write = telemetry.log.warning if severe else telemetry.log.info
    cause = repr(error.__cause__) if severe and error.__cause__ else None
    write("request_refused", code=error.code, status=error.status, cause=cause)
    return respond(error, trace_id, close=isinstance(error, BodyTooLargeError | DocumentTooLargeError))


def failed(error: Exception, trace_id: str, telemetry: Telemetry) -> Response:
    """The response to a request that fails by a fault of ours, and its line in the log."""
    telemetry.log.error("request_failed", exc_info=error)
    mark_logged(error)
    detail = "Something went wrong here. Report the trace id."
    return _response(_members(500, RagkubeError.code, RagkubeError.title, detail, trace_id, []), 500, {})


def install(app: FastAPI, telemetry: Telemetry) -> None:
    """Answer every exception of the application with a problem."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, RagkubeError)  # noqa: S101 - the type it is registered for
        return refused(error, trace_id(request), telemetry)

    async def validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        found = [(item["loc"][1:], item["type"], item["msg"]) for item in error.errors()]
        return respond(_invalid(found), trace_id(request))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        status = HTTPStatus(error.status_code)
        code = status.phrase.lower().replace(" ", "-")
        detail = _HTTP_DETAILS.get(status, str(error.detail))
        members = _members(status, code, status.phrase, detail, trace_id(request), [])
        return _response(members, status, dict(error.headers or {}))

    async def left(request: Request, error: Exception) -> Response:
        del request, error
        return Response(status_code=_CLIENT_HAS_LEFT)

    async def fault(request: Request, error: Exception) -> Response:
        return failed(error, trace_id(request), telemetry)

    app.add_exception_handler(RagkubeError, ours)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(ClientDisconnect, left)
    app.add_exception_handler(Exception, fault)


def trace_id(request: Request) -> str:
    """The trace this request belongs to."""
    return str(request.state.trace_id)


_HTTP_DETAILS = {
    HTTPStatus.NOT_FOUND: "There is nothing at this path; see /docs.",
    HTTPStatus.METHOD_NOT_ALLOWED: "This path does not take this method; see the Allow header.",
}


def _members(
    status: int, code: str, title: str, detail: str, trace: str, errors: Sequence[Mapping[str, str]]
) -> dict[str, Any]:
    return {
        "type": f"urn:ragkube:problem:{code}", "title": title, "status": int(status), "detail": detail,
        "code": code, "errors": list(errors), "trace_id": trace,
    }  # fmt: skip


class _LingeringResponse(Response):
    """Reads on for a moment after it is sent: a connection closed at once would reset it under a sending client."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        seen = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                while seen < _LINGER_BYTES:
                    message = await receive()
                    seen += len(message.get("body", b""))
                    if not message.get("more_body", False):
                        break
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _response(
    members: Mapping[str, Any], status: int, headers: dict[str, str], kind: type[Response] = Response
) -> Response:
    return kind(orjson.dumps(members), status, headers, media_type=MEDIA_TYPE)


def _retry_after(error: RagkubeError) -> float | None:
    if error.retry_after is not None:
        return error.retry_after
    if isinstance(error, OverloadedError):
        return 1.0
    return _RETRY_AFTER_SECONDS if isinstance(error, DependencyUnavailableError) else None


def _invalid(found: Sequence[tuple[tuple[int | str, ...], str, str]]) -> InvalidRequestError:
    problems: dict[str, FieldProblem] = {}
    for location, kind, message in found:
        name = ".".join(str(part) for part in location if part != "[key]") or "body"
        text = "unknown field" if kind == "extra_forbidden" else _lower(message)
        problems.setdefault(name, FieldProblem(name, text))
    listed = tuple(problems.values())
    return InvalidRequestError(
        _sentence("; ".join(f"{p.field}: {p.message}" for p in listed)), problems=listed
    )


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def _sentence(message: str) -> str:
    return message if message.endswith(".") else f"{message}."
