"""``POST /v1/documents``: many files in one multipart body; a bad one does not stop the others."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from ragkube_api import problems
from ragkube_api.context import Runtime
from ragkube_api.domain import Metadata
from ragkube_api.errors import InvalidRequestError, RagkubeError
from ragkube_api.routes.documentation import PROBLEMS
from ragkube_api.routes.documents import check_encoding, check_id, status_of, stored_body
from ragkube_api.routes.metadata import metadata_of
from ragkube_api.routes.multipart import Part, parts
from ragkube_api.routes.request import AppRuntime, WriteTenant, invalid
from ragkube_api.schemas import UploadBody
from ragkube_api.services.ingestion import Upload, too_large

router = APIRouter(tags=["documents"])

_MAX_FILES: Final = 1000
_FILES: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "file": {"type": "array", "items": {"type": "string", "format": "binary"}}
                    },
                }
            }
        },
    }
}


@router.post(
    "/v1/documents",
    summary="Upload many files",
    response_model=UploadBody,
    responses={
        207: {"model": UploadBody, "description": "Some files are stored, some are not: see `results`."},
        **PROBLEMS,
    },
    openapi_extra=_FILES,
)
async def upload_documents(request: Request, runtime: AppRuntime, tenant: WriteTenant) -> Response:
    """A file's name (it may hold slashes) is its document's id; metadata as for a single document, for all files.

    200: every file is stored. 207: some are. When none is, a problem that carries `results` too.
    """
    check_encoding(request)
    metadata = metadata_of(request)
    results: list[dict[str, Any]] = []
    errors: list[RagkubeError] = []
    seconds = runtime.settings.server.request_timeout_seconds
    async for part in parts(request, runtime.ingestion.max_bytes, seconds):
        if len(results) == _MAX_FILES:
            raise InvalidRequestError(
                f"At most {_MAX_FILES} files in one request; the first ones are stored."
            )
        try:
            results.append(await _store(runtime, tenant, part, metadata))
        except RagkubeError as error:
            errors.append(error)
            results.append(_failed(part, error, problems.trace_id(request)))
    if not results:
        raise invalid("file", "send at least one file")
    return _respond(results, errors, problems.trace_id(request))


async def _store(runtime: Runtime, tenant: str, part: Part, metadata: Metadata) -> dict[str, Any]:
    if part.filename is None:
        raise invalid(part.name or "field", "is no file; metadata goes into headers or the query")
    check_id(part.filename, "filename")
    if part.body is None:
        raise too_large(runtime.ingestion.max_bytes)
    upload = Upload(tenant, part.filename, part.body, part.content_type, metadata)
    stored = await runtime.ingestion.put(upload)
    return {"id": part.filename, "status": status_of(stored), "document": stored_body(stored), "error": None}


def _failed(part: Part, error: RagkubeError, trace_id: str) -> dict[str, Any]:
    problem = problems.body(error, trace_id)
    return {"id": part.filename, "status": error.status, "document": None, "error": problem}


def _respond(results: list[dict[str, Any]], errors: list[RagkubeError], trace_id: str) -> Response:
    unchanged = sum(1 for item in results if item["document"] and item["document"]["unchanged"])
    stored = len(results) - len(errors) - unchanged
    body = {"results": results, "stored": stored, "unchanged": unchanged, "failed": len(errors)}
    if len(errors) == len(results):
        return problems.respond(_worst(errors), trace_id, extra=body)
    status = HTTPStatus.MULTI_STATUS if errors else HTTPStatus.OK
    return Response(orjson.dumps(body), status, media_type="application/json")


def _worst(errors: list[RagkubeError]) -> RagkubeError:
    """The one that all share by status, or else that none could be stored."""
    if len({error.status for error in errors}) == 1:
        return errors[0]
    return InvalidRequestError("None of the files could be stored; see results.")
